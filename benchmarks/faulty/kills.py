"""Processes that are killed: at random moments, and where it would hurt most."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from erl_envs.core import digest
from faulty.commands import Command, environment, run, start
from faulty.row import CommandRow

HOOK = Path(__file__).parent / "hook"


class Kill(CommandRow):
    """SIGKILL at random moments: of the process alone, or of all that it started."""

    kind = "SIGKILL"

    def __init__(self, command: Command, kills: int) -> None:
        """Args: kills: how many."""
        super().__init__(command)
        self.kills = kills

    def trials(self) -> Sequence[str]:
        """Each kill."""
        return [f"{number}" for number in range(self.kills)]

    def run(self, trial: str) -> str:
        """Kill, go on, compare."""
        out, (_, seconds) = self.fresh(), self.whole()
        rng = np.random.default_rng(int(digest([self.name, trial])[:8], 16))
        process = start(self.command.argv(out), self.command.home / "killed.log")
        with suppress(subprocess.TimeoutExpired):
            process.wait(float(rng.uniform(0.15, 1.0)) * seconds)
        whom = os.killpg if int(trial) % 2 else os.kill
        with suppress(ProcessLookupError):
            whom(process.pid, signal.SIGKILL)
        process.wait()
        return self.recover(out)


class KillInside(CommandRow):
    """SIGKILL right before and right after calls that replace, remove and rename."""

    kind = "SIGKILL inside a replacement"

    def __init__(self, command: Command, kills: int) -> None:
        """Args: kills: how many at most."""
        super().__init__(command)
        self.kills = kills

    def trials(self) -> Sequence[str]:
        """Moments, spread evenly over all there are, which a run is watched for first."""
        log = self.command.home / "calls.log"
        if not log.exists():
            self.whole()
            out = self.fresh()
            part = log.with_suffix(".part")
            part.unlink(missing_ok=True)
            self._run(out, FAULT_LOG=str(part))
            part.rename(log)
        most = max(
            Counter(
                line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()
            ).values()
        )
        every = [f"{number} {when}" for number in range(most) for when in ("before", "after")]
        chosen = np.unique(np.linspace(0, len(every) - 1, self.kills).round().astype(int))
        return [every[index] for index in chosen]

    def run(self, trial: str) -> str:
        """Kill, go on, compare."""
        out = self.fresh()
        self._run(out, FAULT_AT=trial)
        return self.recover(out)

    def _run(self, out: Path, **more: str) -> None:
        path = os.pathsep.join([str(HOOK), environment()["PYTHONPATH"]])
        log = self.command.home / "killed.log"
        run(self.command.argv(out), log, FAULT_UNDER=str(out), PYTHONPATH=path, **more)
