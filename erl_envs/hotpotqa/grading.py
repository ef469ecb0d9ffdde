"""What an answer earns (PAPER: Environments)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from erl_envs import qa_metrics

Mode = Literal["paper", "em", "f1"]

PARTIAL = 0.3
"""Least F1 that the paper's reward pays for."""


def grade(answer: str, golds: Sequence[str], mode: Mode) -> tuple[float, str]:
    """Reward of an answer, and the outcome: `exact`, `partial` or `wrong`.

    Args:
        answer: What was boxed.
        golds: The right answers; the one that it is closest to counts.
        mode: `paper`: 1 on exact match, F1 if it is at least .3, else 0. `em`, `f1`: just that.
    """
    graded = max((qa_metrics.score(answer, gold) for gold in golds), key=lambda g: (g.em, g.f1))
    if graded.em:
        return 1.0, "exact"
    partial = graded.f1 >= PARTIAL
    paid = {"paper": graded.f1 if partial else 0.0, "em": 0.0, "f1": graded.f1}[mode]
    return paid, "partial" if partial else "wrong"
