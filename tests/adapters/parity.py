"""What an environment does by itself: every adapter must carry the same, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

import erl_envs
from erl_envs import tasks
from erl_envs.core import Task, TextEnv

EPISODES = 20
ENVS = tuple(erl_envs.list_envs())
PLAYERS = ("oracle", "random")
OPTIONS: dict[str, Any] = {"feedback": "transitions"}


class Played(NamedTuple):
    """One turn: the message that was sent, and what came back.

    Attributes:
        message: The policy's raw text.
        observation: The next one.
        reward: Of the turn.
        terminated: Solved or lost.
        truncated: Out of turns.
        feedback: The attempt's, on its last turn; else None.
    """

    message: str
    observation: str
    reward: float
    terminated: bool
    truncated: bool
    feedback: str | None


class Game(NamedTuple):
    """An attempt as the plain environment plays it."""

    task: Task
    system_prompt: str
    first: str
    turns: list[Played]

    @property
    def messages(self) -> list[str]:
        return [turn.message for turn in self.turns]

    @property
    def conversation(self) -> list[dict[str, str]]:
        """Every message of it, up to the last observation."""
        told = [{"role": "system", "content": self.system_prompt}]
        told.append({"role": "user", "content": self.first})
        for turn in self.turns:
            told.append({"role": "assistant", "content": turn.message})
            told.append({"role": "user", "content": turn.observation})
        return told


def games(env: str, player: str, options: Mapping[str, Any] = OPTIONS) -> Iterator[Game]:
    """`EPISODES` attempts at the first tasks of `test`, by the oracle or at random."""
    plain = erl_envs.make(env, **options)
    for number, task in enumerate(tasks.load(env, "test", **options)[:EPISODES]):
        yield play(plain, task, player, np.random.default_rng(number))


def play(env: TextEnv, task: Task, player: str, rng: np.random.Generator) -> Game:
    first, _ = env.reset(options={"task": task})
    turns: list[Played] = []
    done = False
    while not done:
        plan = env.oracle() if player == "oracle" else None
        message = plan[0] if plan else env.random_message(rng)
        observation, reward, terminated, truncated, info = env.step(message)
        feedback = info.get("feedback")
        turns.append(Played(message, observation, reward, terminated, truncated, feedback))
        done = terminated or truncated
    return Game(task, env.system_prompt, first, turns)
