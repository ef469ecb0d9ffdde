"""The environment contract: text in, text out, with feedback beside the reward.

`TextEnv` is Gymnasium's API over strings. A subclass says what its world does (`begin`, `observe`,
`act`, `solve`); the base class counts turns, reads messages, writes notices and feedback, and fills
`info`, so that every environment means the same by a turn, an unreadable message and an end.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np

from erl_envs import options as opt
from erl_envs import parsing, prompting, task_files
from erl_envs.options import Options
from erl_envs.records import (
    LEVELS,
    Attempt,
    Episode,
    Feedback,
    Level,
    Message,
    Reflection,
    Task,
    Tokens,
    Turn,
    Usage,
    canonical_json,
    digest,
)
from erl_envs.secrets import redact_error
from erl_envs.spaces import MAX_ACTION, MAX_OBSERVATION, UnicodeText
from erl_envs.thoughts import strip_thoughts

__all__ = [
    "LEVELS",
    "Attempt",
    "EnvError",
    "Episode",
    "Feedback",
    "Level",
    "Message",
    "Options",
    "Reference",
    "Reflection",
    "Step",
    "Task",
    "TextEnv",
    "Tokens",
    "Turn",
    "Usage",
    "canonical_json",
    "digest",
]

OUT_OF_TURNS = "out_of_turns"

MAX_TURNS = 1_000
"""Turns that a task may ask for: whoever plays a stranger's pays for them. The option `max_turns`
is the player's own, and has no bound."""


class EnvError(RuntimeError):
    """The environment itself failed (a retriever is down, a solver reached its bound).

    `erl_envs.rollout` marks the attempt invalid with this reason; it is never a reward of 0.
    """

    def __init__(self, reason: str) -> None:
        """A failure and its reason, in which no secret is told."""
        super().__init__(redact_error(reason))


def turns_of(params: Mapping[str, Any]) -> int | None:
    """The turns that a task has of its own, if any.

    Raises:
        ValueError: They are no whole number from 1 to `MAX_TURNS`.
    """
    own: int | None = params.get("max_turns")
    if own is not None and not (type(own) is int and 1 <= own <= MAX_TURNS):
        raise ValueError(
            f"task field max_turns must be a whole number from 1 to {MAX_TURNS}: {own!r:.100}"
        )
    return own


@dataclass(frozen=True)
class Reference:
    """What is known of a task without playing it.

    Attributes:
        difficulty: Turns of a shortest solution; None if there is none within the turns.
        random: Exact expected reward of the uniform-random policy; None if nobody computed it.
        ceiling: Expected reward of the best policy that knows the rules; None likewise.
    """

    difficulty: int | None
    random: float | None
    ceiling: float | None


class Step(NamedTuple):
    """What an action did to the world.

    Attributes:
        note: A true sentence that names things; the `transitions` level tells it.
        changed: Whether anything changed; if not, the next observation says so.
        reward: Reward of this step.
        outcome: A key of the environment's `outcomes` if the attempt ended here, else "".
        details: JSON facts for the transcript's reader; no policy sees them.
    """

    note: str
    changed: bool = True
    reward: float = 0.0
    outcome: str = ""
    details: Mapping[str, Any] | None = None


