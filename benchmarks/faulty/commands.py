"""The commands that faults are tried on, small enough to run often, and what must come of each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]

SECONDS = 600.0
"""That a command may take."""

_TIMES = ("seconds", "started", "finished", "resumed", "hardware", "package")


class Fault(AssertionError):
    """Something that did not hold, in one line."""


class Done(NamedTuple):
    """A command that ended."""

    code: int
    err: str


def environment(**more: str) -> dict[str, str]:
    """One thread, this checkout, no network."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    return {**os.environ, **fixed, **more}


def start(argv: Sequence[str], err: Path, **more: str) -> subprocess.Popen[bytes]:
    """A command in a session of its own, what it prints in a file."""
    with err.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *argv],
            env=environment(**more),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )


def run(argv: Sequence[str], err: Path, **more: str) -> Done:
    """A command to its end."""
    process = start(argv, err, **more)
    try:
        code = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Fault(f"it has not ended after {SECONDS:.0f} s") from None
    return Done(code, err.read_text(errors="replace", encoding="utf-8"))


def timeless(value: Any) -> Any:
    """JSON without what a clock or a machine decides."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in _TIMES and not k.startswith("time/")}
        return {key: timeless(kept[key]) for key in sorted(kept)}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def _hash(content: object) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def _json(path: Path) -> Any:
    return timeless(json.loads(path.read_text(encoding="utf-8")))


def _lines(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    return [timeless(json.loads(line)) for line in text.split("\n")[:-1]]


class Command:
    """Something that is run.

    Attributes:
        name: What it is called in the table.
        exact: Whether its result is promised bit for bit after a fault.
        module: Of Python's `-m`, or a script.
    """

    name = ""
    exact = True
    module: tuple[str, ...] = ("-m", "erl_envs.eval")

    def __init__(self, home: Path) -> None:
        """Args: home: what it reads is made there once."""
        self.home = home

    def prepare(self) -> None:
        """Make what it reads."""

    def begin(self, out: Path) -> None:
        """Make what must be in the folder before."""

    def argv(self, out: Path) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def again(self, out: Path) -> list[str] | None:
        """The command line after a fault; None where it had done all."""
        return self.argv(out)

    def result(self, out: Path) -> dict[str, str]:
        """What must be the same, part by part: a hash of each."""
        raise NotImplementedError

    def make(self, out: Path, argv: Sequence[str]) -> None:
        """Make an input by another command."""
        if not out.exists():
            part = out.with_name(out.name + ".making")
            shutil.rmtree(part, ignore_errors=True)
            done = run([*argv, "--out", str(part)], self.home / "making.log")
            if done.code != 0:
                raise Fault(f"cannot make {out}: {done.err.strip().splitlines()[-1:]}")
            part.rename(out)


class Evaluation(Command):
    """A run of random play."""

    name = "eval, random"
    words = "--env frozenlake,sokoban --policy random --limit 100 --samples 10"

    def argv(self, out: Path) -> list[str]:
        """The command line."""
        return [*self.module, *self.words.split(), "--out", str(out)]

    def again(self, out: Path) -> list[str] | None:
        """It resumes what has begun."""
        return [*self.argv(out), *(["--resume"] if (out / "run.json").exists() else [])]

    def result(self, out: Path) -> dict[str, str]:
        """Each episode, the metrics, and that there is a report."""
        lines = _lines(out / "episodes.jsonl")
        found = {f"{x['task']['env']} {x['task']['id']} {x['sample']}": _hash(x) for x in lines}
        if len(found) < len(lines):
            raise Fault(f"{len(lines) - len(found)} episodes stand twice")
        page = (out / "report.html").read_text(encoding="utf-8").rstrip()[-7:]
        return {**found, "run.json": _hash(_json(out / "run.json")), "report": page}


class NanoEvaluation(Evaluation):
    """A run of the bundled model: after a kill its batches are others, and so may rounding be."""

    name = "eval, nano"
    exact = False
    words = "--env frozenlake --policy nano --limit 24 --samples 2 --attempts 2"


class Train(Command):
    """Some steps of ERL."""

    name = "train"
    module = ("-m", "erl_trainer", "train")
    words = (
        "--algo erl --steps 4 --tasks-per-step 2 --group-size 4 --eval-tasks 4 --eval-samples 1 "
        "--eval-every 2 --max-tokens 24 --checkpoint-every 1 --sample-every 1 --lr 2e-4"
    )

    def argv(self, out: Path) -> list[str]:
        """The command line."""
        return [*self.module, *self.words.split(), "--out", str(out), "--resume"]

    def result(self, out: Path) -> dict[str, str]:
        """The model's bytes, and every number but times."""
        found = {name: _hash(_lines(out / name)) for name in ("metrics.jsonl", "samples.jsonl")}
        found |= {name: _hash(_json(out / name)) for name in ("config.json", "done.json")}
        return {**found, **model_bytes(out / "model")}


