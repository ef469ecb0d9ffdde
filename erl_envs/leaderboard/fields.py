"""What a field of `submission.json` may hold, beyond its type: bounds, and an alphabet.

Every text is printable ASCII, so that no two that look alike are two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, get_type_hints

from erl_envs.leaderboard.differences import shown
from erl_envs.leaderboard.replay import MAX_TOKENS
from erl_envs.options import fits
from erl_envs.policies.base import Sampling
from erl_envs.web import read_url

MAX_TEXT = 500
"""Characters of a text."""

MAX_WORDS = 120
"""Characters of what stands in a row of a table."""

ROW = ("model", "revision", "reflector", "license")
"""Fields that say who played: two of them differ in more than their blanks."""

NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
"""What a submission may be called: it is a folder's name."""

MAX_NAME = 60

DATES = ("2020-01-01", "2099-12-31")
"""The first and the last that an entry may carry."""

SEEDS = range(1 << 63)

SAMPLING = {"temperature": 100, "top_k": MAX_TOKENS, "max_tokens": MAX_TOKENS}
"""The most of what has no bound of its own."""

_URL = re.compile(r"https?://[\w.~:/?#\[\]@!$&()*+,;=%-]+", re.ASCII)
_VERSION = re.compile(r"[0-9A-Za-z.+!-]{1,60}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

SHA256 = re.compile(r"[0-9a-f]{64}")


def fault(field: str, value: Any) -> str:
    """What is wrong with a field's value, which has its type; "" if nothing is."""
    return _text(field, value) or _CHECKS.get(field, _none)(value)


def _none(value: Any) -> str:
    return ""


def _text(field: str, value: Any) -> str:
    most = MAX_WORDS if field in ROW else MAX_TEXT
    for text in value.values() if field == "package" else [value]:
        if not isinstance(text, str):
            continue
        if len(text) > most or not text.isascii() or not text.isprintable():
            return f"{field} must be one line of at most {most} printable ASCII characters"
        if field in ROW and field != "license" and not text.strip():
            return f"{field} is empty"
        if field in ROW and text != " ".join(text.split()):
            return f"{field} has blanks at an end, or two in a row"
    return ""


def _name(name: str) -> str:
    sound = len(name) <= MAX_NAME and NAME.fullmatch(name)
    return "" if sound else f"a name is {NAME.pattern}, not {shown(name)}"


def _date(text: str) -> str:
    try:
        sound = date.fromisoformat(text).isoformat() == text
    except ValueError:
        sound = False
    within = sound and DATES[0] <= text <= DATES[1]
    return "" if within else f"date {shown(text)} is none from {DATES[0]} to {DATES[1]}"


def _url(text: str) -> str:
    if not text:
        return ""
    parts = read_url(text) if _URL.fullmatch(text) else None
    if parts is None:
        return f"url {shown(text)} is none"
    return "url carries a name or a password" if parts.userinfo else ""


def _sampling(field: str) -> Callable[[Mapping[str, Any] | None], str]:
    def check(value: Mapping[str, Any] | None) -> str:
        return "" if value is None or _is_sampling(value) else f"{field} is none"

    return check


def _is_sampling(value: Mapping[str, Any]) -> bool:
    if not _has(value, get_type_hints(Sampling)):
        return False
    try:
        Sampling(**value)
    except ValueError:
        return False
    return all(value[name] <= most for name, most in SAMPLING.items())


def _has(value: Mapping[str, Any], hints: Mapping[str, Any]) -> bool:
    return set(value) == set(hints) and all(fits(value[name], hints[name]) for name in hints)


def _seed(seed: int) -> str:
    return "" if seed in SEEDS else f"seed {shown(seed)} is none from 0 to 2^63 - 1"


def _package(value: Mapping[str, Any]) -> str:
    sound = (
        _has(value, {"version": str, "commit": str | None})
        and _VERSION.fullmatch(value["version"])
        and (value["commit"] is None or _COMMIT.fullmatch(value["commit"]))
    )
    return "" if sound else "package must have a version and a commit"


_CHECKS: Mapping[str, Callable[[Any], str]] = {
    "name": _name,
    "date": _date,
    "url": _url,
    "sampling": _sampling("sampling"),
    "reflection_sampling": _sampling("reflection_sampling"),
    "seed": _seed,
    "package": _package,
}
