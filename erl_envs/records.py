"""The data of evaluation and training: tasks, turns, attempts, episodes; JSON both ways."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

Level = Literal["score", "outcome", "transitions", "solution"]
LEVELS: tuple[Level, ...] = get_args(Level)


class Message(TypedDict):
    """One chat message; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII; every hash is taken over it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: object) -> str:
    """SHA-256 of a JSON-able value, the same in every process and Python version."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """One problem to attempt: an environment's id and the parameters that rebuild it exactly.

    Attributes:
        env: Environment id, as `erl_envs.make` takes it.
        params: JSON parameters, as `reset(options={"task": params})` takes them.
        split: The task set it comes from, or None for a free-standing task.
        id: Content hash of `env` and `params`: the same task has the same id everywhere.
    """

    env: str
    params: Mapping[str, Any]
    split: str | None = None
    id: str = ""

    def __post_init__(self) -> None:
        """Fill in the content id, and refuse a given one that does not match."""
        if not isinstance(self.params, Mapping):
            raise ValueError(f"a task's params must be a mapping, not {self.params!r:.100}")
        own = digest([self.env, self.params])[:12]
        if self.id not in ("", own):
            raise ValueError(
                f"task id {self.id!r:.100} does not match its parameters (they give {own!r})"
            )
        object.__setattr__(self, "id", own)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal task."""
        return {"env": self.env, "id": self.id, "params": dict(self.params), "split": self.split}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        """The task of a JSON object.

        Raises:
            ValueError: A field is missing, unknown, or the id does not match the parameters.
        """
        fields = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - fields):
            raise ValueError(f"unknown task fields {unknown!s:.100}; valid: {sorted(fields)}")
        if missing := sorted({"env", "params"} - set(data)):
            raise ValueError(f"missing task fields {missing}")
        return cls(**data)


@dataclass(frozen=True)
class Feedback:
    """What an attempt's end tells, beside its observations and reward.

    Attributes:
        text: True sentences about the attempt, as much as `level` allows.
        level: Rung of the ladder `score` < `outcome` < `transitions` < `solution`.
        outcome: How the attempt ended, in one word of the environment's `outcomes`.
    """

    text: str
    level: Level
    outcome: str


@dataclass(frozen=True)
class Usage:
    """Tokens of one completion, and the seconds until it was there.

    Attributes:
        prompt_tokens: Tokens read; None where a server does not say.
        completion_tokens: Tokens written; None likewise.
        seconds: Until the answer was there.
    """

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """The sum, field by field; unknown where a part of it is."""
        return Usage(
            add_known(self.prompt_tokens, other.prompt_tokens),
            add_known(self.completion_tokens, other.completion_tokens),
            self.seconds + other.seconds,
        )


def add_known(one: int | None, two: int | None) -> int | None:
    """The sum of two counts, None where one of them is not known."""
    return None if one is None or two is None else one + two


@dataclass(frozen=True)
class Turn:
    """What one message did.

    Attributes:
        action: The action that was read from the message, None if none could be.
        reward: This step's reward.
        note: What the step did, as `feedback="transitions"` tells it.
        usage: What the message cost.
        stop: Why the policy stopped writing, as `Completion.stop_reason`.
        details: JSON facts for a reader of the transcript, None if there are none.
        reasoning: What the policy thought, where its server tells that apart from the message. No
            environment reads it. Left out of JSON where there is none.
    """

    action: str | None
    reward: float
    note: str
    usage: Usage = Usage()
    stop: str | None = None
    details: Mapping[str, Any] | None = None
    reasoning: str | None = None


@dataclass(frozen=True)
class Tokens:
    """A stretch of a conversation as the policy read and sampled it; never encoded again.

    A conversation is one stretch, unless its prompt was told anew: a template that drops the
    thoughts of earlier turns changes what the policy had read.

    Attributes:
        ids: Every token id in order, prompts and completions.
        sampled: For each id, whether the policy sampled it (else it was told).
        logprobs: For each id, its log-probability when sampled (nats, at its temperature), else 0.
    """

    ids: Sequence[int]
    sampled: Sequence[bool]
    logprobs: Sequence[float]


