"""What the refusals of OpenAI-compatible servers mean: each server has words of its own for them.

The patterns are facts about servers, not about their versions: `tests/test_refusals.py` names whose
words each reads. They are looked for in the whole answer, because gateways quote the server behind
them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TELLING = frozenset({400, 413, 422, 500})
"""Statuses that may come with such a refusal: many servers call them their own fault."""

SAMPLING = ("temperature", "top_p", "top_k", "seed")
"""Parameters that a request can go without."""

LENGTH = "max_tokens"
"""The parameter that newer models call `max_completion_tokens`."""


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


_FULL = _any(
    r"context[_ ]length[_ ]exceeded",
    r"context[_ ]window[_ ]exceeded",
    r"max_prompt_tokens_exceeded",
    r"exceed_context_size",
    r"maximum (?:context|prompt|model|input) length",
    r"model's context length",
    r"exceeds? (?:the |model'?s? )?(?:available |maximum |max )*context",
    r"context window exceeds",
    r"larger than the max context size",
    r"greater than the context length",
    r"exceeded model token limit",
    r"exceeds the maximum number of tokens",
    r"input tokens exceed",
    r"too many (?:input )?tokens",
    r"(?:prompt|input|inputs) (?:is )?too long",
    r"prompt exceeds max",
    r"reduce the length of (?:the |your )?(?:input|prompt|messages)",
    r"`inputs` tokens \+ `max_new_tokens` must be",
    r"max_tokens must be at least 1, got -",
)

_BUSY = _any(r"rate.?limit", r"per (?:minute|day|second)", r"quota", r"please wait")
"""Words of limits that pass, which also count tokens."""

_LENGTHS = _any(
    r"context length(?: is| of| \()? ?(?:only )?\(?(\d{1,9})",
    r"context limit: \d{1,9} \+ \d{1,9} > (\d{1,9})",
    r"`max_new_tokens` must be <= (\d{1,9})",
    r"(\d{1,9}) maximum context length",
)

_FILTERED = _any(
    r"content_filter", r"content_policy_violation", r"invalid_prompt", r"data_?inspection_?failed"
)

_NAME = rf"\b({'|'.join((*SAMPLING, LENGTH))})\b"
_UNSUPPORTED = _any(
    r"(?:unsupported|unrecognized|unknown|unexpected|extra_forbidden|not permitted)"
    rf"\b[\w\s:,()\[\]'\"`\\]{{0,40}}?{_NAME}",
    rf"\b(?:not|n't) support(?:ed)?\b[\w\s:{{'\"`-]{{0,30}}?{_NAME}",
    rf"{_NAME}\W{{0,3}}[\w\s]{{0,20}}?(?:is|are|was|does) "
    r"(?:not |un)(?:support|permit|allow|recogni|a valid|available)",
    rf"{_NAME}\W{{0,3}} is deprecated",
)
_EXCLUSIVE = re.compile(r"\btemperature\b.{0,20}\btop_p\b.{0,20}\b(?:cannot|can't) both", re.I)


def full(status: int, text: str) -> bool:
    """Whether a refusal says that the conversation does not fit into the model's context.

    Args:
        status: HTTP's.
        text: What came with it.
    """
    return status in _TELLING and bool(_FULL.search(text)) and not _BUSY.search(text)


def context_length(text: str) -> int | None:
    """Tokens of the model's context, by a refusal of the kind of `full`; None if it doesn't say."""
    found = _LENGTHS.search(text)
    return int(next(filter(None, found.groups()))) if found else None


def filtered(status: int, text: str) -> bool:
    """Whether a refusal comes from a filter of what a prompt says."""
    return 400 <= status < 500 and bool(_FILTERED.search(text))


def unsupported(status: int, text: str) -> Sequence[str]:
    """The parameters that a server or its model does not take, of `SAMPLING` and `LENGTH`."""
    if status not in _TELLING:
        return ()
    if _EXCLUSIVE.search(text):
        return ("top_p",)
    found = {name for match in _UNSUPPORTED.finditer(text) for name in match.groups() if name}
    return tuple(name for name in (*SAMPLING, LENGTH) if name in found)
