"""A kind of fault: its trials, and how a command that was disturbed is gone on with."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from erl_envs.arguments import IN_USE, OK
from faulty.commands import Command, Fault, differences, run, undisturbed


class Row(ABC):
    """A kind of fault and what it is tried on.

    Attributes:
        name: In the table.
        how: In what sense the result is the same.
    """

    name: str
    how: str = ""

    @abstractmethod
    def trials(self) -> Sequence[str]:
        """Their names."""

    @abstractmethod
    def run(self, trial: str) -> str:
        """Try; a word on how it went.

        Raises:
            Fault: It does not hold.
        """


class CommandRow(Row):
    """A fault of a command."""

    kind = ""

    def __init__(self, command: Command) -> None:
        """Args: command: What is disturbed."""
        self.command = command
        self.name, self.how = (
            f"{self.kind}: {command.name}",
            "bit for bit" if command.exact else "by rounding",
        )

    def fresh(self) -> Path:
        """A folder that holds what the command needs, and nothing of earlier trials."""
        self.whole()  # and so what it reads is there
        out = self.command.home / "trial" / "out"
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir(parents=True)
        self.command.begin(out)
        return out

    def whole(self) -> tuple[Path, float]:
        """The undisturbed result and its seconds."""
        return undisturbed(self.command, self.command.home)

    def recover(self, out: Path) -> str:
        """Go on as a person would, until all is done; how it compares with the undisturbed run."""
        waits = 0
        for _ in range(60):
            argv = self.command.again(out)
            done = run(argv, self.command.home / "again.log") if argv else None
            if done is None or done.code == OK:
                break
            if done.code != IN_USE:  # else a process that it left behind is still at it
                last = " ".join(done.err.strip().splitlines()[-1:])
                raise Fault(f"going on ended with {done.code}: {last[:200]}")
            waits += 1
            time.sleep(1)
        differing = differences(self.command, self.whole()[0], out)
        left = [path.name for path in out.rglob(".*") if path.name.endswith((".part", ".old"))]
        told = [
            f"{len(differing)} parts differ" if differing else "",
            f"waited {waits} times" if waits else "",
            f"left {left[0]}" if left else "",
        ]
        return ", ".join(filter(None, told))
