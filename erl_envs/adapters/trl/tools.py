"""Tool calls: classes for TRL's `environment_factory`, one for each environment.

None is a `gym.Env`: TRL makes every public method a tool, inherited ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from erl_envs import registry, tasks
from erl_envs.adapters.rows import Row, open_row, row
from erl_envs.core import EnvError, Message, Task, TextEnv, canonical_json
from erl_envs.hotpotqa.tools import LAST_TURN


class _Tools:
    """What the environments share; TRL makes every public method but two a tool.

    A reward function finds the instances in its `environments` argument.

    Attributes:
        feedback: Of the attempt that ended; "" before.
        outcome: How it ended; "" before.
        terminated: Whether it was solved or lost.
        truncated: Whether its turns ran out.
    """

    name: ClassVar[str]
    reminder: ClassVar[str]
    feedback = outcome = ""
    terminated = truncated = False
    _env: TextEnv | None = None
    _reward: float | None = 0.0

    def reset(
        self,
        task: str | None = None,
        options: str | None = None,
        env: str | None = None,
        seed: int | None = None,
        prompt: Sequence[Message] = (),
        **columns: Any,
    ) -> str | None:
        """Start an attempt at a row's task, or at the fresh one of its `seed`.

        Args:
            task: The task, JSON.
            options: The environment's options, JSON; None for its own.
            env: The environment's id, to check.
            seed: Of the environment's random stream.
            prompt: What the model is told.
            **columns: The dataset's others.

        Returns:
            The first observation, which TRL joins to the prompt's end, so after a blank line if
            there is a prompt; None where the prompt ends with it already.

        Raises:
            ValueError: The row names no task, or one of another environment; one line.
        """
        self._env, self._reward = None, 0.0
        self.feedback = self.outcome = ""
        self.terminated = self.truncated = False
        if env not in (None, self.name):
            raise ValueError(f"this is {self.name}; the row is for {env}")
        if task is None and seed is None:
            raise ValueError("a row needs a task or a seed")
        drawn = canonical_json(Task(self.name, {}).to_json())
        own = "{}" if options is None else options
        playing, given = open_row(self.name, own, drawn if task is None else task)
        start = None if task is None else {"task": given}
        observation, _ = playing.reset(seed=seed, options=start)
        self._env = playing
        asked = prompt[-1]["content"] if prompt else ""
        if asked.endswith(observation):
            return None
        return f"\n\n{observation}" if asked else observation

    def get_reward(self) -> float | None:
        """Sum of the steps' rewards; None, which TRL leaves out, if the environment failed."""
        return self._reward

    def _playing(self) -> TextEnv:
        if self._env is None or self.outcome:
            raise ValueError("the attempt has ended: no tool can be called any more")
        return self._env

    def _step(self, message: str) -> str:
        try:
            observation, reward, *ends, info = self._playing().step(message)
        except EnvError:
            self._env = self._reward = None
            raise
        self._reward = (self._reward or 0.0) + reward
        self.terminated, self.truncated = ends
        self.feedback, self.outcome = info.get("feedback", ""), info.get("outcome", "")
        return observation


class _Game(_Tools):
    reminder = "You have {max_turns} turns. Each is one call of the tool `move`."

    def move(self, direction: Literal["Up", "Down", "Left", "Right"]) -> str:
        """Make one move; it costs a turn.

        Args:
            direction: Where to.

        Returns:
            The board after it.
        """
        return self._step(self._playing().say(direction))


class FrozenLake(_Game):
    """FrozenLake, played with `move`."""

    name = "frozenlake"


class Sokoban(_Game):
    """Sokoban, played with `move`."""

    name = "sokoban"


class HotpotQA(_Tools):
    """HotpotQA, played with `local_search` and `answer`."""

    name = "hotpotqa"
    reminder = (
        "You have {max_turns} turns. Each is one call of a tool: `local_search` searches the "
        "passages, `answer` gives your final answer and ends the attempt."
    )

    def local_search(self, query: str, top_k: int = 0) -> str:
        """Search the passages; it costs a turn.

        Args:
            query: What to look for.
            top_k: How many passages to show; 0 for the usual number.

        Returns:
            The passages.
        """
        arguments = {"query": query, "top_k": top_k}
        found = self._step(self._playing().tool_message("local_search", arguments))
        return found.replace(LAST_TURN, "This is the last turn: call `answer` now.")

    def answer(self, text: str) -> str:
        """Give the final answer; it ends the attempt.

        Args:
            text: The answer, in as few words as possible.

        Returns:
            That it was taken.
        """
        return self._step(self._playing().say(f"answer: {text}"))


def tool_rows(
    factory: type[FrozenLake] | type[Sokoban] | type[HotpotQA], split: str, **options: Any
) -> list[Row]:
    """The tasks of a split as rows whose prompts ask for tool calls in the place of text.

    Raises:
        ValueError: There is no such split or option; the message lists the valid ones.
    """
    env = registry.make(factory.name, **options)
    found = []
    for task in tasks.load(factory.name, split, **options):
        asked = row(env, task, options)
        told = asked["prompt"][0]
        told["content"] = told["content"].removesuffix(env.format_reminder)
        told["content"] += factory.reminder.format(max_turns=env.max_turns)
        found.append(asked)
    return found
