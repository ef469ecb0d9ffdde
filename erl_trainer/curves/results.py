"""What the figures need of a grid's runs, in one small file that can be kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from erl_envs.files import read_json, write_whole
from erl_trainer.config import FREE, configure, to_json
from erl_trainer.curves.grid import Grid, Run, title
from erl_trainer.curves.runner import METRICS
from erl_trainer.curves.statistics import Curve
from erl_trainer.origin import CONTENT, ORIGIN
from erl_trainer.types import DONE

STAGES = ("rollout", "reflection", "second_rollout", "training", "evaluation")
"""What a step's time is spent on."""

_CUMULATIVE = ("tokens/sampled", "updates", "time/wall")
_EVALUATION = ("tokens/sampled", "time/wall", "eval/reward")
_TRAINING = (
    "train/reward",
    "train/reward_2",
    "train/post_reflection",
    "train/mixed_groups",
    "train/mixed_groups_2",
)

Series = Mapping[str, Sequence[float | None]]
"""Values by metric, one an entry of `step`; None where a step has none."""


@dataclass(frozen=True)
class Record:
    """What is kept of a run.

    Attributes:
        environment: The grid's name of it.
        method: The grid's name of it.
        seed: Of everything that was drawn.
        ended: Why it ended; None if it has not.
        config: Its configuration, every field, and its `origin`.
        evaluation: Series over the steps with an evaluation.
        training: Series over all other steps.
        totals: Last values of what is cumulative, and seconds of each stage.
    """

    environment: str
    method: str
    seed: int
    ended: str | None
    config: Mapping[str, Any]
    evaluation: Series
    training: Series
    totals: Mapping[str, float]

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return title(self.environment, self.method, self.seed)

    def curve(self, metric: str, against: str = "step") -> Curve:
        """A metric's points, without those it has no value for."""
        series = self.evaluation if metric in self.evaluation else self.training
        pairs = zip(series.get(against, ()), series.get(metric, ()), strict=False)
        points = [(x, y) for x, y in pairs if x is not None and y is not None]
        x, y = np.asarray(points, dtype=float).reshape(-1, 2).T
        return Curve(x, y)

    @property
    def final(self) -> float:
        """Reward of the last evaluation; NaN without any."""
        rewards = self.curve("eval/reward").y
        return float(rewards[-1]) if len(rewards) else math.nan

    def final_at(self, tokens: float) -> float:
        """What the final reward would have been after so many sampled tokens."""
        x, y = self.curve("eval/reward", "tokens/sampled")
        return float(np.interp(tokens, x, y)) if len(x) else math.nan


@dataclass(frozen=True)
class Results:
    """A grid's names (see `Grid`) and its runs as far as they are."""

    environments: tuple[str, ...]
    methods: Mapping[str, str]
    main: tuple[str, ...]
    seeds: tuple[int, ...]
    references: Mapping[str, Mapping[str, float]]
    records: tuple[Record, ...]

    def of(self, environment: str, method: str, finished: bool = True) -> list[Record]:
        """Runs of one environment and method, by seed; the finished ones, or all that began."""
        found = [r for r in self.records if (r.environment, r.method) == (environment, method)]
        return sorted(
            (record for record in found if record.ended or not finished), key=lambda r: r.seed
        )

    def find(self, run: Run) -> Record | None:
        """A run's record, if it has one with the run's configuration."""
        key = (run.environment, run.method, run.seed)
        same = (r for r in self.records if (r.environment, r.method, r.seed) == key)
        return next((r for r in same if _agrees(r.config, run)), None)

    def first(self, algo: str) -> str | None:
        """The first method with this algorithm."""
        return next((name for name, its in self.methods.items() if its == algo), None)


def collect(grid: Grid, folder: Path, earlier: Results | None = None) -> Results:
    """The runs that have begun.

    Args:
        grid: Says which.
        folder: Of all runs.
        earlier: Where a run that has no folder, or ended elsewhere, is taken from, if its
            configuration agrees.

    Raises:
        ValueError: A file is broken, or runs have different models or tasks of the same name.
    """
    records = []
    for run in grid.runs:
        record, kept = read_run(run, folder / run.folder), earlier and earlier.find(run)
        if kept and not (record and (record.ended or not kept.ended)):
            record = kept
        if record:
            records.append(record)
    _check_origins(records)
    return Results(
        grid.environments, grid.methods, grid.main, grid.seeds, grid.references, tuple(records)
    )


