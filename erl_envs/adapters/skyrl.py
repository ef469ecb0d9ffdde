"""The environments behind SkyRL-gym: `skyrl_gym.make("erl_frozenlake", extras=row)`.

Tested with skyrl-gym 0.4.0. Importing this module registers `erl_frozenlake`, `erl_sokoban` and
`erl_hotpotqa`; SkyRL's trainer wants that inside its Ray entry task. `rows` gives the dataset.

SkyRL knows `done` alone: how an attempt ended (`terminated`, `truncated`, `outcome`) and its
`feedback` stand in the last step's `metadata`, and in `get_metrics()`, which SkyRL's generator
keeps with each trajectory. It shows neither to the policy.
"""
# ruff: noqa: E402 - a missing framework is told of before it is imported

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erl_envs import registry
from erl_envs.adapters import rows as shared
from erl_envs.adapters.versions import require
from erl_envs.core import Message

require("skyrl-gym", "0.4")

import gymnasium
import skyrl_gym
from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
from skyrl_gym.error import Error


class SkyRLEnv(BaseTextEnv):
    """One attempt at a row's task."""

    def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
        """The environment of a row.

        Args:
            env_config: SkyRL passes one; a row says everything, so it is not read.
            extras: The row: `env`, `options` and `task` as `rows` writes them, and perhaps a
                `seed` of the environment's own randomness. SkyRL adds its `max_turns`, which is
                not read either: the environment tells the policy its own.

        Raises:
            Error: The row names no environment, option or task that there is; one line.
        """
        super().__init__()
        row = extras or {}
        try:
            self._env, self._task = shared.open_row(row["env"], row["options"], row["task"])
        except KeyError as error:
            raise Error(
                f"the row lacks {error}; erl_envs.adapters.skyrl.rows makes rows"
            ) from error
        except (TypeError, ValueError) as error:
            raise Error(f"bad row: {error}") from error
        self._seed = row.get("seed")
        self._metrics: dict[str, Any] = {}

    def init(self, prompt: Sequence[Message]) -> tuple[list[Message], dict[str, Any]]:
        """Start the attempt.

        Args:
            prompt: The row's. Its system message may be another than the environment's, its last
                message is the task's first observation; empty takes the environment's own.

        Returns:
            The messages that the policy is told, and `task_id`.

        Raises:
            Error: The task or the seed is bad, the prompt is another task's, or the environment
                failed; one line.
        """
        try:
            observation, info = self._env.reset(seed=self._seed, options={"task": self._task})
        except (gymnasium.error.Error, TypeError, ValueError, LookupError) as error:
            raise Error(f"bad task or seed: {error}") from error
        except RuntimeError as error:
            raise Error(str(error)) from error
        if prompt and prompt[-1]["content"] != observation:
            raise Error("the prompt does not end with the first observation of its row's task")
        self._metrics = {"reward": 0.0, "turns": 0, "solved": False, "truncated": False}
        return list(prompt) or shared.opening(self._env, observation), info

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Play a policy's raw message.

        Returns:
            `observations` (one user message, with the last step too), `reward`, `done`, and
            `metadata`: `terminated`, `truncated`, and with the last step `feedback`, `outcome`.

        Raises:
            Error: The message is no text, no attempt is under way, or the environment failed.
        """
        if not isinstance(action, str):
            raise Error(f"a message is text, not {type(action).__name__}")
        try:
            observation, reward, terminated, truncated, info = self._env.step(action)
        except RuntimeError as error:
            raise Error(str(error)) from error
        ended = shared.ending(info)
        self._metrics["reward"] += reward
        self._metrics["turns"] += 1
        self._metrics["truncated"] = truncated
        self._metrics["solved"] = self._metrics["reward"] >= 1
        self._metrics |= ended
        return BaseTextEnvStepOutput(
            observations=[Message(role="user", content=observation)],
            reward=reward,
            done=terminated or truncated,
            metadata={"terminated": terminated, "truncated": truncated, **ended},
        )

    def get_metrics(self) -> dict[str, Any]:
        """The attempt so far: `reward`, `turns`, `solved`, `truncated`, which SkyRL averages.

        Once it has ended also the texts `feedback` and `outcome`, which its averages leave out.
        """
        return dict(self._metrics)


def rows(env: str, split: str, **options: Any) -> list[dict[str, Any]]:
    """The tasks of a split as rows of SkyRL's dataset.

    Beside the fields of `erl_envs.adapters.rows.Row`: `env_class`, and the `reward_spec` that SkyRL
    asks for, which holds no answer.

    Raises:
        ValueError: There is no such environment, split or option; the message lists the valid ones.
    """
    fixed = {"env_class": f"erl_{env}", "reward_spec": {"method": "rule", "ground_truth": ""}}
    return [{**row, **fixed} for row in shared.rows(env, split, **options)]


for _name in registry.list_envs():
    skyrl_gym.register(id=f"erl_{_name}", entry_point="erl_envs.adapters.skyrl:SkyRLEnv")