@dataclass(frozen=True)
class Attempt:
    """One try at a task: ERL's `y`, with `(f, r) = Env(x, y)`.

    Attributes:
        task: What was attempted.
        seed: Seed given to `reset`; together with the task it makes the attempt replayable.
        messages: System prompt, first observation, then messages and observations in turn; the
            last observation is the last message.
        turns: One record for each assistant message.
        reward: Sum of the steps' rewards.
        feedback: Text that the attempt's end told, at the environment's feedback level.
        outcome: How it ended.
        valid: False where the environment or the policy's server failed; `error` says how. An
            invalid attempt has no reward worth reading and is left out of every average.
        error: Why it is invalid.
        tokens: What a local policy read and sampled, stretch by stretch; nothing for the others.
            Not written to JSON.
    """

    task: Task
    seed: int
    messages: Sequence[Message]
    turns: Sequence[Turn]
    reward: float
    feedback: str
    outcome: str
    valid: bool = True
    error: str | None = None
    tokens: Sequence[Tokens] = ()

    @property
    def usage(self) -> Usage:
        """Tokens and seconds of all turns."""
        return sum((turn.usage for turn in self.turns), Usage())

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the task is left to the episode that holds the attempt."""
        return {
            "seed": self.seed,
            "messages": list(self.messages),
            "turns": [_turn_json(turn) for turn in self.turns],
            "reward": self.reward,
            "feedback": self.feedback,
            "outcome": self.outcome,
            "valid": self.valid,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, task: Task, data: Mapping[str, Any]) -> Attempt:
        """The attempt of a JSON object that `to_json` wrote."""
        turns = [Turn(**{**turn, "usage": Usage(**turn["usage"])}) for turn in data["turns"]]
        return cls(**{**data, "task": task, "turns": turns})


def _turn_json(turn: Turn) -> dict[str, Any]:
    # dataclasses.asdict copies deeply; this runs once for every turn of a run
    return _with_reasoning({**turn.__dict__, "usage": turn.usage.__dict__}, turn.reasoning)


def _with_reasoning(data: dict[str, Any], reasoning: str | None) -> dict[str, Any]:
    """A JSON object that has `reasoning` only where there is any, as most policies' have not."""
    if reasoning is None:
        data.pop("reasoning", None)
        return data
    return {**data, "reasoning": reasoning}


@dataclass(frozen=True)
class Reflection:
    """What a policy made of a failed attempt: ERL's Δ.

    Attributes:
        messages: What it was asked, and its answer as the last message.
        rulebook: The text in its `<prompt>` tags, None if it wrote none.
        prompt: System prompt that attempt 2 was given.
        usage: What the answer cost.
        tokens: As an attempt's. Not written to JSON.
        reasoning: What the policy thought; as `Turn.reasoning`.
    """

    messages: Sequence[Message]
    rulebook: str | None
    prompt: str
    usage: Usage = Usage()
    tokens: Sequence[Tokens] = ()
    reasoning: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal reflection, but for `tokens`."""
        data = {
            "messages": list(self.messages),
            "rulebook": self.rulebook,
            "prompt": self.prompt,
            "usage": self.usage.__dict__,
        }
        return _with_reasoning(data, self.reasoning)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reflection:
        """The reflection of a JSON object."""
        return cls(**{**data, "usage": Usage(**data["usage"])})


@dataclass(frozen=True)
class Episode:
    """A task's attempts: one, or two with a reflection between them.

    Attributes:
        task: What was attempted.
        sample: Number of this episode among the task's episodes, from 0.
        attempts: Attempt 1, then attempt 2 if there was one.
        reflection: What stands between them.
        error: Why the reflection failed, where it did.
    """

    task: Task
    sample: int
    attempts: Sequence[Attempt]
    reflection: Reflection | None = None
    error: str | None = None

    @property
    def valid(self) -> bool:
        """Whether nothing but the policy decided its reward."""
        return self.error is None and all(attempt.valid for attempt in self.attempts)

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells this episode from the others of a run."""
        return (self.task.env, self.task.id, self.sample)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal episode, but for tokens."""
        return {
            "task": self.task.to_json(),
            "sample": self.sample,
            "valid": self.valid,
            "error": self.error,
            "attempts": [attempt.to_json() for attempt in self.attempts],
            "reflection": self.reflection.to_json() if self.reflection else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Episode:
        """The episode of a JSON object.

        Raises:
            KeyError, TypeError, ValueError: The object is no episode.
        """
        task = Task.from_json(data["task"])
        return cls(
            task=task,
            sample=data["sample"],
            attempts=[Attempt.from_json(task, attempt) for attempt in data["attempts"]],
            reflection=Reflection.from_json(data["reflection"]) if data["reflection"] else None,
            error=data["error"],
        )


class EpisodeFile:
    """The episodes of an `episodes.jsonl`, read anew, one by one, each time they are asked for."""

    def __init__(self, path: Path, unfinished: bool = False) -> None:
        """Args: unfinished: whether a last line that a kill cut off is passed over."""
        self._path, self._unfinished = path, unfinished

    def __iter__(self) -> Iterator[Episode]:
        """The episodes, in the order of the file.

        Raises:
            ValueError: The file cannot be read, a line is no episode, or an episode stands in it
                twice; the message names the line.
        """
        lines: dict[tuple[str, str, int], int] = {}
        try:
            with self._path.open(encoding="utf-8", newline="\n") as file:
                for number, line in enumerate(file, 1):
                    if self._unfinished and not line.endswith("\n"):
                        return
                    episode = self._read(number, line)
                    if (first := lines.setdefault(episode.key, number)) != number:
                        raise ValueError(
                            f"{self._path} line {number} holds the episode of line {first} again: "
                            "two processes wrote it"
                        )
                    yield episode
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {self._path}: {error}") from error

    def _read(self, number: int, line: str) -> Episode:
        try:
            episode = Episode.from_json(json.loads(line))
            hash(episode.key)  # what has none is no episode
            return episode
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{self._path} line {number} is no episode: {error!r}") from error


def read_episodes(path: Path) -> list[Episode]:
    """All episodes of an `episodes.jsonl`.

    Raises:
        ValueError: See `EpisodeFile`.
    """
    return list(EpisodeFile(path))
