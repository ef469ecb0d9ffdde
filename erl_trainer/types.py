"""What the algorithm hands to the learner: token sequences with credit stamped on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Kind = Literal["policy", "imitate", "match"]
"""How a sample is learnt from: by its advantage, by cross-entropy, or by matching a teacher."""


class Stage(StrEnum):
    """Where in a step a sample comes from."""

    ATTEMPT_1 = "attempt_1"
    REFLECTION = "reflection"
    ATTEMPT_2 = "attempt_2"
    DISTILL = "distill"


class StopReason(StrEnum):
    """Why a run ended."""

    STEPS = "steps"
    NOT_FINITE = "not_finite"
    FAILURES = "failures"
    SAMPLER = "sampler"


@dataclass(frozen=True)
class Sample:
    """One token sequence to learn from.

    Attributes:
        stage: Where it comes from; the learner does not look.
        task: Task id.
        kind: How it is learnt from.
        ids: Token ids, prompts and answers.
        sampled: For each id, whether the policy sampled it: only those are learnt.
        logprobs: For each id, the sampler's log-probability (nats, temperature 1), else 0.
        reward: What it earned.
        advantage: Credit of every sampled token; the weight of an imitated one.
        update: Which of the step's optimizer updates learns it, from 0.
        teacher_ids: Of a `match` sample, the same sampled ids after the teacher's prompts.
        teacher_sampled: For each teacher id, whether it is one of those.
    """

    stage: Stage
    task: str
    kind: Kind
    ids: Sequence[int]
    sampled: Sequence[bool]
    logprobs: Sequence[float]
    reward: float
    advantage: float = 0.0
    update: int = 0
    teacher_ids: Sequence[int] = ()
    teacher_sampled: Sequence[bool] = ()


def sampled_ids(ids: Sequence[int], sampled: Sequence[bool]) -> list[int]:
    """The ids that were sampled.

    Raises:
        ValueError: There are not as many flags as ids.
    """
    return [token for token, was in zip(ids, sampled, strict=True) if was]
