"""What a step did, in numbers; and where the numbers go."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erl_envs.core import Attempt
from erl_envs.extras import missing_extra
from erl_envs.files import Lines, keep_lines, writing
from erl_envs.secrets import redact_json
from erl_trainer.config import Config, to_json
from erl_trainer.types import DONE, STOPPED, Sample, Trial, sampled_ids


def mean(values: Iterable[float]) -> float | None:
    """Their mean, None of none."""
    kept = list(values)
    return sum(kept) / len(kept) if kept else None


def describe(trials: Sequence[Trial]) -> dict[str, float | None]:
    """Rewards of a step, and how often a task's rewards differ.

    `train/mixed_groups` is the share of tasks whose first attempts' rewards differ: where they do
    not, GRPO learns nothing. `train/mixed_groups_2` counts all attempts of a task, though credit
    compares those of one stage only.
    """
    valid = [t for t in trials if t.first.valid]
    seconds = [t.second for t in valid if t.second and t.second.valid]
    by_task: dict[str, tuple[set[float], set[float]]] = {}
    for trial in valid:
        firsts, both = by_task.setdefault(trial.job.task.id, (set(), set()))
        firsts.add(trial.first.reward)
        both.add(trial.first.reward)
        if trial.second and trial.second.valid:
            both.add(trial.second.reward)
    return {
        "train/reward": mean(t.first.reward for t in valid),
        "train/reward_2": mean(second.reward for second in seconds),
        "train/post_reflection": mean(t.reward for t in valid if not _failed(t.second)),
        "train/rulebooks": mean(
            t.reflection.rulebook is not None for t in valid if t.reflection is not None
        ),
        "train/mixed_groups": mean(len(firsts) > 1 for firsts, _ in by_task.values()),
        "train/mixed_groups_2": mean(len(both) > 1 for _, both in by_task.values()),
        "train/second_attempts": float(len(seconds)),
    }


def _failed(second: Attempt | None) -> bool:
    return second is not None and not second.valid


def sample_json(step: int, sample: Sample, text: str) -> dict[str, Any]:
    """A line of `samples.jsonl`: who reads a run reads these; `text` is what was sampled."""
    return {
        "step": step,
        "stage": sample.stage,
        "task": sample.task,
        "kind": sample.kind,
        "reward": sample.reward,
        "advantage": round(sample.advantage, 4),
        "tokens": sum(sample.sampled),
        "text": text,
    }


class Log:
    """A JSON-lines file that a resumed run goes on with, from the checkpoint's step."""

    def __init__(self, path: Path, step: int) -> None:
        """Drop what was written after `step`; a line cut off by a crash goes too.

        Raises:
            WriteError: The disk refuses.
        """
        if path.exists():
            keep_lines(path, [line["step"] <= step for line in read_lines(path)])
        self._lines = Lines(path)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            WriteError: The disk refuses.
        """
        self._lines.write(json.dumps(line, ensure_ascii=False))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """What each line holds, up to one that a crash cut off."""
    if not path.exists():
        return
    # texts may hold other characters that end a line to `splitlines`
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for text in file:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                return
            if text.endswith("\n"):
                yield line


def _print_no_failed_write(args: threading.ExceptHookArgs) -> None:
    """Print what ends a thread, unless TensorBoard tells it once more where it is written to."""
    if not isinstance(args.exc_value, OSError) or "tensorboard" not in type(args.thread).__module__:
        threading.__excepthook__(args)


class Trackers:
    """TensorBoard, wandb, trackio: those that were asked for."""

    def __init__(
        self, names: Sequence[str], folder: Path, config: Mapping[str, Any], step: int
    ) -> None:
        """Start them, from this step on.

        Raises:
            ValueError: One is not installed; the message says how to install it.
        """
        self._tensorboard: Any = None
        self._folder = folder / "tensorboard"
        self._runs: list[Any] = []
        for name in names:
            if name == "tensorboard":
                threading.excepthook = _print_no_failed_write
                with writing(self._folder):
                    self._tensorboard = _logger(name).SummaryWriter(
                        str(self._folder), purge_step=step
                    )
            else:
                module = _logger(name)
                module.init(project="erl", name=folder.name, config=dict(config))
                self._runs.append(module)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand on a step's numbers."""
        if self._tensorboard is not None:
            with writing(self._folder):
                for name, value in metrics.items():
                    self._tensorboard.add_scalar(name, value, step)
        for run in self._runs:
            run.log(dict(metrics), step=step)

    def close(self) -> None:
        """End them."""
        if self._tensorboard is not None:
            with writing(self._folder):
                self._tensorboard.close()
        for run in self._runs:
            run.finish()


class Writer:
    """The files of a run that grow: metrics, samples, what trackers keep."""

    def __init__(
        self, folder: Path, config: Config, tokenizer: Any, measured: int, sampled: int
    ) -> None:
        """Open them, to go on after the last steps whose metrics and samples they hold.

        Args:
            folder: The run's; what told that it had ended is removed.
            config: The run's.
            tokenizer: Tells the samples' text.
            measured: Last step whose metrics stay.
            sampled: Last step whose samples stay.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in (DONE, STOPPED):
            (folder / name).unlink(missing_ok=True)
        self._tokenizer, self._every = tokenizer, config.sample_every
        self._metrics = Log(folder / "metrics.jsonl", measured)
        self._samples = Log(folder / "samples.jsonl", sampled)
        self._trackers = Trackers(
            config.loggers, folder, redact_json(to_json(config)), measured + 1
        )

    def metrics(self, step: int, line: Mapping[str, float]) -> None:
        """Write a step's numbers."""
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}
        self._metrics.write({"step": step, **rounded})
        self._trackers.write(step, line)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write a step's samples, if it is one of those whose samples are kept."""
        if self._every and (step - 1) % self._every == 0:
            for sample in samples:
                text = self._tokenizer.decode(sampled_ids(sample.ids, sample.sampled))
                self._samples.write(sample_json(step, sample, text))

    def close(self) -> None:
        """Close them."""
        self._metrics.close()
        self._samples.close()
        self._trackers.close()


def check_loggers(names: Sequence[str]) -> None:
    """See that all can be started.

    Raises:
        ValueError: One is not installed; the message says how to install it.
    """
    for name in names:
        _logger(name)


def _logger(name: str) -> Any:
    extra = "train" if name == "tensorboard" else name
    try:
        return importlib.import_module("torch.utils.tensorboard" if extra == "train" else name)
    except ImportError as error:
        raise missing_extra(f"{name} logs", extra, error) from error
