"""Policies without a model: random, oracle, human and replay."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from erl_envs.core import EnvError, Episode, Message, TextEnv
from erl_envs.policies.base import Completion, Conversation, Policy, PolicyError, Sampling
from erl_envs.records import read_episodes

Key = tuple[str, str, int, str]


def _env(conversation: Conversation) -> TextEnv:
    if conversation.env is None or conversation.key[-1] == "reflection":
        raise PolicyError(
            "a scripted policy plays; it writes no reflection: give --reflector a model"
        )
    return conversation.env


def _ended(text: str) -> Completion:
    return Completion(text, stop_reason="stop")


class Scripted(Policy):
    """A policy that answers one conversation at a time."""

    revision = "1"

    def complete(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion | PolicyError]:
        """Answer each; an `EnvError` or `PolicyError` takes the place of its answer."""
        return [self._try(conversation) for conversation in conversations]

    def _try(self, conversation: Conversation) -> Completion | PolicyError:
        try:
            return self.reply(conversation)
        except PolicyError as error:
            return error
        except EnvError as error:
            return PolicyError(str(error))

    @abstractmethod
    def reply(self, conversation: Conversation) -> Completion:
        """The next message."""


class Random(Scripted):
    """Uniform over the environment's actions."""

    spec = "random"

    def reply(self, conversation: Conversation) -> Completion:
        """A random action."""
        return _ended(_env(conversation).random_message(conversation.rng))


class Oracle(Scripted):
    """Plays a shortest solution, found anew in every state; as a reflector, tells the rules."""

    spec = "oracle"

    def reply(self, conversation: Conversation) -> Completion:
        """The first action of a shortest solution from here, or the rules as a rulebook."""
        if conversation.key[-1] == "reflection" and conversation.env is not None:
            return _ended(f"<prompt>{conversation.env.rules_text()}</prompt>")
        plan = _env(conversation).oracle()
        return _ended(plan[0] if plan else "There is no solution from here.")


class Human(Scripted):
    """A person at the terminal; a bare action word is enough."""

    spec = "human"

    def __init__(self, stdin: TextIO | None = None, stdout: TextIO | None = None) -> None:
        """Args default to the terminal's."""
        self.stdin = stdin or sys.stdin
        self.stdout = stdout or sys.stdout

    def reply(self, conversation: Conversation) -> Completion:
        """What the person types, one line."""
        env = _env(conversation)
        for message in conversation.messages[-2:] if env.turn == 0 else conversation.messages[-1:]:
            print(f"\n{message['content']}", file=self.stdout)
        print(f"[turn {env.turn + 1} of {env.max_turns}] > ", end="", file=self.stdout, flush=True)
        line = self.stdin.readline()
        if not line:
            raise PolicyError("the input ended")
        text = line.strip()
        words = {action.lower(): action for action in env.actions}
        return _ended(env.say(words[text.lower()]) if text.lower() in words else text)


class Replay(Scripted):
    """Says again what a run's policies said."""

    def __init__(self, spec: str, episodes: Sequence[Episode]) -> None:
        """Args: spec: as on the command line; episodes: of the run."""
        self.spec = spec
        self.said: Mapping[Key, Sequence[Completion]] = {
            key: said for episode in episodes for key, said in _said(episode)
        }

    def reply(self, conversation: Conversation) -> Completion:
        """The recorded message of the conversation's turn."""
        said = self.said.get(conversation.key, ())
        turn = sum(message["role"] == "assistant" for message in conversation.messages)
        if turn >= len(said):
            raise PolicyError(f"the run holds no message {turn + 1} for {conversation.key}")
        return said[turn]

    @classmethod
    def of_run(cls, spec: str, run: Path) -> Replay:
        """The policy of a run folder.

        Raises:
            ValueError: There is no readable run.
        """
        return cls(spec, read_episodes(run / "episodes.jsonl"))


def _said(episode: Episode) -> Iterator[tuple[Key, list[Completion]]]:
    """What each stage's policy said; it costs nothing to say it again."""
    for number, attempt in enumerate(episode.attempts, 1):
        ends = [(turn.stop, turn.reasoning) for turn in attempt.turns]
        yield (*episode.key, f"attempt_{number}"), _answers(attempt.messages, ends)
    if episode.reflection:
        ends = [(None, episode.reflection.reasoning)]
        yield (*episode.key, "reflection"), _answers(episode.reflection.messages, ends)


def _answers(
    messages: Sequence[Message], ends: Sequence[tuple[str | None, str | None]]
) -> list[Completion]:
    """The assistant's messages, with why each ended and what was thought."""
    texts = [message["content"] for message in messages if message["role"] == "assistant"]
    known = [*ends, *[(None, None)] * (len(texts) - len(ends))]
    return [
        Completion(text, stop_reason=stop, reasoning=reasoning)
        for text, (stop, reasoning) in zip(texts, known, strict=True)
    ]