class Sft(Command):
    """A model that learns an oracle's run."""

    name = "sft"
    module = ("-m", "erl_trainer", "sft")

    def prepare(self) -> None:
        """The oracle's run."""
        words = "--env frozenlake --policy oracle --split small-test --limit 20"
        compact = ["--option", "prompt_style=compact"]
        self.make(self.home / "oracle", [*Evaluation.module, *words.split(), *compact])

    def argv(self, out: Path) -> list[str]:
        """The command line."""
        learnt = ["--from", str(self.home / "oracle"), "--out", str(out)]
        return [*self.module, *learnt, "--epochs", "3", "--batch", "4"]

    def again(self, out: Path) -> list[str] | None:
        """It begins anew unless there is a model."""
        return None if (out / "model").exists() else self.argv(out)

    def result(self, out: Path) -> dict[str, str]:
        """The model's bytes, and every number but times."""
        return {"metrics.jsonl": _hash(_lines(out / "metrics.jsonl")), **model_bytes(out / "model")}


class Curves(Command):
    """A grid of two runs and its figures."""

    name = "curves"
    module = ("-m", "erl_trainer", "curves")
    grid: Mapping[str, Any] = {
        "base": {
            **{"steps": 2, "tasks_per_step": 2, "group_size": 2, "eval_tasks": 2, "loggers": []},
            **{"eval_samples": 1, "eval_every": 1, "max_tokens": 16, "checkpoint_every": 1},
        },
        "environments": {"lake": {"env": "frozenlake"}},
        "methods": {"GRPO": {"algo": "grpo"}, "ERL": {"algo": "erl"}},
        "seeds": [0],
    }

    def prepare(self) -> None:
        """The grid's file."""
        (self.home / "grid.json").write_text(json.dumps(self.grid), encoding="utf-8")

    def argv(self, out: Path) -> list[str]:
        """The command line."""
        grid = [str(self.home / "grid.json"), "--out", str(out), "--workers", "1"]
        return [*self.module, *grid]

    def result(self, out: Path) -> dict[str, str]:
        """The runs' models, their numbers but times, and which figures there are."""
        names = sorted(path.name for path in out.iterdir() if path.is_file())
        found = {"files": " ".join(names), "results.json": _hash(_json(out / "results.json"))}
        for run in sorted((out / "runs").glob("*/*/*")):
            for name, value in model_bytes(run / "model").items():
                found[f"{run.parent.name} {name}"] = value
        return found


class Pretrain(Command):
    """Pre-training of a small nano, its process started by the command."""

    name = "nano's pre-training"
    module = (str(Path(__file__).with_name("pretrain.py")),)

    def argv(self, out: Path) -> list[str]:
        """The command line."""
        return [*self.module, "--env", "sokoban", "--no-compile", "--out", str(out)]

    def result(self, out: Path) -> dict[str, str]:
        """The model's bytes, and every number of the optimizer's."""
        import torch

        def of_tensor(tensor: Any) -> str:
            return f"{tensor.dtype} {list(tensor.shape)} {_hash(tensor.numpy().tobytes())}"

        # not the file's bytes: pickle writes an object that stands twice as it was made
        state = torch.load(out / "sokoban" / "state.pt", weights_only=True)
        found = {"state.pt": _hash(json.dumps(state, default=of_tensor))}
        return {**found, **model_bytes(out / "sokoban" / "model")}


