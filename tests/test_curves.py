"""The grid of runs and its figures: statistics by hand, a trainer that only pretends."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import erl_envs
from erl_envs import tasks
from erl_envs.arguments import INTERRUPTED, INVALID, USAGE
from erl_trainer import plots
from erl_trainer.config import Config, configure, to_json
from erl_trainer.curves import bars, command, figures, results, runner, statistics
from erl_trainer.curves.grid import Grid, Run, grid_of, read_grid, slug
from erl_trainer.curves.progress import time_left
from erl_trainer.curves.results import Record, Results
from erl_trainer.curves.statistics import Curve
from erl_trainer.curves.tables import tables

GRID: dict[str, Any] = {
    "base": {"steps": 10, "lr": 1e-3, "env_options": {"feedback": "outcome", "rules": "hidden"}},
    "environments": {
        "FrozenLake": {"env": "frozenlake", "lr": 1e-4},
        "Sokoban": {"env": "sokoban"},
    },
    "methods": {
        "GRPO": {"algo": "grpo"},
        "ERL": {"algo": "erl"},
        "ERL, rules shown": {
            "algo": "erl",
            "env_options": {"rules": "shown"},
            "environments": ["Sokoban"],
        },
    },
    "seeds": [0, 1],
    "references": {"Sokoban": {"random": 0.03}},
}

ERL = {"ERL": {"algo": "erl"}}

# what a fake trainer does: writes a run that reached .5 at step 10; fails where it finds "fail"
FAKE = """
import json, os, sys
from pathlib import Path
config, out = Path(sys.argv[1]), Path(sys.argv[2])
print("began", os.environ["OMP_NUM_THREADS"])
if (out.parent / "fail").exists():
    sys.exit("no such checkpoint")
