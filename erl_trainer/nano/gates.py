"""What nano must be able to do before any experiment, measured on held-out symbols and boards.

Told the rules it plays well; not told it plays at random; and what it reflects on its own failed
attempt helps its second one. So it starts where the paper's models did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import erl_envs
from erl_envs import policies, tasks
from erl_envs.core import Episode, Task
from erl_envs.policies.base import Policy, Sampling
from erl_envs.policies.nano import OPTIONS, SPLIT
from erl_envs.rollout import EnvPool, Job, Player, rollout
from erl_envs.tasks import references
from erl_trainer.metrics import mean

SAMPLING = Sampling(max_tokens=32)
REFLECTION = Sampling(temperature=0.5, top_p=0.9, top_k=0, max_tokens=96)
"""How it reflects (PAPER: Training)."""

TOLD = {"frozenlake": 0.9, "sokoban": 0.9, "hotpotqa": 0.8}
"""Least success once told the rules."""


@dataclass(frozen=True)
class Skills:
    """Mean rewards.

    Attributes:
        env: Environment id.
        told: First attempts, rules shown.
        untold: First attempts, rules hidden.
        random: The uniform-random policy's: exact where it is known, else as many attempts'.
        second: Second attempts under the reflection on an own failed first one.
        rulebooks: Share of reflections that are the true rulebook, word for word.
    """

    env: str
    told: float
    untold: float
    random: float
    second: float
    rulebooks: float

    def failed(self) -> list[str]:
        """The gates that it does not pass, in words."""
        found = []
        if self.told < TOLD[self.env]:
            found.append(f"{self.env}: told {self.told:.3f}, needs {TOLD[self.env]:.2f}")
        if self.untold > 1.5 * self.random:
            limit = 1.5 * self.random
            found.append(f"{self.env}: not told {self.untold:.3f}, at most {limit:.3f}")
        if self.second < self.told / 2:
            found.append(f"{self.env}: second attempt {self.second:.3f}, needs {self.told / 2:.3f}")
        return found


def measure(policy: Policy, env: str, samples: int) -> Skills:
    """The skills in an environment, on `small-test`.

    Args:
        policy: Who plays and reflects.
        env: Environment id.
        samples: Attempts of a task.
    """
    chosen = tasks.load(env, SPLIT)
    hidden = dict(OPTIONS[env])
    told = play(policy, chosen, samples, {**hidden, "rules": "shown"}, attempts=1)
    loop = play(policy, chosen, samples, hidden, attempts=2)
    again = [e for e in loop if len(e.attempts) > 1]
    return Skills(
        env=env,
        told=mean(e.attempts[0].reward for e in told) or 0.0,
        untold=mean(e.attempts[0].reward for e in loop) or 0.0,
        random=_random(env, chosen, samples),
        second=mean(e.attempts[1].reward for e in again) or 0.0,
        rulebooks=mean(_is_true(e, hidden) for e in again) or 0.0,
    )


def _random(env: str, chosen: Sequence[Task], samples: int) -> float:
    hidden = dict(OPTIONS[env])
    known = references(erl_envs.make(env, **hidden), chosen)
    exact = tasks.mean([r.random if r else None for r in known])
    if exact is not None:
        return exact
    played = play(policies.load("random"), chosen, samples, hidden, attempts=1)
    return mean(e.attempts[0].reward for e in played) or 0.0


def play(
    policy: Policy, chosen: Sequence[Task], samples: int, options: dict[str, Any], attempts: int
) -> list[Episode]:
    """Episodes of each task, as the gates measure them."""
    jobs = [Job(task, n, 0) for task in chosen for n in range(samples)]
    players: Any = {"actor": Player(policy, SAMPLING), "reflector": Player(policy, REFLECTION)}
    pool = EnvPool({chosen[0].env: options})
    return list(rollout(jobs, pool, players, attempts, concurrency=256))


def _is_true(episode: Episode, options: dict[str, Any]) -> bool:
    env = erl_envs.make(episode.task.env, **options)
    env.reset(options={"task": episode.task})
    reflection = episode.reflection
    return reflection is not None and reflection.rulebook == env.rules_text()


def table(found: Sequence[Skills]) -> str:
    """The skills for a person."""
    head = f"{'':<12}{'told':>8}{'not told':>10}{'random':>8}{'second':>8}{'rulebook':>10}"
    lines = [
        f"{s.env:<12}{s.told:>8.3f}{s.untold:>10.3f}"
        f"{s.random:>8.3f}{s.second:>8.3f}{s.rulebooks:>10.3f}"
        for s in found
    ]
    failed = [line for s in found for line in s.failed()]
    return "\n".join([head, *lines, *(failed or ["every gate passed"])])
