"""What a policy wrote and did in an episode, in a form that edits without a meaning leave alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erl_envs.core import Episode, Message

STAGES = ("attempt_1", "reflection", "attempt_2")

_NO_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Transcript:
    """What is compared of an episode.

    Attributes:
        texts: Stage → what the policy wrote there, message by message, `plain`.
        actions: Stage → what was read from it, turn by turn, `plain`; "" where nothing could be.
        rewards: Of each attempt.
    """

    texts: Mapping[str, tuple[str, ...]]
    actions: Mapping[str, tuple[str, ...]]
    rewards: Sequence[float]


def plain(text: str) -> str:
    """The letters and digits of a text in lower case: no blanks, punctuation or invisible marks."""
    return _NO_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())


def conversations(episode: Episode) -> dict[str, Sequence[Message]]:
    """Stage → its messages, the prompts and observations with them."""
    found = {
        f"attempt_{number}": attempt.messages for number, attempt in enumerate(episode.attempts, 1)
    }
    return found | ({"reflection": episode.reflection.messages} if episode.reflection else {})


def transcript(episode: Episode) -> Transcript:
    """What is compared of an episode."""
    return Transcript(
        {
            stage: tuple(plain(m["content"]) for m in messages if m["role"] == "assistant")
            for stage, messages in conversations(episode).items()
        },
        {
            f"attempt_{number}": tuple(plain(turn.action or "") for turn in attempt.turns)
            for number, attempt in enumerate(episode.attempts, 1)
        },
        [attempt.reward for attempt in episode.attempts],
    )
