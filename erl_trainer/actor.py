"""Who attempts and who reflects: `erl_envs.rollout`'s plays, in batches, with their time taken."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from erl_envs import rollout
from erl_envs.core import Attempt, EnvError, Reflection, TextEnv
from erl_envs.policies.base import Policy, PolicyError, Sampling
from erl_envs.reflection import retry_prompt
from erl_envs.rollout import EnvPool, Job, Play, Player, Role, failure
from erl_trainer.config import Config
from erl_trainer.processes import failing_together, share, unshare
from erl_trainer.types import Stage

T = TypeVar("T")


def players(cfg: Config, actor: Policy, reflector: Policy) -> dict[Role, Player]:
    """Who attempts and who reflects in training, sampling as the configuration says."""
    attempts = Sampling(cfg.temperature, cfg.top_p, 0, cfg.max_tokens)
    reflections = Sampling(cfg.reflect_temperature, cfg.reflect_top_p, 0, cfg.reflect_max_tokens)
    return {"actor": Player(actor, attempts), "reflector": Player(reflector, reflections)}


class Actor:
    """Plays jobs and reflects on attempts; counts what that costs.

    Attributes:
        seconds: Of each stage since the last `take_costs`.
        tokens: Sampled in each stage since then.
        failures: Why reflections failed since then.
    """

    def __init__(self, pool: EnvPool, players: Mapping[Role, Player], concurrency: int) -> None:
        """Args: pool: where to play; players: actor and reflector; concurrency: batch size."""
        self._pool = pool
        self._players = players
        self._concurrency = concurrency
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.tokens: defaultdict[str, int] = defaultdict(int)
        self.failures: list[str] = []

    def attempt(
        self, jobs: Sequence[Job], stage: str, prompts: Sequence[str] | None = None
    ) -> list[Attempt]:
        """Y ~ π(·|x), or y ~ π(·|x, Δ) where each job has a prompt of its own.

        Args:
            jobs: What to play.
            stage: `attempt_1` or `attempt_2`.
            prompts: A system prompt for each job; None takes the environment's.

        Returns:
            An attempt for each job, in order.
        """

        def play(env: TextEnv, i: int) -> Play[Attempt]:
            return rollout.attempt(env, jobs[i], stage, prompts[i] if prompts else None)

        attempts = self._play(stage, jobs, play)
        self.tokens[stage] += sum(a.usage.completion_tokens or 0 for a in attempts)
        return attempts

    def reflect(
        self, jobs: Sequence[Job], attempts: Sequence[Attempt], memories: Sequence[str | None]
    ) -> list[Reflection | None]:
        """Δ ~ π(·|x, y1, f1, r1, m).

        Args:
            jobs: What was attempted.
            attempts: How.
            memories: A rulebook that helped before, for each; None for none.

        Returns:
            A reflection for each, in order; None where the reflector failed.
        """

        def play(env: TextEnv, i: int) -> Play[Reflection | EnvError | PolicyError]:
            try:
                env.reset(options={"task": jobs[i].task})
            except EnvError as error:
                return error
            return (yield from rollout.reflect(env, jobs[i], attempts[i], memories[i]))

        written = self._play(Stage.REFLECTION, jobs, play)
        found = [self._unless_failed(r) for r in written]
        # a reflector behind a server may not count
        self.tokens[Stage.REFLECTION] += sum(r.usage.completion_tokens or 0 for r in found if r)
        return found

    def show(self, jobs: Sequence[Job], attempts: Sequence[Attempt]) -> list[Reflection | None]:
        """In the place of reflections, the first attempts themselves (PAPER: no reflection)."""
        shown: list[Reflection | None] = []
        for job, attempt in zip(jobs, attempts, strict=True):
            env = self._pool.lend(job.task.env)
            try:
                env.reset(options={"task": job.task})
                shown.append(Reflection([], None, retry_prompt(env, attempt)))
            except EnvError as error:
                shown.append(self._unless_failed(error))
            self._pool.give_back(env)
        return shown

    def take_costs(self) -> tuple[dict[str, float], dict[str, int], list[str]]:
        """Seconds and sampled tokens of each stage, and failures, since the last call."""
        costs = dict(self.seconds), dict(self.tokens), list(self.failures)
        self.seconds.clear()
        self.tokens.clear()
        self.failures.clear()
        return costs

    def _unless_failed(self, written: Reflection | EnvError | PolicyError) -> Reflection | None:
        if isinstance(written, Reflection):
            return written
        self.failures.append(failure(written))
        return None

    def _play(
        self, stage: str, jobs: Sequence[Job], play: Callable[[TextEnv, int], Play[T]]
    ) -> list[T]:
        """Play all, in batches; results in the jobs' order."""

        def numbered(i: int, job: Job) -> Play[tuple[int, T]]:
            env = self._pool.lend(job.task.env)
            result = yield from play(env, i)
            self._pool.give_back(env)
            return i, result

        began = time.perf_counter()
        plays = (numbered(i, job) for i, job in enumerate(jobs))
        results = dict(rollout.drive(plays, self._players, self._concurrency))
        self.seconds[stage] += time.perf_counter() - began
        return [results[i] for i in range(len(jobs))]


class Team:
    """The actor of each process, together one: each plays its share, and all get all of it.

    Where one process's policy does not answer, `PolicyError` is raised on all.
    """

    def __init__(self, actor: Actor) -> None:
        """Args: actor: this process's."""
        self._actor = actor

    def attempt(
        self, jobs: Sequence[Job], stage: str, prompts: Sequence[str] | None = None
    ) -> list[Attempt]:
        """See `Actor.attempt`; the jobs are the same on all processes."""
        told = None if prompts is None else share(prompts)
        with failing_together(PolicyError):
            mine = self._actor.attempt(share(jobs), stage, told)
        return unshare(mine)

    def reflect(
        self, jobs: Sequence[Job], attempts: Sequence[Attempt], memories: Sequence[str | None]
    ) -> list[Reflection | None]:
        """See `Actor.reflect`."""
        with failing_together(PolicyError):
            mine = self._actor.reflect(share(jobs), share(attempts), share(memories))
        return unshare(mine)

    def show(self, jobs: Sequence[Job], attempts: Sequence[Attempt]) -> list[Reflection | None]:
        """See `Actor.show`."""
        return unshare(self._actor.show(share(jobs), share(attempts)))
