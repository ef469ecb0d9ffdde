"""What must not matter: where output goes, hash seeds, locales, threads, batches, length."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from erl_envs.arguments import OK
from faulty.commands import (
    SECONDS,
    Command,
    Evaluation,
    Fault,
    differences,
    environment,
    run,
    start,
)
from faulty.row import CommandRow, Row


class Output(CommandRow):
    """Standard output and error that are closed, full, or of few characters."""

    kind = "no output"

    REDIRECTS = {  # noqa: RUF012
        "closed": ">&- 2>&- <&-",
        "full": "> /dev/full 2> /dev/full",
        "reader gone": "2>&1 | true",
        "ASCII": "",
    }

    def trials(self) -> Sequence[str]:
        """Each kind."""
        return list(self.REDIRECTS)

    def run(self, trial: str) -> str:
        """Run, compare."""
        out = self.fresh()
        ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
        code = out.parent / "code"
        line = f"{shlex.join([sys.executable, *self.command.argv(out)])}; echo $? >'{code}'"
        done = subprocess.run(
            ["/bin/sh", "-c", f"{{ {line}; }} {self.REDIRECTS[trial]}"],
            env=environment(**(ascii_only if trial == "ASCII" else {})),
            cwd=out.parent,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        until, ended = time.monotonic() + SECONDS, ""
        while not ended:  # the reader is the last of a pipe, and gone at once
            if time.monotonic() > until:
                raise Fault(f"it has not ended: {done.stderr[-300:]!r}")
            time.sleep(0.1)
            ended = code.read_text(encoding="utf-8").strip() if code.exists() else ""
        if ended != "0" or b"Traceback" in done.stderr:
            raise Fault(f"it ended with {ended}: {done.stderr[-300:]!r}")
        differing = differences(self.command, self.whole()[0], out)
        return f"{len(differing)} parts differ" if differing else ""


class Variations(CommandRow):
    """The same command in other circumstances."""

    kind = "other circumstances"

    def __init__(self, command: Command) -> None:
        """Args: command: What is run."""
        super().__init__(command)
        self.how = "bit for bit, but by rounding:"

    CIRCUMSTANCES = {  # noqa: RUF012
        "hash seed 1": {"PYTHONHASHSEED": "1"},
        "hash seed 4242": {"PYTHONHASHSEED": "4242"},
        "locale C, another time zone": {
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "TZ": "Pacific/Kiritimati",
        },
        "two threads": {"OMP_NUM_THREADS": "2"},
    }
    BATCHES = {  # noqa: RUF012
        "eval": {"episodes at a time: 1": "--concurrency 1", "7": "--concurrency 7"},
        "train": {
            "micro-batches of 512 tokens": "--token-budget 512",
            "attempts at a time: 3": "--concurrency 3",
        },
    }

    def trials(self) -> Sequence[str]:
        """Each."""
        batches = self.BATCHES.get(self.command.name.partition(",")[0], {})
        return [*self.CIRCUMSTANCES, *batches]

    def run(self, trial: str) -> str:
        """Run, compare; where sums are taken in another order, tell how much differs."""
        out = self.fresh()
        argv, more = self.command.argv(out), self.CIRCUMSTANCES.get(trial, {})
        if trial not in self.CIRCUMSTANCES:
            argv += self.BATCHES[self.command.name.partition(",")[0]][trial].split()
        done = run(argv, self.command.home / "varied.log", **more)
        if done.code != OK:
            raise Fault(f"it ended with {done.code}: {done.err.strip()[-200:]}")
        whole = self.whole()[0]
        ours, theirs = self.command.result(out), self.command.result(whole)
        differing = [name for name in theirs if ours.get(name) != theirs[name]]
        if not differing:
            return ""
        # random play computes nothing; else sums may be taken in another order
        rounds = trial == "two threads" or trial not in self.CIRCUMSTANCES
        if not rounds or type(self.command) is Evaluation:
            raise Fault(f"{len(differing)} of {len(theirs)} parts differ: {differing[:3]}")
        return f"{trial}: {len(differing)} of {len(theirs)} parts differ{_distance(whole, out)}"


class ManyEpisodes(Row):
    """Memory and descriptors of a long run."""

    name = "a long run: flat memory and descriptors"
    how = "grows by 16 MiB at most"

    def __init__(self, home: Path, episodes: int) -> None:
        """Args: episodes: about how many."""
        self.home, self.samples = home, max(1, episodes // 200)  # of 200 tasks

    def trials(self) -> Sequence[str]:
        """One."""
        return [f"{200 * self.samples:,} episodes"]

    def run(self, trial: str) -> str:
        """Watch it."""
        if not Path("/proc/self/statm").exists():
            raise Fault("not tried: there is no /proc here")
        out = self.home / "out"
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        words = f"--env frozenlake --policy random --samples {self.samples} --out {out}"
        process = start([*Evaluation.module, *words.split()], self.home / "log")
        seen: list[tuple[int, int, int]] = []  # bytes of episodes, of memory, descriptors
        try:
            while process.poll() is None:
                with suppress(OSError, ValueError):
                    size = (out / "episodes.jsonl").stat().st_size
                    memory = (
                        Path(f"/proc/{process.pid}/statm").read_text(encoding="utf-8").split()[1]
                    )
                    files = len(os.listdir(f"/proc/{process.pid}/fd"))
                    seen.append((size, int(memory) * os.sysconf("SC_PAGE_SIZE") >> 20, files))
                time.sleep(0.2)
        finally:
            process.kill()
        if process.returncode != OK:
            log = (self.home / "log").read_text(encoding="utf-8")
            raise Fault(f"it ended with {process.returncode}: {log}")
        whole = seen[-1][0]
        playing = [s for s in seen if whole // 10 < s[0] < whole]
        grown = max(s[1] for s in playing) - playing[0][1]
        open_files = {s[2] for s in playing}
        told = (
            f"{playing[0][1]} MiB after a tenth, {grown} more at most while playing, "
            f"{max(s[1] for s in seen)} at the end; {sorted(open_files)} descriptors"
        )
        count = json.loads((out / "run.json").read_text(encoding="utf-8"))["counts"]["episodes"]
        shutil.rmtree(self.home)
        if grown > 16 or len(open_files) > 1:
            raise Fault(told)
        return f"{count:,} episodes, {whole >> 20} MiB of transcripts: {told}"


def _distance(whole: Path, out: Path) -> str:
    """How far two models lie apart, where there is one."""
    from safetensors.numpy import load_file

    found = sorted(whole.rglob("model.safetensors"))
    if not found:
        return ""
    most = 0.0
    for path in found:
        ours, theirs = load_file(out / path.relative_to(whole)), load_file(path)
        most = max(most, *(float(np.abs(ours[name] - theirs[name]).max()) for name in theirs))
    return f", weights by {most:.1e} at most"