def _check_origins(records: Sequence[Record]) -> None:
    """See that a name means the same in all runs; those from before there were origins pass.

    Raises:
        ValueError: It does not; the message names two runs.
    """
    first: dict[tuple[str, ...], Record] = {}
    for record in records:
        config, made_of = record.config, record.config.get("origin", {})
        data = json.dumps(config.get("env_options", {}).get("data"))
        for field in CONTENT if made_of else ():
            key = (field, str(config.get("env")), str(config.get(field)), data)
            other = first.setdefault(key, record)
            if other.config["origin"][field] != made_of[field]:
                raise ValueError(
                    f"{other.title} and {record.title} have a different {field} of the same name; "
                    "run them anew in another --out"
                )


def read_run(run: Run, folder: Path) -> Record | None:
    """What a run's folder holds; None if it has not begun.

    Raises:
        ValueError: A file is broken.
    """
    if not (folder / "config.json").is_file():
        return None
    try:
        config, path = read_json(folder / "config.json"), folder / ORIGIN
        made_of = {"origin": read_json(path)} if path.is_file() else {}
        done = folder / DONE
        ended = str(read_json(done)["reason"]) if done.is_file() else None
    except (ValueError, KeyError) as error:
        raise ValueError(f"a file of the run {folder} is broken: {error}") from error
    rows = _rows(folder / METRICS)
    evaluated = [row for row in rows if "eval/reward" in row]
    totals = {key: max((row.get(key, 0.0) for row in rows), default=0.0) for key in _CUMULATIVE}
    spent = {key: sum(row.get(key, 0.0) for row in rows) for key in _times()}
    return Record(
        run.environment,
        run.method,
        run.seed,
        ended,
        {**run.config, **config, **made_of},
        _series(evaluated, _EVALUATION),
        _series([row for row in rows if any(key in row for key in _TRAINING)], _TRAINING),
        {key: round(value, 4) for key, value in (totals | spent).items()},
    )


def write(results: Results, path: Path) -> None:
    """Write the file: what all runs share, then one run a line."""
    configs = [record.config for record in results.records]
    shared = {
        key: value
        for key, value in (configs[0] if configs else {}).items()
        if all(key in config and config[key] == value for config in configs)
    }
    head = {key: value for key, value in vars(results).items() if key != "records"}
    lines = []
    for record in results.records:
        differing = {key: v for key, v in record.config.items() if key not in shared}
        lines.append(json.dumps({**asdict(record), "config": differing}, separators=(",", ":")))
    opening = json.dumps({**head, "config": shared}, indent=1, ensure_ascii=False)[:-2]
    write_whole(path, opening + ',\n "runs": [\n' + ",\n".join(lines) + "\n ]\n}\n")


def read(path: Path) -> Results:
    """Read the file.

    Raises:
        ValueError: It is missing or broken.
    """
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
        shared = text["config"]
        records = [Record(**{**r, "config": {**shared, **r["config"]}}) for r in text["runs"]]
        return Results(
            tuple(text["environments"]),
            text["methods"],
            tuple(text["main"]),
            tuple(text["seeds"]),
            text["references"],
            tuple(records),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read the results {path}: {error}") from error


def _agrees(config: Mapping[str, Any], run: Run) -> bool:
    """Whether the run would have this configuration; a field that came later has its default."""
    fields: dict[str, Any] = dict(run.config)
    whole = to_json(configure(fields.pop("preset"), fields.pop("algo"), **fields))
    own = {**json.loads(json.dumps(whole)), **run.config}
    return all(config.get(key, own[key]) == own[key] for key in own if key not in FREE)


def _times() -> list[str]:
    return [f"time/{stage}" for stage in STAGES]


def _rows(path: Path) -> list[dict[str, float]]:
    """Steps in order, with finite numbers only; what is cumulative has a value at each."""
    by_step: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:  # half written as the process was killed; the resumed one writes it anew
            continue
        numbers = {key: v for key, v in row.items() if isinstance(v, int | float)}
        finite = {key: v for key, v in numbers.items() if math.isfinite(v)}
        by_step[row["step"]] = finite  # a resumed run repeats steps after its checkpoint
    rows, before = [], dict.fromkeys(_CUMULATIVE, 0.0)
    for step in sorted(by_step):
        row = {**before, **by_step[step]}
        before = {key: row[key] for key in _CUMULATIVE}
        rows.append(row)
    return rows


def _series(rows: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> Series:
    """Columns of the metrics that have any value, rounded."""
    columns: dict[str, list[float | None]] = {"step": [row["step"] for row in rows]}
    for metric in metrics:
        values = [row.get(metric) for row in rows]
        if any(value is not None for value in values):
            columns[metric] = [None if value is None else round(value, 4) for value in values]
    return columns
