"""Disks that are full or read-only: a small one of its own for every trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from erl_envs.arguments import INVALID, OK, UNWRITABLE
from faulty.commands import Fault, run, start
from faulty.row import CommandRow


class DiskRow(CommandRow):
    """A disk of its own, which only root can mount."""

    @contextmanager
    def disk(self, size: int = 1 << 31) -> Iterator[Path]:
        """A small disk."""
        if sys.platform != "linux" or os.geteuid() != 0:
            raise Fault("not tried: only root can mount a disk, on Linux")
        place = self.command.home / "disk"
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", place], check=True)

    def remount(self, place: Path, *options: str) -> None:
        """Change the disk."""
        words = ["mount", "-o", ",".join(["remount", *options]), str(place)]
        subprocess.run(words, check=True)

    def refused(self, out: Path) -> bool:
        """Whether the disk refuses the command, as it should be told; False if all had room."""
        argv = self.command.again(out)
        if argv is None:
            return False
        done = run(argv, self.command.home / "refused.log")
        if done.code == OK:
            return False
        # a grid says of each run what its process said
        allowed = {UNWRITABLE, INVALID} if self.command.name == "curves" else {UNWRITABLE}
        told = [line for line in done.err.splitlines() if "cannot write" in line]
        if done.code not in allowed or not told or "Traceback" in done.err:
            raise Fault(f"it ended with {done.code}: {done.err.strip()[-300:]}")
        for path in sorted([*out.rglob("*.json"), *out.rglob("*.jsonl")]):
            text = path.read_text(encoding="utf-8")
            try:
                for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
                    json.loads(line)
            except ValueError as error:
                raise Fault(f"{path.name} is not whole: {error}") from error
        return True


class FullDisk(DiskRow):
    """A disk that is full after a share of what the command writes."""

    kind = "disk full"

    def trials(self) -> Sequence[str]:
        """How much of it has room."""
        return ["0 %", "15 %", "30 %", "45 %", "60 %", "75 %", "90 %"]

    def run(self, trial: str) -> str:
        """Be refused, make room, go on, compare."""
        whole, _ = self.whole()
        share = int(trial.removesuffix(" %"))
        with self.disk() as place:
            self.command.begin(place / "run" / "out")
            before, after = _used(place), _used(whole)
            size = before + max(0, after - before) * share // 100
            self.remount(place, f"size={max(size, 4096)}")
            was_refused = self.refused(place / "run" / "out")
            self.remount(place, f"size={1 << 31}")
            return ", ".join(
                filter(
                    None, ["" if was_refused else "had room", self.recover(place / "run" / "out")]
                )
            )


class ReadOnly(DiskRow):
    """A disk that becomes read-only."""

    kind = "disk read-only"

    def trials(self) -> Sequence[str]:
        """How far the command was before."""
        return ["from the start", "after a kill halfway", "after its end"]

    def run(self, trial: str) -> str:
        """Be refused, leave everything as it was, go on, compare."""
        _, seconds = self.whole()
        with self.disk() as place:
            out = place / "run" / "out"
            self.command.begin(out)
            if trial != "from the start":
                process = start(self.command.argv(out), self.command.home / "killed.log")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(seconds / 2 if "kill" in trial else None)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            # what was killed may hold a file open for a moment
            for _ in range(50):
                try:
                    self.remount(place, "ro")
                    break
                except subprocess.CalledProcessError:
                    time.sleep(0.1)
            before = _content(place)
            was_refused = self.refused(out)
            if _content(place) != before:
                raise Fault("a read-only disk has changed")
            self.remount(place, "rw")
            return ", ".join(
                filter(None, ["" if was_refused else "nothing to write", self.recover(out)])
            )


def _used(folder: Path) -> int:
    """Bytes in whole pages, as a disk in memory counts them."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // 4096) * 4096 for size in sizes)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
