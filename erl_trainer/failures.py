"""What fails outside the policy, and how much of that a run bears."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from erl_envs.core import Attempt


class TooManyFailures(RuntimeError):
    """More attempts or reflections failed than the configuration allows; the reasons."""


def reasons(attempts: Sequence[Attempt]) -> list[str]:
    """Why those of the attempts failed that are invalid."""
    return [a.error for a in attempts if a.error is not None]


def check_failures(what: str, failed: Sequence[str], count: int, share: float) -> None:
    """Compare failures with what is allowed.

    Args:
        what: Was tried, in words.
        failed: The reason of each that failed.
        count: How many were tried.
        share: Of them that may fail.

    Raises:
        TooManyFailures: More did.
    """
    if len(failed) > share * count:
        most = Counter(failed).most_common(3)
        told = "; ".join(f"{number}× {reason}" for reason, number in most)
        raise TooManyFailures(f"{len(failed)} of {count} {what} failed outside the policy: {told}")
