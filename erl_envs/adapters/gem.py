"""The environments behind GEM: `gem.make("erl:frozenlake", split="train")`.

Tested with gem-llm 0.1.0. Importing this module registers `erl:frozenlake`, `erl:sokoban` and
`erl:hotpotqa`. GEM tells a policy one text, built by its wrappers from observations and
`info["prefix"]`; the prefix is the system prompt, and the observations are the environment's own.

An ended attempt's `feedback` and `outcome` stand in the last step's `info`. GEM's vector
environments reset at once and keep only the new attempt's `info`, so what ended is also in
`info["ended"]` of the reset that follows; wrappers show it to no policy.
"""
# ruff: noqa: E402 - a missing framework is told of before it is imported

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from erl_envs import registry, tasks
from erl_envs.adapters.rows import ending
from erl_envs.adapters.versions import require

require("gem-llm", "0.1")

import gem
from gem.core import Env


class GemEnv(Env):
    """An environment that plays fresh tasks, or those of a split."""

    def __init__(
        self, env: str, split: str | None = None, seed: int | None = None, **options: Any
    ) -> None:
        """The environment; `reset` starts an attempt.

        Args:
            env: Its id; given by the registration.
            split: Task set to draw from; None makes fresh tasks.
            seed: Of the first `reset` that is given none; `gem.make_vec` passes one to each.
            **options: The environment's.

        Raises:
            ValueError: There is no such environment, split or option; the message lists the valid
                ones.
        """
        self._given = {"env": env, "split": split, "seed": seed, **options}
        self._env = registry.make(env, **options)
        self._tasks = tasks.load(env, split, **options) if split is not None else None
        self._seed = seed
        self._draws, self._actions = _streams(seed)
        self._ended: dict[str, Any] = {}

    def reset(self, seed: int | None = None, idx: int | None = None) -> tuple[str, dict[str, Any]]:
        """Start an attempt.

        Args:
            seed: The same one gives the same task; None goes on from the last.
            idx: Place in the split of the task to play; None draws one.

        Returns:
            The first observation, and `info`: `prefix` (the system prompt and a blank line),
            `task_id`, and after an attempt that ended `ended` (`observation`, `feedback`,
            `outcome`).

        Raises:
            ValueError: The split, if any, has no such task.
        """
        # GEM's own reset would seed the global generators; this one has generators of its own
        seed, self._seed = self._seed if seed is None else seed, None
        if seed is not None:
            self._draws, self._actions = _streams(seed)
        task = None
        if self._tasks is not None:
            number = int(self._draws.integers(len(self._tasks))) if idx is None else idx
            if not (isinstance(number, int) and 0 <= number < len(self._tasks)):
                raise ValueError(f"the split has tasks 0 to {len(self._tasks) - 1}, not {idx!r}")
            task = self._tasks[number]
        elif idx is not None:
            raise ValueError("idx picks a task of a split; this environment was made without one")
        observation, info = self._env.reset(seed=seed, options={"task": task} if task else None)
        if self._ended:
            info["ended"] = self._ended
        self._ended = {}
        return observation, self._prefix() | info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play a policy's raw message.

        Returns:
            Observation, reward, terminated, truncated, and `info`: `prefix`, and with the last step
            `feedback` and `outcome`.

        Raises:
            ValueError: The message is no text.
            RuntimeError: No attempt is under way, or the environment failed.
        """
        if not isinstance(action, str):
            raise ValueError(f"a message is text, not {type(action).__name__}")
        observation, reward, terminated, truncated, info = self._env.step(action)
        told = ending(info)
        if told:
            self._ended = {"observation": observation, **told}
        return observation, reward, terminated, truncated, self._prefix() | told

    def sample_random_action(self) -> str:
        """A random message; what comes next does not depend on whether it was asked for.

        GEM's wrappers do not pass it on: ask `env.unwrapped`.
        """
        return self._env.random_message(self._actions)

    def spawn(self, same_state: bool = False, **kwargs: Any) -> GemEnv:
        """Another environment like this one.

        Args:
            same_state: Whether it is in this one's state; a fresh one wants `reset`.
            **kwargs: What differs from this one's arguments; of a fresh one only.

        Raises:
            ValueError: An argument is bad, or there are some beside `same_state`.
        """
        if not same_state:
            return GemEnv(**{**self._given, **kwargs})
        if kwargs:
            raise ValueError(f"an environment in the same state has the same {sorted(kwargs)[0]}")
        # the tasks of a split are many, and never change: both have the same
        return copy.deepcopy(self, {id(self._tasks): self._tasks})

    def _prefix(self) -> dict[str, Any]:
        return {"prefix": f"{self._env.system_prompt}\n\n"}


def _streams(seed: int | None) -> tuple[np.random.Generator, np.random.Generator]:
    """For drawing tasks and random actions; neither is the stream of the environment itself."""
    if seed is None:
        return np.random.default_rng(), np.random.default_rng()
    return np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])


for _name in registry.list_envs():
    gem.register(f"erl:{_name}", "erl_envs.adapters.gem:GemEnv", env=_name)
