"""Runs a grid: each run its own process with one thread, some at a time, resumable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from erl_envs.arguments import IN_USE
from erl_envs.files import read_json, write_whole, writing
from erl_envs.locks import is_held
from erl_trainer.curves.grid import Run
from erl_trainer.types import DONE

CONFIG, LOG, METRICS = "grid-config.json", "log.txt", "metrics.jsonl"
"""Files of a run's folder: the first two are written here, the third by the trainer."""

_POLL = 0.5
_PATIENCE = 10.0
"""Seconds between looks at the processes; seconds that one has to end when asked to."""

Command = Callable[[Path, Path], Sequence[str]]
"""The command line that trains, from its config file and the run's folder."""

Show = Callable[[int, int, float, str | None], None]
"""Called with runs ended, runs in all, work done (in runs), and the run that ended, if one did."""


class Failure(NamedTuple):
    """A run that ended without being finished, and the last line it wrote."""

    run: Run
    reason: str


def train_command(config: Path, folder: Path) -> Sequence[str]:
    """The trainer's own command line."""
    train = [sys.executable, "-m", "erl_trainer", "train"]
    return [*train, "--config", str(config), "--out", str(folder), "--resume"]


def is_finished(folder: Path) -> bool:
    """Whether the run of a folder is finished."""
    return (folder / DONE).is_file()


def check_unchanged(runs: Sequence[Run], folder: Path) -> None:
    """See that no run was begun with another configuration.

    Raises:
        ValueError: One was; the message names the first field that differs.
    """
    for run in runs:
        path = folder / run.folder / CONFIG
        if not path.is_file():
            continue
        before: Mapping[str, Any] = read_json(path)
        for key in sorted({*before, *run.config}):
            if before.get(key) != run.config.get(key):
                raise ValueError(
                    f"{path.parent} was begun with {key} {before.get(key)!r}, the grid now says "
                    f"{run.config.get(key)!r}; remove that folder or take another --out"
                )


def run_all(
    runs: Sequence[Run], folder: Path, workers: int, show: Show, command: Command
) -> list[Failure]:
    """Run what is not finished, in order; whatever stops this stops the processes too.

    A grid that is killed leaves its processes behind: a run that one still holds is waited for.

    Args:
        runs: A grid's.
        folder: Of all runs.
        workers: Processes at a time.
        show: Is told how far it is.
        command: What trains.

    Returns:
        The runs that failed; they do not stop the others.

    Raises:
        ValueError: A run was begun with another configuration.
        WriteError: A run's folder cannot be written.
    """
    check_unchanged(runs, folder)
    waiting = [run for run in runs if not is_finished(folder / run.folder)]
    active: dict[subprocess.Popen[bytes], Run] = {}
    failures = []
    ended = len(runs) - len(waiting)
    try:
        while waiting or active:
            free = [run for run in waiting if not is_held(folder / run.folder)]
            for run in free[: workers - len(active)]:
                waiting.remove(run)
                active[_start(run, folder / run.folder, command)] = run
            time.sleep(_POLL)
            for process in [p for p in active if p.poll() is not None]:
                run = active.pop(process)
                if process.returncode == IN_USE:
                    waiting.append(run)
                    continue
                ended += 1
                if process.returncode or not is_finished(folder / run.folder):
                    reason = last_line(folder / run.folder / LOG)
                    failures.append(Failure(run, f"exit code {process.returncode}: {reason}"))
                show(ended, len(runs), ended + _begun(active.values(), folder), run.title)
            show(ended, len(runs), ended + _begun(active.values(), folder), None)
    finally:
        _stop(list(active))
    return failures


def last_line(path: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [
        line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    return next((line for line in reversed(lines) if line), "")


def _start(run: Run, folder: Path, command: Command) -> subprocess.Popen[bytes]:
    line = command(folder / CONFIG, folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / CONFIG, json.dumps(dict(run.config), indent=2) + "\n")
        with (folder / LOG).open("ab") as log:
            # if the process writes nothing, this is the last line
            log.write(f"$ {' '.join(line)}\n".encode())
            log.flush()
            return subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _begun(runs: Iterable[Run], folder: Path) -> float:
    """Share of their steps that runs under way have done, summed."""
    return sum(min(1.0, _steps_done(folder / run.folder) / run.steps) for run in runs)


def _steps_done(folder: Path) -> int:
    try:
        return int(json.loads(last_line(folder / METRICS))["step"])
    except (OSError, ValueError, KeyError):  # not there yet, or a line half written
        return 0