(out / "config.json").write_text(config.read_text())
rows = [{"step": 0, "eval/reward": 0.1}, {"step": 10, "eval/reward": 0.5, "tokens/sampled": 100}]
(out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
(out / "done.json").write_text('{"reason": "steps", "step": 10}')
"""


def fake(config: Path, folder: Path) -> Sequence[str]:
    return [sys.executable, "-c", FAKE, str(config), str(folder)]


def silent(ended: int, total: int, work: float, title: str | None) -> None:
    pass


def curve(*points: tuple[float, float]) -> Curve:
    x, y = np.asarray(points, dtype=float).T
    return Curve(x, y)


def record(
    method: str = "ERL",
    seed: int = 0,
    rewards: Sequence[float | None] = (0.1, 0.2, 0.3),
    tokens: Sequence[float] = (0, 100, 200),
    ended: str | None = "steps",
    environment: str = "FrozenLake",
) -> Record:
    steps = [5.0 * index for index in range(len(rewards))]
    seconds = {f"time/{stage}": 1.0 for stage in results.STAGES}
    training = {"train/reward": 0.2, "train/post_reflection": 0.3, "train/mixed_groups": 0.5}
    training["train/mixed_groups_2"] = 0.6
    return Record(
        environment,
        method,
        seed,
        ended,
        {"algo": "erl", "seed": seed},
        {
            "step": steps,
            "tokens/sampled": list(tokens),
            "time/wall": steps,
            "eval/reward": list(rewards),
        },
        {"step": [1, 2]} | {metric: [value, value + 0.1] for metric, value in training.items()},
        {"tokens/sampled": tokens[-1], "updates": 10, "time/wall": steps[-1], **seconds},
    )


def grid_results(*records: Record) -> Results:
    methods = {"GRPO": "grpo", "ERL": "erl"}
    references = {"FrozenLake": {"random": 0.15}}
    return Results(("FrozenLake",), methods, ("GRPO", "ERL"), (0, 1), references, records)


class TestStatistics:
    @pytest.mark.parametrize(
        ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (1e4, 1.960)]
    )
    def test_t_quantiles_are_the_tables(self, freedom: float, quantile: float) -> None:
        assert statistics.t_quantile(freedom) == pytest.approx(quantile, abs=6e-4)

    def test_interval_of_a_mean(self) -> None:
        # deviations -1, 0, 1: variance 1, standard error 1/√3, t(2) = 4.3027
        mean, half = statistics.estimate([1, 2, 3])
        assert mean == 2
        assert half == pytest.approx(4.3027 / math.sqrt(3), abs=1e-3)

    def test_a_single_value_has_no_interval(self) -> None:
        mean, half = statistics.estimate([0.5])
        assert mean == 0.5 and math.isnan(half)
        assert math.isnan(statistics.difference([0.5], [0.1, 0.2]).half)

    def test_welch(self) -> None:
        # variances of the means: 1/3 and 4/3, together 5/3;
        # degrees of freedom (5/3)² / ((1/3)²/2 + (4/3)²/2) = (25/9) / (17/18) = 2.941
        # t(2.941) lies between t(2) = 4.303 and t(3) = 3.182; tables interpolate 3.22
        mean, half = statistics.difference([1, 2, 3], [2, 4, 6])
        assert mean == -2
        assert half == pytest.approx(statistics.t_quantile(50 / 17) * math.sqrt(5 / 3))
        assert 3.182 < statistics.t_quantile(50 / 17) < 3.25

    def test_equal_values_differ_by_nothing(self) -> None:
        assert statistics.difference([1, 1], [1, 1]) == (0, 0)

    def test_trailing_mean_takes_fewer_at_the_start(self) -> None:
        assert statistics.trailing_mean(
            curve((0, 2), (1, 4), (2, 6), (3, 8)), 3
        ).y.tolist() == pytest.approx([2, 3, 4, 6])

    def test_a_band_ends_with_the_shortest_run(self) -> None:
        # the second is y = x; at 0, 1, 2 the first is 2, 2, 2; beyond 2 nobody knows it
        found = statistics.band([curve((0, 2), (2, 2)), curve((0, 0), (1, 1), (4, 4))])
        assert found.x.tolist() == [0, 1, 2]
        assert found.mean.tolist() == pytest.approx([1, 1.5, 2])
        # values 2 and 1: standard deviation √.5, error .5, t(1) = 12.706
        assert (found.high - found.mean)[1] == pytest.approx(0.5 * 12.706, abs=1e-2)

    def test_area_is_the_mean_height(self) -> None:
        # trapezes: (0 + 1)/2 · 1 and (1 + 1)/2 · 3, over a length of 4
        assert statistics.area(curve((0, 0), (1, 1), (4, 1))) == pytest.approx(3.5 / 4)
        assert math.isnan(statistics.area(curve((0, 1))))


class TestGrid:
    def test_fields_merge_and_a_method_goes_first(self) -> None:
        runs = {(run.environment, run.method): run for run in grid_of(GRID).runs}
        assert len(runs) == 5  # one method runs in Sokoban alone
        shown = runs["Sokoban", "ERL, rules shown"]
        assert shown.config["env_options"] == {"feedback": "outcome", "rules": "shown"}
        assert (shown.config["lr"], shown.config["algo"], shown.steps) == (1e-3, "erl", 10)
        assert runs["FrozenLake", "ERL"].config["lr"] == 1e-4
        assert "environments" not in shown.config

    def test_every_method_has_its_first_seed_early(self) -> None:
        assert [run.seed for run in grid_of(GRID).runs] == [0] * 5 + [1] * 5

    def test_folders(self) -> None:
        assert slug("ERL, no distillation") == "erl-no-distillation"
        assert grid_of(GRID).runs[0].folder == Path("frozenlake/grpo/0")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": [1]}, "unknown key 'seed'"),
            ({"seeds": []}, "no seeds"),
            ({"seeds": [1, 1]}, "different whole numbers"),
            ({"base": {"seed": 1}}, "name the seeds"),
            ({"base": {"learning_rate": 1}}, "FrozenLake, GRPO: unknown field 'learning_rate'"),
            ({"base": {"preset": "papr"}}, "unknown preset 'papr'"),
            ({"methods": {"PPO": {"algo": "ppo"}}}, "unknown algo 'ppo'"),
            ({"methods": {"A b": {"algo": "erl"}, "a-B": {"algo": "erl"}}}, "must differ"),
            ({"methods": {"A": {"algo": "erl", "environments": ["Go"]}}}, "of A 'Go'"),
            ({"main": ["PPO"]}, "unknown method in main 'PPO'"),
            ({"references": {"Go": {}}}, "unknown environment in references 'Go'"),
            ({"environments": ["FrozenLake"]}, "environments must be an object in the grid"),
            ({"methods": {"GRPO": "grpo"}}, "GRPO must be an object in the grid, got 'grpo'"),
            ({"seeds": 3}, "seeds must be a list in the grid, got 3"),
            (
                {"environments": {"Chess": {"env": "chess"}}, "references": {}, "methods": ERL},
                "Chess, ERL: no environment 'chess'",
            ),
            ({"base": {"env_options": {"colour": 1}}}, "FrozenLake, GRPO: frozenlake has no opt"),
        ],
    )
    def test_a_bad_grid_is_told_before_anything_runs(
        self, change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            grid_of({**GRID, **change})

    def test_a_broken_file(self, tmp_path: Path) -> None:
        (tmp_path / "grid.json").write_text("{", encoding="utf-8")
        with pytest.raises(ValueError, match="cannot read the grid"):
            read_grid(tmp_path / "grid.json")
        (tmp_path / "grid.json").write_text("[1]", encoding="utf-8")
        with pytest.raises(ValueError, match="it must be an object in the grid, got"):
            read_grid(tmp_path / "grid.json")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_POLL", 0.01)


@pytest.mark.usefixtures("quick")
class TestRunner:
    grid: Grid = grid_of(
        {**GRID, "environments": {"FrozenLake": {}}, "references": {}}
        | {"methods": {"GRPO": {"algo": "grpo"}, "ERL": {"algo": "erl"}}}
    )

    def test_all_run_with_one_thread(self, tmp_path: Path) -> None:
        assert runner.run_all(self.grid.runs, tmp_path, 2, silent, fake) == []
        for run in self.grid.runs:
            config = json.loads(
                (tmp_path / run.folder / "grid-config.json").read_text(encoding="utf-8")
            )
            assert config["seed"] == run.seed and config["preset"] == "default"
            assert "began 1" in (tmp_path / run.folder / "log.txt").read_text(encoding="utf-8")

    def test_finished_runs_are_not_run_again(self, tmp_path: Path) -> None:
        runner.run_all(self.grid.runs, tmp_path, 2, silent, fake)
        (tmp_path / self.grid.runs[2].folder / "done.json").unlink()
        begun: list[Path] = []

        def noting(config: Path, folder: Path) -> Sequence[str]:
            begun.append(folder)
            return fake(config, folder)

        assert runner.run_all(self.grid.runs, tmp_path, 2, silent, noting) == []
        assert begun == [tmp_path / self.grid.runs[2].folder]

    def test_a_failure_is_told_and_stops_no_other(self, tmp_path: Path) -> None:
        (tmp_path / "frozenlake/grpo").mkdir(parents=True)
        (tmp_path / "frozenlake/grpo/fail").touch()
        failures = runner.run_all(self.grid.runs, tmp_path, 1, silent, fake)
        assert [failure.run.title for failure in failures] == [
            "FrozenLake, GRPO, seed 0",
            "FrozenLake, GRPO, seed 1",
        ]
        assert failures[0].reason == "exit code 1: no such checkpoint"
        assert runner.is_finished(tmp_path / "frozenlake/erl/1")
        (tmp_path / "frozenlake/grpo/fail").unlink()
        assert runner.run_all(self.grid.runs, tmp_path, 1, silent, fake) == []

    def test_a_run_that_ends_well_and_is_not_finished_failed(self, tmp_path: Path) -> None:
        def nothing(config: Path, folder: Path) -> Sequence[str]:
            return [sys.executable, "-c", ""]

        [failure] = runner.run_all(self.grid.runs[:1], tmp_path, 1, silent, nothing)
        assert failure.reason.startswith("exit code 0: $ ")  # it wrote nothing but its command

    def test_what_stops_the_grid_stops_its_processes(self, tmp_path: Path) -> None:
        started = tmp_path / "started"

        def endless(config: Path, folder: Path) -> Sequence[str]:
            code = f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid()))"
            return [sys.executable, "-c", f"{code}; time.sleep(600)"]

        def interrupt(ended: int, total: int, work: float, title: str | None) -> None:
            if started.exists() and started.read_text(encoding="utf-8"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            runner.run_all(self.grid.runs[:1], tmp_path, 1, interrupt, endless)
        assert not Path("/proc", started.read_text(encoding="utf-8")).exists()

    def test_another_configuration_is_refused(self, tmp_path: Path) -> None:
        runner.run_all(self.grid.runs[:1], tmp_path, 1, silent, fake)
        run = self.grid.runs[0]
        changed = Run(run.environment, run.method, run.seed, 10, {**run.config, "lr": 1.0})
        with pytest.raises(ValueError, match=r"with lr 0\.001, the grid now says 1\.0"):
            runner.run_all([changed], tmp_path, 1, silent, fake)

    def test_work_done_counts_steps_of_runs_under_way(self, tmp_path: Path) -> None:
        folder = tmp_path / self.grid.runs[0].folder
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"step": 4}\n{"step": 5}\n', encoding="utf-8")
        assert runner._begun(self.grid.runs[:2], tmp_path) == 0.5  # of 10 steps


def test_time_left_goes_by_the_pace_since_the_start() -> None:
    clock = iter([0.0, 3600.0])
    left = time_left(lambda: next(clock))
    assert left(10, 20) == "time left unknown"
    assert left(12, 20) == "4 h 00 min left"  # 2 in an hour, 8 to go


class TestResults:
    def folder(self, tmp_path: Path, lines: Sequence[str], ended: bool = True) -> Path:
        folder = tmp_path / GRID_RUN.folder
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(
            json.dumps(dict(GRID_RUN.config) | {"top_p": 1.0}), encoding="utf-8"
        )
        (folder / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
        if ended:
            (folder / "done.json").write_text('{"reason": "steps", "step": 2}', encoding="utf-8")
        return folder

    def test_a_run_is_read(self, tmp_path: Path) -> None:
        lines = [
            '{"step": 0, "eval/reward": 0.123456, "time/evaluation": 3}',
            '{"step": 1, "train/reward": NaN, "train/mixed_groups": 0.5, "time/training": 9}',
            '{"step": 1, "train/reward": 0.25, "tokens/sampled": 50, "time/training": 2}',
            '{"step": 2, "train/reward": 0.5, "eval/reward": 1, "tokens/sampled": 90, '
            '"time/training": 2, "time/wall": 8}',
            '{"step": 3, "eval/rew',
        ]
        found = results.read_run(GRID_RUN, self.folder(tmp_path, lines))
        assert found is not None and found.ended == "steps"
        assert found.evaluation == {
            "step": [0, 2],
            "tokens/sampled": [0, 90],  # nothing was sampled before training
            "time/wall": [0, 8],
            "eval/reward": [0.1235, 1],
        }
        # step 1 was run again after a resume: its last line counts
        assert found.training == {"step": [1, 2], "train/reward": [0.25, 0.5]}
        assert found.totals["tokens/sampled"] == 90
        assert (found.totals["time/training"], found.totals["time/evaluation"]) == (4, 3)
        assert found.config["top_p"] == 1.0

    def test_a_run_that_has_not_begun(self, tmp_path: Path) -> None:
        assert results.read_run(GRID_RUN, tmp_path / "none") is None

    def test_final_reward(self) -> None:
        its = record(rewards=[0.9, 0.1, 0.2, 0.6], tokens=[0, 100, 200, 300])
        assert its.final == 0.6
        assert its.final_at(300) == pytest.approx(0.6)
        assert its.final_at(150) == pytest.approx(0.15)
        assert math.isnan(record(rewards=[None], tokens=[0]).final)

    def test_steps_without_a_value_are_left_out(self) -> None:
        x, y = record(rewards=[0.1, None, 0.3]).curve("eval/reward")
        assert (x.tolist(), y.tolist()) == ([0, 10], [0.1, 0.3])

    def test_the_file_holds_everything(self, tmp_path: Path) -> None:
        before = grid_results(record(seed=0), record("GRPO", seed=1, ended=None))
        results.write(before, tmp_path / "results.json")
        assert results.read(tmp_path / "results.json") == before
        text = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert text["config"] == {"algo": "erl"}  # what all share is told once
        assert [run["config"] for run in text["runs"]] == [{"seed": 0}, {"seed": 1}]

    def test_results_without_runs_can_be_written(self, tmp_path: Path) -> None:
        results.write(grid_results(), tmp_path / "results.json")
        assert results.read(tmp_path / "results.json") == grid_results()

    def test_runs_without_a_folder_come_from_the_file(self, tmp_path: Path) -> None:
        grid = grid_of(GRID)
        self.folder(tmp_path, ['{"step": 0, "eval/reward": 0.5}'])
        first = results.collect(grid, tmp_path)
        assert len(first.records) == 1
        assert results.collect(grid, tmp_path / "elsewhere", first) == first
        # a part of it does not replace it; what ended does
        part = tmp_path / "part"
        folder = self.folder(part, ['{"step": 0, "eval/reward": 0.1}'], ended=False)
        assert results.collect(grid, part, first) == first
        (folder / "done.json").write_text('{"reason": "steps", "step": 2}', encoding="utf-8")
        assert results.collect(grid, part, first).records[0].final == 0.1
        # a run with another configuration is another run
        other = grid_of(
            {
                **GRID,
                "environments": {"FrozenLake": {"lr": 1.0}},
                "references": {},
                "methods": {"GRPO": {"algo": "grpo"}},
            }
        )
        assert results.collect(other, tmp_path / "elsewhere", first).records == ()

    def test_a_name_means_the_same_in_all_runs(self, tmp_path: Path) -> None:
        grid = grid_of(GRID)
        made_of = {"model": "sha256:a", "train_split": "b", "eval_split": "c"}
        runs = [run for run in grid.runs if run.environment == "FrozenLake"][:3]
        for run, its in zip(runs, (None, made_of, {**made_of, "model": "d"}), strict=True):
            folder = tmp_path / run.folder
            folder.mkdir(parents=True)
            whole = {**to_json(configure("default", run.config["algo"])), **run.config}
            (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
            if its:
                (folder / "origin.json").write_text(json.dumps(its), encoding="utf-8")
        told = f"{runs[1].title} and {runs[2].title} have a different model of the same"
        with pytest.raises(ValueError, match=told):
            results.collect(grid, tmp_path)
        (tmp_path / runs[2].folder / "origin.json").write_text(
            json.dumps(made_of), encoding="utf-8"
        )
        found = results.collect(grid, tmp_path)
        assert [r.config.get("origin") for r in found.records] == [None, made_of, made_of]

    @pytest.mark.parametrize("name", ["games", "tuning"])
    def test_the_references_are_of_the_tasks_that_are_evaluated(self, name: str) -> None:
        grid = read_grid(Path("benchmarks/curves", f"{name}.json"))
        for environment, told in grid.references.items():
            run = next(run for run in grid.runs if run.environment == environment)
            fields = {k: v for k, v in run.config.items() if k not in ("algo", "preset")}
            cfg = Config(**fields)
            chosen = tasks.load(cfg.env, cfg.eval_split, **cfg.options)[: cfg.eval_tasks]
            known = tasks.references(erl_envs.make(cfg.env, **cfg.options), chosen)
            exact = tasks.mean([found.random if found else None for found in known])
            assert told["random"] == pytest.approx(exact, abs=5e-6)


GRID_RUN = grid_of(GRID).runs[0]


class TestTables:
    def test_numbers(self) -> None:
        # GRPO .1, .3 → .2 ± 12.706 · .1; ERL .5, .7 → .6, Welch .4 ± 4.303 · √.02 = .608
        runs = [
            record(method, seed, [reward] * 3, tokens)
            for method, seed, reward, tokens in [
                ("GRPO", 0, 0.1, (0, 100, 200)),
                ("GRPO", 1, 0.3, (0, 100, 150)),
                ("ERL", 0, 0.5, (0, 1000, 2000)),
                ("ERL", 1, 0.7, (0, 1000, 2000)),
            ]
        ]
        text = tables(grid_results(*runs))
        rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
        cells = {row[1]: row[2:-1] for row in rows if len(row) > 2}
        assert cells["method"][3] == "at 150 tokens"
        assert cells["GRPO"][:3] == ["2", "0.200 ± 1.271", ""]
        assert cells["ERL"][1:3] == ["0.600 ± 1.271", "+0.400 [-0.208, +1.008]"]
        assert cells["ERL"][4] == "0.600 ± 1.271"
        assert cells["GRPO"][5:] == ["175", "10", "10"]
        assert cells["random"][1] == "0.150"

    def test_what_is_missing_is_told(self) -> None:
        text = tables(grid_results(record(), record(seed=1, ended=None)))
        assert "| ERL | 1 of 2 | 0.300 |" in text
        assert "left out\n\n- FrozenLake, ERL, seed 1" in text


class TestFigures:
    def test_means_are_of_finished_runs(self) -> None:
        runs = [record(seed=0), record(seed=1), record(seed=2, ended=None)]
        with plots.drawing():
            figure = figures.learning_curves(grid_results(*runs), figures.STEPS)
        assert figure is not None
        [axes] = figure.axes
        faint = [line for line in axes.get_lines() if line.get_alpha() == 0.3]
        [mean] = [line for line in axes.get_lines() if line.get_label() == "ERL"]
        assert len(faint) == 3
        assert np.asarray(mean.get_ydata()) == pytest.approx([0.1, 0.2, 0.3])

    def test_shares_of_time(self) -> None:
        assert bars._shares([record().totals]) == pytest.approx([0.2] * 5)
        long = {"time/training": 30.0, "time/rollout": 10.0}  # counts no more than a short one
        short = {"time/training": 1.0, "time/rollout": 3.0}
        assert bars._shares([long, short, {}]) == pytest.approx([0.5, 0, 0, 0.5, 0])
        assert bars._shares([{}]) == []

    def test_styles_differ(self) -> None:
        assert len({str(plots.style(index)) for index in range(24)}) == 24

    def test_what_was_not_measured_is_not_drawn(self) -> None:
        with plots.drawing():
            assert [draw(grid_results()) for draw in command.FIGURES.values()] == [None] * 8

    def test_the_same_results_give_the_same_bytes(self, tmp_path: Path) -> None:
        runs = [record(m, s, [0.1 * s, 0.2, 0.3]) for m in ("GRPO", "ERL") for s in (0, 1)]
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            with plots.drawing():
                command.draw(grid_results(*runs), tmp_path / name)
        for name in command.FIGURES:
            for ending in (".png", ".svg"):
                a, b = (tmp_path / folder / (name + ending) for folder in "ab")
                assert a.read_bytes() == b.read_bytes()

    def test_matplotlib_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ValueError, match="'erl-envs\\[train\\]'"), plots.drawing():
            pass


@pytest.mark.usefixtures("quick")
class TestCommand:
    def run(self, tmp_path: Path, *more: str) -> int:
        small = {**GRID, "environments": {"Sokoban": {"env": "sokoban"}}, "seeds": [0]}
        (tmp_path / "grid.json").write_text(json.dumps(small), encoding="utf-8")
        return command.main([str(tmp_path / "grid.json"), "--out", str(tmp_path / "out"), *more])

    @pytest.fixture(autouse=True)
    def trainer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command, "train_command", fake)

    def test_from_the_grid_to_figures(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(tmp_path, "--workers", "2") == 0
        out = tmp_path / "out"
        drawn = sorted(path.stem for path in out.glob("*.svg"))
        assert drawn == ["ablations", "curves_steps", "curves_time", "curves_tokens", "final"]
        printed = capsys.readouterr()
        assert "no reflection: no run has what it shows" in printed.out
        assert "run 3 of 3" in printed.err
        assert "| ERL, rules shown | 1 | 0.500 |" in (out / "tables.md").read_text(encoding="utf-8")

    def test_figures_come_from_the_results_alone(self, tmp_path: Path) -> None:
        assert self.run(tmp_path) == 0
        out = tmp_path / "out"
        before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
        (out / "runs").rename(tmp_path / "away")
        assert self.run(tmp_path, "--draw-only") == 0
        assert before == {path.name: path.read_bytes() for path in out.iterdir()}

    def test_a_run_whose_results_are_kept_is_not_run_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(tmp_path) == 0
        out = tmp_path / "out"
        before = (out / "results.json").read_bytes()
        (out / "runs").rename(tmp_path / "away")
        assert self.run(tmp_path) == 0  # as in a fresh clone
        assert not (out / "runs").exists()
        assert (out / "results.json").read_bytes() == before
        unfinished = json.loads(before)
        unfinished["runs"][1]["ended"] = None
        (out / "results.json").write_text(json.dumps(unfinished), encoding="utf-8")
        capsys.readouterr()
        assert self.run(tmp_path) == 0
        assert "run 1 of 1" in capsys.readouterr().err
        assert results.read(out / "results.json").records[1].ended

    def test_a_kept_run_with_another_configuration_is_run_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        grid = {**GRID, "base": {**GRID["base"], "group_size": 20}, "seeds": [0]}
        (tmp_path / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
        argv = [str(tmp_path / "grid.json"), "--out", str(tmp_path / "out")]
        assert command.main(argv) == 0
        (tmp_path / "out" / "runs").rename(tmp_path / "away")
        del grid["base"]["group_size"]  # now the default of 4 or 10
        (tmp_path / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
        capsys.readouterr()
        assert command.main(argv) == 0
        assert "run 5 of 5" in capsys.readouterr().err

    def test_failures(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "out/runs/sokoban/erl").mkdir(parents=True)
        (tmp_path / "out/runs/sokoban/erl/fail").touch()
        assert self.run(tmp_path) == INVALID
        assert "failed: Sokoban, ERL, seed 0: exit code 1: no such" in capsys.readouterr().err

    def test_a_bad_argument(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(tmp_path, "--workers", "0") == USAGE
        assert capsys.readouterr().err == "error: --workers must be 1 or more, got 0\n"

    def test_interrupted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "run_all", interrupt)
        assert self.run(tmp_path) == INTERRUPTED
        assert "the same command goes on" in capsys.readouterr().err
