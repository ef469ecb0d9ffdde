"""A budget of elementary operations, for searches whose cost a stranger's task decides."""

from __future__ import annotations

from erl_envs.core import EnvError

MAX_WORK = 10_000_000
"""Operations of a search, each about a look at one cell: together some two seconds on a slow core.
They are counted and not timed, so that a search ends at the same place on every machine."""


class Work:
    """What a search may still do."""

    def __init__(self, who: str, most: int = MAX_WORK) -> None:
        """Begin to count.

        Args:
            who: The search, for the error.
            most: Operations that it may take.
        """
        self.who, self.most, self.left = who, most, most

    def spend(self, operations: int) -> None:
        """Count operations, before they are done.

        Raises:
            EnvError: They are more than are left, and the search's answer is still open.
        """
        self.left -= operations
        if self.left < 0:
            raise EnvError(f"{self.who} stopped at its bound of {self.most:,} operations")