class Submit(Command):
    """A run that is packed for the leaderboards."""

    name = "submit"
    module = ("-m", "erl_envs.leaderboard", "submit")

    def prepare(self) -> None:
        """A run of a whole track."""
        words = "--env frozenlake --policy random --split small-test --samples 4"
        self.make(self.home / "run", [*Evaluation.module, *words.split()])

    def argv(self, out: Path) -> list[str]:
        """The command line."""
        told = ["--name", "dice", "--model", "dice", "--revision", "1"]
        return [*self.module, str(self.home / "run"), *told, "--out", str(out)]

    def again(self, out: Path) -> list[str] | None:
        """The same, unless it is there."""
        return None if list(out.glob("*/*_dice")) else self.argv(out)

    def result(self, out: Path) -> dict[str, str]:
        """Every byte."""
        return _files(out)


class Build(Command):
    """The leaderboards' pages."""

    name = "build"
    module = ("-m", "erl_envs.leaderboard", "build")

    def prepare(self) -> None:
        """A run of a whole track, packed."""
        words = "--env frozenlake --policy random --split small-test --samples 4"
        self.make(self.home / "run", [*Evaluation.module, *words.split()])
        told = ["--name", "dice", "--model", "dice", "--revision", "1"]
        self.make(self.home / "packed", [*Submit.module, str(self.home / "run"), *told])

    def begin(self, out: Path) -> None:
        """The submissions, and pages of another time."""
        shutil.copytree(self.home / "packed", out / "submissions")
        (out / "site" / "entries" / "old").mkdir(parents=True)
        for page in ("index.html", "entries/old/page.html"):
            (out / "site" / page).write_text("old", encoding="utf-8")

    def argv(self, out: Path) -> list[str]:
        """The command line."""
        return [*self.module, "--home", str(out), "--site", str(out / "site")]

    def result(self, out: Path) -> dict[str, str]:
        """Every byte."""
        return _files(out)


COMMANDS: tuple[type[Command], ...] = (
    Evaluation,
    NanoEvaluation,
    Train,
    Sft,
    Curves,
    Pretrain,
    Submit,
    Build,
)


def model_bytes(folder: Path) -> dict[str, str]:
    """Hashes of a model's weights and of the files beside them."""
    return {f"model/{path.name}": _hash(path.read_bytes()) for path in sorted(folder.iterdir())}


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): _hash(path.read_bytes())
        for path in paths
        if path.name != ".lock"
    }


def undisturbed(command: Command, home: Path) -> tuple[Path, float]:
    """The folder of a run that nothing happened to, made once, and its seconds."""
    out, seconds = home / "whole", home / "seconds.json"
    if not seconds.exists():
        home.mkdir(parents=True, exist_ok=True)
        command.prepare()
        shutil.rmtree(out, ignore_errors=True)
        command.begin(out)
        began = time.monotonic()
        done = run(command.argv(out), home / "whole.log")
        if done.code != 0:
            raise Fault(f"undisturbed it ends with {done.code}: {done.err.strip()[-300:]}")
        seconds.write_text(json.dumps(time.monotonic() - began), encoding="utf-8")
    return out, float(json.loads(seconds.read_text(encoding="utf-8")))


def differences(command: Command, whole: Path, out: Path) -> list[str]:
    """The parts of two results that differ.

    Raises:
        Fault: One has other parts than the other, or something that is promised exactly differs.
    """
    ours, theirs = command.result(out), command.result(whole)
    if set(ours) != set(theirs):
        raise Fault(f"other parts: {sorted(set(ours) ^ set(theirs))[:3]}")
    differing = [name for name in theirs if ours[name] != theirs[name]]
    if differing and command.exact:
        raise Fault(f"{len(differing)} of {len(theirs)} parts differ: {differing[:3]}")
    return differing