class TextEnv(gym.Env[str, str]):
    """A text environment with one feedback and reward interface.

    A subclass sets the class attributes, and implements `sample_task`, `begin`, `observe` and
    `act`; `rules_text`, `solve` and `reference` where it knows them.

    Attributes:
        name: Environment id.
        actions: The action words, in the order they are told; a message carries one of them.
        outcomes: How an attempt can end, and the sentence that tells it at the `outcome` level;
            `{turn}` and `{max_turns}` are filled in. Has `out_of_turns`.
        default_max_turns: Turns of an attempt where neither option nor task says.
        tools: OpenAI function schemas of its actions, for policies that speak tool calls.
        prompts: Name stem of its prompt files in `erl_envs/prompts`.
        max_file: Most bytes that are read of a file of tasks.
        Options: Its options dataclass.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"]}  # noqa: RUF012 - Gymnasium's name
    name: ClassVar[str]
    actions: ClassVar[tuple[str, ...]] = ()
    outcomes: ClassVar[Mapping[str, str]] = {
        "solved": "The objective was reached on turn {turn} of {max_turns}.",
        OUT_OF_TURNS: "All {max_turns} turns were used and the objective was not reached.",
    }
    default_max_turns: ClassVar[int] = 8
    prompts: ClassVar[str] = "grid"
    tools: ClassVar[Sequence[Mapping[str, Any]]] = ()
    max_file: ClassVar[int] = task_files.LIMIT
    Options: ClassVar[type[Options]] = Options

    def __init__(self, /, render_mode: str | None = None, **options: Any) -> None:
        """An environment; `reset` starts an attempt.

        Args:
            render_mode: None or `ansi`.
            **options: Fields of the class's `Options`.

        Raises:
            ValueError: An option or a value is not valid; the message lists the valid ones.
        """
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"bad value {render_mode!r} for render_mode; valid: None, {modes}")
        self.render_mode = render_mode
        self.options = opt.build(type(self).Options, self.name, options)
        self.observation_space = UnicodeText(MAX_OBSERVATION)
        self.action_space = UnicodeText(MAX_ACTION)
        self.task: Task | None = None
        self.turn = 0
        self.max_turns = self.options.max_turns or self.default_max_turns
        self._outcome = ""
        self._reward = 0.0
        self._notes: list[str] = []
        self._feedback: Feedback | None = None
        self._tells_steps = self.options.turn_feedback

    # What a subclass says of its world

    @abstractmethod
    def sample_task(self, rng: np.random.Generator) -> Mapping[str, Any]:
        """Parameters of a fresh procedural task, drawn from `rng` alone."""

    @abstractmethod
    def begin(self, params: Mapping[str, Any]) -> None:
        """Put the world into a task's first state.

        Raises:
            ValueError: The parameters are not a task's; the message names the offending part.
        """

    @abstractmethod
    def observe(self) -> str:
        """The world as text."""

    @abstractmethod
    def act(self, action: str) -> Step:
        """Apply an action that `parse` returned."""

    def parse(self, text: str) -> tuple[str | None, str]:
        """The action a message means and "", or None and what is wrong with the message.

        Args:
            text: What the message says after its thoughts.
        """
        return parsing.fenced_action(text, self.actions)

    def rules_text(self) -> str:
        """The true rules in words, for `rules="shown"`."""
        return ""

    def solve(self) -> list[str] | None:
        """A shortest solution from the current state as actions; None if there is none.

        Raises:
            EnvError: The search reached its bound.
        """
        return None

    def say(self, action: str) -> str:
        """A message that `parse` reads as this action."""
        return f"```{action}```"

    def random_message(self, rng: np.random.Generator) -> str:
        """What the uniform-random policy writes now."""
        return self.say(self.actions[int(rng.integers(len(self.actions)))])

    def reference(self) -> Reference:
        """What is known of the task in its first state, just after `reset`."""
        plan = self.solve()
        solvable = plan is not None and len(plan) <= self.max_turns
        return Reference(len(plan) if plan and solvable else None, None, float(solvable))

    def end_of_turns(self) -> str:
        """The outcome of an attempt whose turns are used up."""
        return OUT_OF_TURNS

    def tool_message(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The message that means the same as a call of one of `tools`.

        Raises:
            ValueError: There is no such tool, or the arguments do not fit it.
        """
        raise ValueError(f"{self.name} has no tool {name!r}")

    def corpus_hash(self, tasks: Sequence[Task]) -> str | None:
        """Content hash of what the tasks search and do not hold themselves; None for nothing."""
        return None

    def more_facts(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """What `python -m erl_envs.tasks describe` tells of a task set beside the usual."""
        return {}

    @classmethod
    def splits(
        cls, options: opt.Options
    ) -> Mapping[str, Callable[[str], Iterable[Mapping[str, Any]]]]:
        """Its task sets: name → a function that gives the tasks' parameters, always the same.

        The function takes a salt: "" for the public set, else a secret that makes another of the
        same distribution. One that has no other raises ValueError for it.
        """
        return {}

    @classmethod
    def read_tasks(cls, text: str, options: opt.Options) -> Iterator[task_files.Entry]:
        """The entries of a task file (`--split file:PATH`): tasks, and what is none and why.

        This reads JSON, an array or a value a line: tasks as `python -m erl_envs.tasks export`
        writes them, or their parameters alone. Override it for the formats that people have.

        Args:
            text: The file's.
            options: Under which the tasks will be played.

        Raises:
            ValueError: The text as a whole cannot be read.
        """
        return task_files.entries_of(text, cls.row_reader(options))

    @classmethod
    def row_reader(cls, options: opt.Options) -> Callable[[Any], Mapping[str, Any]]:
        """What makes a task's parameters of a row of JSON, or raises ValueError."""
        env = cls(**opt.to_json(options))

        def read(row: Any) -> Mapping[str, Any]:
            params = task_files.params_of(cls.name, row)
            with contextlib.suppress(EnvError):  # its failure says nothing of the row
                env.reset(options={"task": params})
            return params

        return read

    def plain_params(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """A task's parameters as JSON, where they may come in another form."""
        return params

    def out_of_reach(self) -> bool:
        """Whether surely nothing solves the task within its turns, as far as is known at once."""
        return False

    # What every environment does the same way

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an attempt at a fresh procedural task, or at `options["task"]`.

        Args:
            seed: Seeds `self.np_random`.
            options: `{"task": Task or its params}`.

        Returns:
            The first observation, and `info` with `task_id`; with `solvable`, False, where the
            task surely cannot be solved within its turns.

        Raises:
            ValueError: An unknown reset option, another environment's task, or bad parameters. The
                attempt that was under way is as it was.
        """
        before = dict(vars(self))
        try:
            return self._reset(seed, options)
        except (ValueError, EnvError):
            vars(self).clear()
            vars(self).update(before)
            raise

    def _reset(
        self, seed: int | None, options: dict[str, Any] | None
    ) -> tuple[str, dict[str, Any]]:
        if seed is not None and (type(seed) is not int or seed < 0):
            raise ValueError(f"seed must be a whole number from 0, not {seed!r:.100}")
        super().reset(seed=seed)
        if unknown := sorted(set(options or {}) - {"task"}):
            raise ValueError(f"unknown reset option {unknown[0]!r}; valid: 'task'")
        given = (options or {}).get("task")
        if isinstance(given, Task):
            if given.env != self.name:
                raise ValueError(f"this is {self.name}; the task is for {given.env!s:.100}")
            params = given.params
        elif given is None:
            params = self.sample_task(self.np_random)
        elif isinstance(given, Mapping):
            params = self.plain_params(given)
        else:
            raise ValueError(f"a task is a Task or a mapping of parameters, not {given!r:.100}")
        own_turns = turns_of(params)
        self.begin(params)
        self.task = given if isinstance(given, Task) else Task(self.name, params)
        self.turn = 0
        self.max_turns = self.options.max_turns or own_turns or self.default_max_turns
        self._outcome = ""
        self._reward = 0.0
        self._notes = []
        self._feedback = None
        info: dict[str, Any] = {"task_id": self.task.id}
        if self.out_of_reach():
            info["solvable"] = False
        return self.observe(), info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Apply a policy's raw message. It costs a turn, readable or not, and never raises for it.

        Args:
            action: The message, unedited.

        Returns:
            Observation, reward, terminated (solved or lost), truncated (out of turns), and `info`:
            `action` (what was read, None if nothing could be), `changed`, `note`, `details` where
            there are any; on the last step `feedback` and `outcome` too.

        Raises:
            RuntimeError: There is no attempt to go on with; call `reset`.
            EnvError: The environment failed.
        """
        if self.task is None or self._outcome:
            raise RuntimeError("no attempt is under way; call reset() first")
        said = strip_thoughts(action)
        read, problem = self.parse(said)
        if read is None and action.strip() and not said.strip():
            problem = "it says nothing after its thoughts"
        if read is None:
            note = f"The message could not be read: {problem}. Nothing changed."
            changed, reward, outcome, details = False, 0.0, "", None
            notice = note
        else:
            note, changed, reward, outcome, details = self.act(read)
            notice = "" if changed else f"{read} changed nothing."
        self.turn = turn = self.turn + 1
        self._reward += reward
        terminated = outcome != ""
        truncated = not terminated and turn >= self.max_turns
        info: dict[str, Any] = {"action": read, "changed": changed, "note": note}
        if details is not None:
            info["details"] = details
        self._notes.append(note)
        if terminated or truncated:
            self._outcome = outcome or self.end_of_turns()
            self._feedback = self._tell()
            info["feedback"] = self._feedback.text
            info["outcome"] = self._outcome
        if self._tells_steps:
            notice = note
        observation = self.observe()
        if notice:
            observation = f"{notice}\n{observation}"
        return observation, reward, terminated, truncated, info

    def feedback(self) -> Feedback:
        """What the attempt's end tells at `options.feedback`, each level adding to the one before.

        Raises:
            RuntimeError: The attempt has not ended.
        """
        if self._feedback is None:
            raise RuntimeError("the attempt has not ended; feedback comes with its last step")
        return self._feedback

    def _tell(self) -> Feedback:
        rung = LEVELS.index(self.options.feedback)
        lines = [f"Reward: {self._reward:g} of 1."]
        if rung >= 1:
            lines.append(self.tell_outcome(self._outcome))
        if rung >= 2:
            lines += self.tell_transitions(self._notes)
        if rung >= 3:
            lines.append(self.tell_solution())
        return Feedback("\n".join(lines), self.options.feedback, self._outcome)

    def tell_outcome(self, outcome: str) -> str:
        """How the attempt ended, in a true sentence that names no symbol."""
        return self.outcomes[outcome].format(turn=self.turn, max_turns=self.max_turns)

    def tell_transitions(self, notes: Sequence[str]) -> list[str]:
        """What each turn did, a line each."""
        return [f"Turn {number}: {note}" for number, note in enumerate(notes, 1)]

    def tell_solution(self) -> str:
        """A shortest solution from the task's first state."""
        assert self.task is not None
        twin = type(self)(**opt.to_json(self.options))
        twin.reset(options={"task": self.task})
        plan = twin.solve()
        if plan is None:
            return "The task has no solution."
        return f"A shortest solution takes {len(plan)} turns: {', '.join(plan)}."

    def oracle(self) -> list[str] | None:
        """A shortest solution from the current state as raw messages, or None if there is none.

        Raises:
            EnvError: The search reached its bound.
        """
        plan = self.solve()
        return None if plan is None else [self.say(action) for action in plan]

    @property
    def system_prompt(self) -> str:
        """What a policy is told before the first observation; ends with the format reminder."""
        return prompting.render(
            f"{self.prompts}_{self.options.prompt_style}",
            rules=self.rules_text() if self.options.rules == "shown" else "",
            reminder=self.format_reminder,
        )

    @property
    def format_reminder(self) -> str:
        """The actions, the answer's form and the turns: what every system prompt must end with."""
        return prompting.render(
            f"{self.prompts}_format", actions=self.actions, max_turns=self.max_turns
        )

    def render(self) -> str | None:
        """The world as text for `render_mode="ansi"`, else None."""
        return self.observe() if self.render_mode == "ansi" else None
