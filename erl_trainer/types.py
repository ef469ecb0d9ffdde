"""What the algorithm is made of: who plays, what was tried, and token sequences to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from erl_envs.core import Attempt, Reflection
from erl_envs.rollout import Job

Kind = Literal["policy", "imitate", "match"]
"""How a sample is learnt from: by its advantage, by cross-entropy, or by matching a teacher."""


DONE, STOPPED = "done.json", "stopped.json"
"""Files that tell that a run has ended: all its steps done, or stopped before."""


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


class Actor(Protocol):
    """Who attempts and who reflects: policies (`erl_trainer.actor`), or a script in a test."""

    def attempt(
        self, jobs: Sequence[Job], stage: str, prompts: Sequence[str] | None = None
    ) -> list[Attempt]:
        """Y ~ π(·|x), or y ~ π(·|x, Δ) where each job has a prompt of its own."""
        ...

    def reflect(
        self, jobs: Sequence[Job], attempts: Sequence[Attempt], memories: Sequence[str | None]
    ) -> list[Reflection | None]:
        """Δ ~ π(·|x, y1, f1, r1, m); None where the reflector failed."""
        ...

    def show(self, jobs: Sequence[Job], attempts: Sequence[Attempt]) -> list[Reflection | None]:
        """In the place of reflections, the first attempts themselves."""
        ...


@dataclass
class Trial:
    """One sample of a task: its first attempt, and what came of it.

    Attributes:
        job: What was played.
        first: y1.
        reflection: Δ; None where y1 succeeded, or nobody reflects.
        second: y2, where there is a Δ.
    """

    job: Job
    first: Attempt
    reflection: Reflection | None = None
    second: Attempt | None = None

    @property
    def reward(self) -> float:
        """Reward in the end; a solved first attempt keeps its own (PAPER: App. C)."""
        return self.first.reward if self.second is None else self.second.reward


class NotFinite(RuntimeError):
    """A loss, a gradient or what the model says is infinite or not a number."""


class BrokenWeights(NotFinite):
    """An update was made that the model did not survive: there is nothing to save."""


@dataclass(frozen=True)
class Sample:
    """One token sequence to learn from: an attempt's or a reflection's, or a stretch of it.

    Attributes:
        stage: Where it comes from; the learner does not look.
        task: Task id.
        kind: How it is learnt from.
        ids: Token ids, prompts and answers.
        sampled: For each id, whether the policy sampled it: only those are learnt.
        logprobs: For each id, the sampler's log-probability (nats, at `temperature`), else 0.
        reward: What it earned.
        advantage: Credit of every sampled token; the weight of an imitated one.
        temperature: What it was sampled at; the policy loss compares policies at this one.
        share: What it counts where sequences are counted: 1, or its part of an attempt that has
            several stretches.
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
    temperature: float = 1.0
    share: float = 1.0
    update: int = 0
    teacher_ids: Sequence[int] = ()
    teacher_sampled: Sequence[bool] = ()


def sampled_ids(ids: Sequence[int], sampled: Sequence[bool]) -> list[int]:
    """The ids that were sampled.

    Raises:
        ValueError: There are not as many flags as ids.
    """
    return [token for token, was in zip(ids, sampled, strict=True) if was]


def task_names(tasks: Sequence[str], most: int = 16) -> str:
    """Each task's id once, as many as a line holds."""
    names = list(dict.fromkeys(tasks))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
