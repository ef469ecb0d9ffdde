"""A run from its command to its folder: what it writes, resuming, and what stops it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from disks import small_disk
from launching import together
from tiny_models import untrained_nano

import erl_envs
from erl_envs import registry, tasks
from erl_envs.arguments import UNWRITABLE
from erl_envs.core import EnvError, Step
from erl_envs.eval.__main__ import main as evaluate
from erl_envs.frozenlake import FrozenLake
from erl_envs.hotpotqa.data import open_source
from erl_envs.policies.transformers import Transformers
from erl_trainer import checkpoint, erl, launch
from erl_trainer.__main__ import main
from erl_trainer.config import Config, configure
from erl_trainer.failures import TooManyFailures
from erl_trainer.learner import Learner
from erl_trainer.memory import Lesson
from erl_trainer.metrics import Log
from erl_trainer.optimizer import MasterAdamW
from erl_trainer.sync import StaleSampler
from erl_trainer.train import Run
from erl_trainer.types import NotFinite

FAST = [
    *"--steps 4 --tasks-per-step 2 --group-size 2".split(),  # noqa: SIM905 - a command line
    *"--eval-tasks 2 --eval-samples 1 --eval-every 2".split(),  # noqa: SIM905
    *"--max-tokens 6 --reflect-max-tokens 8 --lr 0.01".split(),  # noqa: SIM905
    *"--checkpoint-every 2 --sample-every 2 --loggers []".split(),  # noqa: SIM905
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny untrained model with nano's tokenizer."""
    return untrained_nano(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any message is some action, so that an untrained model's rewards differ."""
    monkeypatch.setattr(FrozenLake, "parse", lambda self, text: (self.actions[len(text) % 4], ""))


def train(model: str, out: Path, *more: str) -> int:
    torch.set_num_threads(1)
    return main(["train", "--model", model, "--out", str(out), *FAST, *more])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def timeless(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines(path)]


def test_a_run_writes_its_folder(model: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(model, out, "--algo", "erl") == 0
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (config["algo"], config["group_size"], config["second_attempt"]) == (
        "erl",
        2,
        "reflection",
    )
    metrics = lines(out / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [0, 1, 2, 3, 4]
    assert [line["step"] for line in metrics if "eval/reward" in line] == [0, 2, 4]
    stages = {"rollout", "reflection", "second_rollout", "training"}
    assert all(line[f"time/{stage}"] > 0 for line in metrics[1:] for stage in stages)
    assert metrics[4]["tokens/sampled"] > metrics[1]["tokens/sampled"] > 0
    samples = lines(out / "samples.jsonl")
    assert {line["step"] for line in samples} == {1, 3}
    assert {"attempt_1", "reflection", "attempt_2"} <= {line["stage"] for line in samples}
    assert all(line["text"] for line in samples if line["tokens"])
    assert json.loads((out / "done.json").read_text(encoding="utf-8")) == {
        "reason": "steps",
        "step": 4,
    }
    policy = Transformers(str(out / "model"))
    assert policy.revision != Transformers(model).revision


def test_a_trained_model_is_evaluated_like_any_other(model: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(model, out, "--algo", "grpo", "--steps", "1") == 0
    argv = f"--policy transformers:{out}/model --env frozenlake --split small-test --limit 2"
    told = "--samples 1 --max-tokens 4 --option prompt_style=compact --out"
    assert evaluate([*argv.split(), *told.split(), str(tmp_path / "eval")]) == 0


@pytest.mark.parametrize("algo", ["erl", "grpo"])
def test_two_steps_and_two_more_are_four_bit_for_bit(model: str, tmp_path: Path, algo: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(model, whole, "--algo", algo) == 0
    assert train(model, parts, "--algo", algo, "--steps", "2") == 0
    assert train(model, parts, "--algo", algo, "--resume") == 0
    assert timeless(parts / "metrics.jsonl") == timeless(whole / "metrics.jsonl")
    assert lines(parts / "samples.jsonl") == lines(whole / "samples.jsonl")
    one, two = (Transformers(str(out / "model")).model.state_dict() for out in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_a_run_remembers_outlives_a_stop(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an untrained model writes no rulebook: its first message stands for one
    monkeypatch.setattr(
        erl, "lessons", lambda trials, _: [Lesson("", trials[0].first.messages[2]["content"])]
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(model, whole) == 0
    assert train(model, parts, "--steps", "2") == 0
    held = checkpoint.latest(parts / "checkpoints")
    assert held and checkpoint.load(held)["memory"]
    assert train(model, parts, "--resume") == 0
    assert lines(parts / "samples.jsonl") == lines(whole / "samples.jsonl")  # reflections read it


@pytest.mark.parametrize("at", [1, 4])
def test_killed_between_checkpoints_it_goes_on_from_the_last(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(model, whole) == 0
    update = Learner.update
    calls: list[int] = []

    def die(self: Learner, samples: Sequence[Any]) -> Any:
        calls.append(self.updates)
        if len(calls) == at:
            raise KeyboardInterrupt
        return update(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", die)
        assert train(model, killed) == 130
    assert [line["step"] for line in lines(killed / "metrics.jsonl")] == list(range(at))
    with (killed / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(f'{{"step": {at}, "train/rew')  # a line that a crash cut off
    assert train(model, killed, "--resume") == 0
    assert timeless(killed / "metrics.jsonl") == timeless(whole / "metrics.jsonl")
    assert lines(killed / "samples.jsonl") == lines(whole / "samples.jsonl")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--colour", "red"], "unknown option '--colour'; valid: advantage, aggregation"),
        (["--steps"], "--steps needs a value"),
        (["--steps", "many"], "bad value 'many' for steps; valid: int"),
        (["--algo", "grpo", "--group-size", "1"], "GRPO with group_size 1 has nothing to compare"),
        (
            ["--small-group", "zero", "--min-group", "3"],
            "'zero' no group of 2 has credit under min",
        ),
        (["--algo", "grpo", "--group-size", "0"], "group_size must be 1 or more, got 0"),
        (["--checkpoint-every", "0"], "checkpoint_every must be 1 or more, got 0"),
        (["--eval-tasks", "-1"], "eval_tasks must be 0 or more, got -1"),
        (["--lr", "-1"], "lr must be 0 or more, got -1"),
        (["--lr", "NaN"], "lr must be a finite number, got nan"),
        (["--threshold", "Infinity"], "threshold must be a finite number, got inf"),
        (["--seed", "-1"], "seed must be 0 or more, got -1"),
        (["--dual-clip", "0.5"], "dual_clip must be 1 or more, got 0.5"),
        (["--importance-cap", "0"], "importance_cap must be above 0, got 0"),
        (["--env-options", "3"], "bad value 3 for env_options; valid: a mapping from str to Any"),
        (["--algo", "grpo", "--second-attempt", "reflection"], "grpo makes no second attempts"),
        (["--max-failures", "7"], "max_failures must be 1 or less, got 7"),
        (["--loggers", "paper"], "bad value ('paper',) for loggers; valid: "),
        (["--loggers", "wandb"], "wandb logs need the package 'wandb': pip install 'erl-envs[wa"),
        (["--memory", "all"], "bad value 'all' for memory; valid: 'none', 'last', 'retrieval'"),
        (["--temperature", "0"], "temperature must be above 0, got 0"),
        (["--eval-split", "tset"], "frozenlake has no split 'tset'; valid: train, test"),
        (["-o", "colour=red"], "frozenlake has no option 'colour'; valid options: rules"),
        (["--model", "/no/such/model"], "cannot load the model '/no/such/model': no such folder"),
        (
            ["--max-tokens", "400"],
            "reads 2048 tokens here; frozenlake with these options needs",
        ),
        (["--reflect-max-tokens", "1000"], "for a reflection: fewer max_turns, shorter messages"),
        (
            ["--max-tokens", "100", "--second-attempt", "transcript"],
            "for an attempt under an attempt: fewer max_turns",
        ),
        (
            ["--backend", "vllm-server", "--server-url", "http://127.0.0.1:9"],
            "cannot sample with backend vllm-server: the vLLM server at http://127.0.0.1:9",
        ),
        (["--reflector", "random2"], "no policy 'random2'; valid: nano, random"),
    ],
)
def test_bad_input_is_told_in_one_line(
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    message: str,
) -> None:
    assert train(model, tmp_path / "run", *argv) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"algo": "grpo", "groupsize": 3}', "unknown field 'groupsize'; valid: advantage"),
        ('{"algo": "gpro"}', "unknown algo 'gpro'; valid: erl, grpo"),
        ('{"preset": "papr"}', "unknown preset 'papr'; valid: default, paper"),
        ("[1]", "config.json must hold a JSON object of algo, preset and fields"),
        ("{", "config.json is not JSON: "),
    ],
)
def test_a_bad_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    assert main(["train", "--config", str(path), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_file_and_options_make_the_configuration(model: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        '{"algo": "grpo", "env_options": {"rules": "shown"}, "seed": 7}', encoding="utf-8"
    )
    out = tmp_path / "run"
    assert train(model, out, "--config", str(path), "-o", "max_turns=3", "--steps", "1") == 0
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["env_options"] == {"rules": "shown", "max_turns": 3}
    assert (config["algo"], config["seed"], config["second_attempt"]) == ("grpo", 7, "none")


def test_a_folder_holds_one_run(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(model, out, "--steps", "1") == 0
    assert train(model, out, "--steps", "1") == 2
    assert "holds a run; go on with it by --resume" in capsys.readouterr().err
    assert train(model, out, "--resume", "--seed", "9") == 2
    assert "holds a run with another seed (0, not 9)" in capsys.readouterr().err


def test_a_run_knows_its_model_and_tasks(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(model, out, "--steps", "1") == 0
    assert json.loads((out / "origin.json").read_text(encoding="utf-8")) == {
        "version": erl_envs.__version__,
        "model": Transformers(model).revision,
        "train_split": tasks.split_hash(tasks.load("frozenlake", "small-train")),
        "eval_split": tasks.split_hash(tasks.load("frozenlake", "small-test")),
    }
    monkeypatch.setattr(launch, "revision", lambda _: "sha256:other")
    assert train(model, out, "--resume") == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "holds a run whose model was sha256:" in told and "now is sha256:other" in told


def test_resume_alone_goes_on_as_the_folder_says(model: str, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(model, whole) == 0
    assert train(model, out, "--steps", "2") == 0
    assert main(["train", "--out", str(out), "--resume", "--steps", "4"]) == 0
    assert timeless(out / "metrics.jsonl") == timeless(whole / "metrics.jsonl")


def test_help_tells_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = capsys.readouterr().out
    for field in dataclasses.fields(Config):
        assert f"  --{field.name.replace('_', '-')} (" in told
    assert "--group-size (4)\n      First attempts of a task.\n" in told


def test_a_broken_checkpoint_is_told(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(model, out, "--steps", "2") == 0
    path = checkpoint.latest(out / "checkpoints")
    assert path is not None
    path.write_bytes(path.read_bytes()[:1000])
    assert train(model, out, "--resume") == 2
    told = capsys.readouterr().err
    assert f"cannot read the checkpoint {path}" in told and "there is no other" in told
    path.unlink()
    assert train(model, out, "--resume") == 2
    assert f"{out} holds 2 steps but no checkpoint" in capsys.readouterr().err
    assert len(lines(out / "metrics.jsonl")) == 3
    with pytest.raises(ValueError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "none.pt")


def test_a_loss_that_is_not_finite_stops_and_saves(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    update = Learner.update

    calls: list[int] = []

    def fail(self: Learner, samples: Sequence[Any]) -> Any:
        calls.append(self.updates)
        if len(calls) == 2:
            raise NotFinite("loss is nan in the micro-batch of tasks a, b (policy)")
        return update(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", fail)
        assert train(model, out) == 1
    assert "stopped at step 1: loss is nan in the micro-batch of tasks a, b" in (
        capsys.readouterr().err
    )
    stopped = json.loads((out / "stopped.json").read_text(encoding="utf-8"))
    assert (stopped["reason"], stopped["step"]) == ("not_finite", 1)
    path = checkpoint.latest(out / "checkpoints")
    assert path is not None
    assert checkpoint.load(path)["step"] == 1
    assert not (out / "done.json").exists()
    assert train(model, out, "--resume") == 0
    assert (out / "done.json").exists()
    assert not (out / "stopped.json").exists()


def test_weights_that_an_update_broke_stop_the_run(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = MasterAdamW.step

    def overflow(self: MasterAdamW, *args: float) -> None:
        step(self, *args)
        with torch.no_grad():
            next(iter(self.masters.values())).fill_(torch.nan)

    monkeypatch.setattr(MasterAdamW, "step", overflow)
    assert train(model, tmp_path / "run", "--kl-weight", "0.01") == 1
    told = capsys.readouterr().err
    assert "log-probabilities are not finite after the update by tasks " in told
    stopped = json.loads((tmp_path / "run" / "stopped.json").read_text(encoding="utf-8"))
    assert stopped["reason"] == "not_finite"


def test_a_full_disk_is_told(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(state: Any, path: Path) -> None:
        path.write_text("half", encoding="utf-8")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos\nframe #0")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        assert train(model, tmp_path / "run", "--steps", "2") == UNWRITABLE
    told = capsys.readouterr().err
    assert "step-000002.pt: [enforce fail at inline_container.cc:672] . unexpected pos\n" in told
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert train(model, tmp_path / "run", "--steps", "2", "--resume") == 0


def test_a_step_half_learnt_is_not_saved(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    words = ["--updates", "staged", "--kl-weight", "0.01", "--checkpoint-every", "1"]
    assert train(model, whole, *words) == 0
    update, learnt = Learner.update, []

    def fail(self: Learner, samples: Sequence[Any]) -> Any:
        learnt.append((samples[0].update, self.updates))
        if [number for number, _ in learnt].count(0) == 2 and samples[0].update == 1:
            raise NotFinite("loss is nan")
        return update(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", fail)
        assert train(model, out, *words) == 1
    (_, before), (_, after) = learnt[-2:]
    assert after == before + 1  # of step 2 the first attempts were learnt
    saved = out / "checkpoints" / "step-000001.pt"
    assert f"--resume goes on from {saved}" in capsys.readouterr().err
    assert train(model, out, *words, "--resume") == 0
    assert timeless(out / "metrics.jsonl") == timeless(whole / "metrics.jsonl")


def test_more_steps_of_a_finished_run_are_unfinished(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert train(model, out, "--steps", "2") == 0

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", interrupt)
        assert train(model, out, "--resume") == 130
    assert not (out / "done.json").exists()


class Flaky(FrozenLake):
    """Its lake is always closed."""

    name = "flaky"

    def act(self, action: str) -> Step:
        raise EnvError("the lake is closed")


def test_an_environment_that_fails_too_often_stops_the_run(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(registry._ENTRY_POINTS, "flaky", Flaky)
    assert train(model, tmp_path / "run", "--env", "flaky", "--eval-every", "0") == 1
    told = capsys.readouterr().err
    assert "stopped at step 0: 4 of 4 attempts of step 1 failed outside the policy: " in told
    assert "4× EnvError: the lake is closed" in told
    assert train(model, tmp_path / "other", "--env", "flaky") == 1
    told = capsys.readouterr().err
    assert "2 of 2 attempts of the evaluation after step 0 failed outside the policy: " in told
    assert "--resume goes on from " in told and "step-000000.pt" in told


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_failed_evaluation_loses_no_step(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(model, whole, "--checkpoint-every", "9") == 0
    evaluate = Run.evaluate

    def fail(self: Run) -> dict[str, float]:
        if self.step == at:
            raise TooManyFailures("the lake is closed")
        return evaluate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", fail)
        assert train(model, out, "--checkpoint-every", "9") == 1
    path = checkpoint.latest(out / "checkpoints")
    assert path is not None and checkpoint.load(path)["step"] == at
    assert train(model, out, "--resume") == 0
    assert timeless(out / "metrics.jsonl") == timeless(whole / "metrics.jsonl")
    assert lines(out / "samples.jsonl") == lines(whole / "samples.jsonl")


def test_a_step_that_fails_first_goes_on_after_the_evaluation_before_it(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(model, whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", _not_finite)
        assert train(model, out) == 1
    assert train(model, out, "--resume") == 0
    assert timeless(out / "metrics.jsonl") == timeless(whole / "metrics.jsonl")


def test_a_sample_that_the_model_cannot_read_loses_no_step(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update, steps = Learner.update, iter(range(9))

    def refuse(self: Learner, samples: Sequence[Any]) -> Any:
        if next(steps) == 3:
            self._context = 1
        return update(self, samples)

    monkeypatch.setattr(Learner, "update", refuse)
    assert train(model, tmp_path / "run", "--checkpoint-every", "9") == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "tokens but the model reads 1: take one that reads" in told
    path = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert path is not None and checkpoint.load(path)["step"] == 3


def _not_finite(*_: Any) -> Any:
    raise NotFinite("loss is nan in the micro-batch of tasks a, b (policy)")


def test_what_a_step_learnt_before_it_failed_is_saved(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    before = Transformers(model).model.state_dict()

    def fail(self: Learner, samples: Sequence[Any]) -> Any:
        return _not_finite() if self.updates == 1 else update(self, samples)

    update = Learner.update
    monkeypatch.setattr(Learner, "update", fail)
    assert train(model, out, "--updates", "staged") == 1
    path = checkpoint.latest(out / "checkpoints")
    assert path is not None
    held = checkpoint.load(path)
    assert (held["step"], held["learner"]["updates"]) == (0, 1)
    masters = held["learner"]["optimizer"]["masters"]
    assert any(not torch.equal(masters[name], before[name]) for name in masters)


def test_a_reflector_that_fails_too_often_stops_the_run(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--reflector", "openai:someone", "--reflector-url", "http://127.0.0.1:9/v1"]
    assert train(model, tmp_path / "run", *words) == 1
    told = capsys.readouterr().err
    assert "reflections of step 1 failed outside the policy: " in told
    assert (
        json.loads((tmp_path / "run" / "stopped.json").read_text(encoding="utf-8"))["reason"]
        == "failures"
    )


def test_a_stale_sampler_stops_the_run(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stale(*_: Any) -> float:
        raise StaleSampler("it samples from other weights")

    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(model, whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr("erl_trainer.train.verify", stale)
        assert train(model, out) == 1
        assert "stopped at step 1: it samples from other weights" in capsys.readouterr().err
        assert json.loads((out / "stopped.json").read_text(encoding="utf-8"))["reason"] == "sampler"
        assert train(model, out, "--resume") == 1  # it still does
    assert train(model, out, "--resume") == 0
    ours, theirs = timeless(out / "metrics.jsonl"), timeless(whole / "metrics.jsonl")
    assert [line.pop("sync_gap", None) for line in ours][:2] == [None, None]
    assert ours == [{k: v for k, v in line.items() if k != "sync_gap"} for line in theirs]


def test_what_a_sample_says_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    log = Log(path, 0)
    for step in range(1, 5):
        log.write({"step": step, "text": "one\u2028two\x85"})
    log.close()
    before = path.read_bytes()
    Log(path, 4).close()
    assert path.read_bytes() == before


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    whole = ['{"step": 1, "text": "√"}\n', '{"step": 2, "text": "√"}\n']
    text = "".join(whole).encode()
    # within a line, within a character, before the line's end
    for size in (len(text) - 10, len(text) - 4, len(text) - 1):
        path.write_bytes(text[:size])
        log = Log(path, 5)
        log.write({"step": 3})
        log.close()
        assert path.read_text(encoding="utf-8") == whole[0] + '{"step": 3}\n'


def test_a_full_disk_on_one_process_stops_all(tmp_path: Path) -> None:
    words = "train --algo grpo --steps 1 --tasks-per-step 2 --group-size 2 --eval-every 0"
    command = ["-m", "erl_trainer", *words.split(), "--loggers", "[]", "--out", str(tmp_path)]
    with small_disk(20_000):
        for said in together(command, code=UNWRITABLE):
            assert f"error: cannot write {tmp_path / 'checkpoints' / 'step-000001.pt'}: " in said
            assert "Traceback" not in said


def test_groups_without_variance_are_told_and_the_run_goes_on(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(FrozenLake, "parse", lambda self, text: ("Up", ""))
    assert train(model, out, "--algo", "grpo", "--steps", "2") == 0
    assert capsys.readouterr().err.count("in no group do the rewards differ") == 2
    assert [line.get("skipped") for line in lines(out / "metrics.jsonl")] == [None, 1.0, 1.0]
    alone = ["--group-size", "1", "--steps", "1"]  # compared with its stage, all of it the same
    assert train(model, tmp_path / "alone", *alone) == 0
    assert "step 1: in no group do the rewards differ" in capsys.readouterr().err


def test_a_tracker_gets_every_step(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    def log(metrics: dict[str, float], step: int) -> None:
        asked.append(("log", (step, "eval/reward" in metrics, "train/reward" in metrics)))

    fake = SimpleNamespace(
        init=lambda **words: asked.append(("init", (words["project"], words["name"]))),
        log=log,
        finish=lambda: asked.append(("finish", None)),
    )
    monkeypatch.setitem(sys.modules, "trackio", fake)
    assert train(model, tmp_path / "run", "--steps", "2", "--loggers", "trackio") == 0
    assert asked == [
        ("init", ("erl", "run")),
        ("log", (0, True, False)),
        ("log", (1, False, True)),
        ("log", (2, True, True)),
        ("finish", None),
    ]


def test_presets_are_the_papers() -> None:
    erl, grpo = configure("paper", "erl"), configure("paper", "grpo")
    assert (erl.group_size, grpo.group_size, erl.tasks_per_step) == (4, 10, 64)
    assert (erl.lr, erl.clip_low, erl.clip_high, erl.kl_weight) == (1e-6, 0.2, 0.28, 0.001)
    assert (erl.advantage, erl.aggregation, erl.threshold) == (
        "mean_std",
        "seq_mean_token_sum",
        1.0,
    )
    assert (grpo.second_attempt, grpo.distill, grpo.updates) == ("none", "none", "joint")
    assert Config() == configure("default", "erl")
    assert (erl.steps, configure("paper", "erl", env="sokoban").steps) == (100, 200)
    asked = configure("paper", "grpo", env="hotpotqa", env_options={"top_k": 3})
    assert asked.env_options == {
        **{"prompt_style": "full", "data": "hub:distractor"},
        **{"snippet_chars": 300, "top_k": 3},
    }
    splits = open_source("hub:distractor").splits()
    assert {asked.train_split, asked.eval_split} <= splits.keys()


def test_help_lists_commands_and_unknown_ones_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "train, curves, nano, sft" in capsys.readouterr().out
    assert main(["trian"]) == 2
    assert "no command 'trian'; valid: train" in capsys.readouterr().err


def test_a_config_that_a_crash_left_empty_is_told(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("", encoding="utf-8")
    assert train(model, tmp_path, "--resume") == 2
    assert f"{tmp_path / 'config.json'} is not JSON: " in capsys.readouterr().err


def test_what_fails_on_one_process_stops_all(tmp_path: Path) -> None:
    script = str(Path(__file__).parent / "failing_process.py")
    words = "train --algo grpo --steps 2 --tasks-per-step 2 --group-size 2 --eval-every 0"
    said = together([script, *words.split(), "--loggers", "[]", "--out", str(tmp_path)], code=1)
    assert "stopped at step 0: the second process's sampler is gone; --resume goes on" in said[0]
    stopped = json.loads((tmp_path / "stopped.json").read_text(encoding="utf-8"))
    assert stopped["reason"] == "sampler"
    # a thread that drops a tensor after the interpreter's end aborts the process
    assert all("left of gloo: []" in words for words in said)


@pytest.mark.parametrize("algo", ["grpo", "erl"])
def test_two_processes_train_what_one_does(tmp_path: Path, algo: str) -> None:
    words = f"--env frozenlake --algo {algo} --steps 2 --tasks-per-step 4 --group-size 4 --lr 1e-4"
    words += " --eval-tasks 8 --eval-samples 1 --eval-every 2 --sample-every 1 --loggers []"
    command = ["-m", "erl_trainer", "train", *words.split(), "--out"]
    together([*command, str(tmp_path / "one")], count=1)
    together([*command, str(tmp_path / "two")])
    one, two = (timeless(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert one[1]["updates"] == 1
    for alone, both in zip(one, two, strict=True):
        assert alone == pytest.approx(both, rel=1e-3, abs=1e-5)
    assert lines(tmp_path / "one" / "samples.jsonl") == lines(tmp_path / "two" / "samples.jsonl")
    models = [Transformers(str(tmp_path / name / "model")).model for name in ("one", "two")]
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_run_of_before_a_field_goes_on_as_it_was(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(model, out, "--steps", "2", "--distill-mean", "successes") == 0
    held = json.loads((out / "config.json").read_text(encoding="utf-8"))
    for younger in ("distill_mean", "kl"):
        del held[younger]
    (out / "config.json").write_text(json.dumps(held), encoding="utf-8")
    assert train(model, out, "--resume") == 2
    assert "another distill_mean ('successes', not 'second_attempts')" in capsys.readouterr().err
    assert train(model, out, "--distill-mean", "successes", "--resume") == 0
