"""Plays a recorded episode again: its messages through the loop that every run is played by.

Nothing of a transcript is believed but the texts that a policy wrote and what they cost. What
follows from them (prompts, observations, rewards, feedback, the rulebook, the second attempt's
prompt) is computed anew, and must be what was recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from erl_envs.core import Episode, TextEnv, Usage
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.differences import differences, shown
from erl_envs.policies.base import MAX_MESSAGE, Completion
from erl_envs.rollout import Job, episode

MAX_TOKENS = 10**7
"""Tokens that a message is said to have cost."""

_STOP = re.compile(r"[A-Za-z0-9_.-]{1,40}")
"""Why a policy stopped writing, in its server's word."""

_STAGES = {"attempt_1": "attempt 1", "reflection": "the reflection", "attempt_2": "attempt 2"}
"""In order, and as they are told."""


class Said(NamedTuple):
    """A message that a policy wrote."""

    stage: str
    completion: Completion


def replay(env: TextEnv, job: Job, attempts: int, recorded: Mapping[str, Any]) -> Episode:
    """The episode that the recorded messages make.

    Args:
        env: Where to play.
        job: What was played.
        attempts: 1, or 2 with a reflection between them.
        recorded: The episode as JSON.

    Raises:
        Refused: It lacks messages, has more than were played, or says otherwise.
    """
    played = play_again(env, job, attempts, recorded)
    for where, own, stated in differences(played.to_json(), recorded):
        raise Refused(f"{where}: the submission has {stated}, replay gives {own}")
    return played


def play_again(env: TextEnv, job: Job, attempts: int, recorded: Mapping[str, Any]) -> Episode:
    """Play the recorded messages, whatever else the record says.

    Raises:
        Refused: It lacks messages, or has more than were played.
    """
    said = spoken(recorded)
    play = episode(env, job, attempts)
    ask = next(play)
    try:
        while True:
            stage = ask.conversation.key[-1]
            message = next(said, None)
            if message is None or _order(message.stage) > _order(stage):
                raise Refused(f"{_STAGES[stage]} lacks a message")
            if message.stage != stage:
                raise Refused(f"{_STAGES[message.stage]} goes on after its end")
            ask = play.send(message.completion)
    except StopIteration as end:
        played: Episode = end.value
    if message := next(said, None):
        raise Refused(f"{_STAGES[message.stage]} goes on after its end")
    if not played.valid:
        raise Refused(f"cannot be replayed: {played.error or played.attempts[-1].error}")
    return played


def _order(stage: str) -> int:
    return list(_STAGES).index(stage)


def spoken(recorded: Mapping[str, Any]) -> Iterator[Said]:
    """What policies wrote in a recorded episode, in order, with what it cost.

    Raises:
        Refused: Something of it is not of the kind it must be.
    """
    try:
        for number, attempt in enumerate(recorded["attempts"][:2], 1):
            if number == 2 and recorded["reflection"] is not None:
                reflection = recorded["reflection"]
                text = reflection["messages"][-1]["content"]
                yield Said("reflection", _completion(text, reflection))
            texts = [m["content"] for m in attempt["messages"] if m["role"] == "assistant"]
            for text, turn in zip(texts, attempt["turns"], strict=True):
                yield Said(f"attempt_{number}", _completion(text, turn))
    except Refused:
        raise
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise Refused(f"is no episode: {shown(error)}") from error


def _completion(text: Any, record: Mapping[str, Any]) -> Completion:
    """A message, with what a turn or a reflection says of it."""
    usage, stop, reasoning = record["usage"], record.get("stop"), record.get("reasoning")
    counts = usage["prompt_tokens"], usage["completion_tokens"]
    if not isinstance(text, str):
        raise Refused(f"is no episode: {shown(text)} is no message")
    if stop is not None and not (isinstance(stop, str) and _STOP.fullmatch(stop)):
        raise Refused(f"is no episode: nobody stops for {shown(stop)}")
    if not isinstance(reasoning, str | None):
        raise Refused(f"is no episode: {shown(reasoning)} is no thought")
    if (longest := max(len(text), len(reasoning or ""))) > MAX_MESSAGE:
        raise Refused(f"has a message of {longest:,} characters; {MAX_MESSAGE:,} at most are taken")
    for count in counts:  # None where the server did not say
        if count is not None and not (type(count) is int and 0 <= count <= MAX_TOKENS):
            raise Refused(f"cannot have used {shown(counts)} tokens")
    # seconds are a machine's, not an episode's: `submit` leaves them out
    return Completion(text, (), (), stop, Usage(*counts, 0.0), reasoning)
