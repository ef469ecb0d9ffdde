"""Whether the sampling that an entry declares may have made its messages.

What can be seen is little: that greedy samples of one prompt differ, and that messages are longer
than they may be. A temperature of 0.7 declared as 0.5 leaves no trace, nor do token counts that
somebody lowered.
"""

from __future__ import annotations

import os.path
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from erl_envs.core import Episode, Message, Usage
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.submission import Submission
from erl_envs.leaderboard.transcripts import STAGES, conversations
from erl_envs.policies.base import Sampling

LONGEST_TOKEN = 512
"""Characters that no token has: the longest of the usual vocabularies, runs of spaces or dashes,
have 128."""

AGREED = 100
"""Characters that greedy samples of one prompt agree for, on average, before they part. They part
where rounding, which changes with the batch, decides a near tie. The committed SmolLM2, played
twice by vLLM in bfloat16 on the same random streams, parts once in 2,600 to 25,000 characters; the
least certain servers are said to part once in some hundreds. Sampled at temperature 0.7 it parts
after 1 to 19, nano after 2 to 4."""

FEW = 10
"""Partings that are let pass: an entry's few equal prompts may all be near ties."""


def is_greedy(sampling: Mapping[str, Any]) -> bool:
    """Whether it keeps the likeliest token alone, or as good as that."""
    return bool(
        sampling["temperature"] < 0.01 or sampling["top_k"] == 1 or sampling["top_p"] < 0.01
    )


def check_declared(submission: Submission, episodes: Sequence[Episode]) -> None:
    """Check an entry's messages against the sampling that it declares.

    Raises:
        Refused: It cannot have made them.
    """
    declared: dict[str, Mapping[str, Any] | None] = dict.fromkeys(STAGES, submission.sampling)
    declared["reflection"] = submission.reflection_sampling
    for episode in episodes:
        for stage, text, usage, stop in _messages(episode):
            try:
                _check_length(Sampling(**declared[stage] or {}), text, usage, stop)
            except Refused as error:
                who = f"task {episode.task.id}, sample {episode.sample}"
                raise Refused(f"{who}, {stage.replace('_', ' ')}: {error}") from error
    for stage, sampling in declared.items():
        if sampling is not None and is_greedy(sampling):
            _check_greedy(stage, episodes)


def _messages(episode: Episode) -> list[tuple[str, str, Usage, str | None]]:
    """Stage, text, cost and end of everything that the policy wrote."""
    found: list[tuple[str, str, Usage, str | None]] = []
    for number, attempt in enumerate(episode.attempts, 1):
        written = [m["content"] for m in attempt.messages if m["role"] == "assistant"]
        for text, turn in zip(written, attempt.turns, strict=True):
            found.append((f"attempt_{number}", text, turn.usage, turn.stop))
    if reflection := episode.reflection:
        text = reflection.messages[-1]["content"]
        found.append(("reflection", text, reflection.usage, None))
    return found


def _check_length(sampling: Sampling, text: str, usage: Usage, stop: str | None) -> None:
    most = sampling.max_tokens
    if usage.completion_tokens is not None and usage.completion_tokens > most:
        raise Refused(f"a message of {usage.completion_tokens} tokens, where max_tokens is {most}")
    room = most - (stop == "stop")  # the end of a turn is a token too
    if len(text) > LONGEST_TOKEN * room:
        ended = " and ended by itself" if stop == "stop" else ""
        raise Refused(f"a message of {len(text):,} characters{ended}, where max_tokens is {most}")


def _check_greedy(stage: str, episodes: Sequence[Episode]) -> None:
    """Check that greedy answers to equal prompts are equal, but for near ties."""
    tasks: dict[str, list[Sequence[Message]]] = defaultdict(list)
    for episode in episodes:
        if messages := conversations(episode).get(stage):
            tasks[episode.task.id].append(messages)
    agreed = parted = 0
    for first, *others in tasks.values():
        for other in others:
            same, differs = _common(first, other)
            agreed += same
            parted += differs
    if parted > FEW + agreed / AGREED:
        raise Refused(
            f"sampling is declared greedy, but {parted} answers to the same prompt differ "
            f"({stage.replace('_', ' ')}), after {agreed / parted:.0f} characters on average"
        )


def _common(one: Sequence[Message], other: Sequence[Message]) -> tuple[int, bool]:
    """How many characters were written alike after equal prompts, and whether others followed."""
    agreed = 0
    for mine, yours in zip(one, other, strict=False):
        if mine["role"] == "assistant":
            agreed += len(os.path.commonprefix((mine["content"], yours["content"])))  # noqa: RUF071
        if mine != yours:
            return agreed, mine["role"] == "assistant"
    return agreed, False
