"""Where URLs carry secrets: before the host, and in parameters whose names say so."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus, urlsplit

HIDDEN = "[secret]"
"""Stands where a secret without a name stood."""

_NAME = (
    r"(?:[\w.~-]*(?:key|token|secret|password|passwd|passphrase|credentials?|signature)"
    r"|(?:[\w.~]*[_.-])?(?:pass|pwd|auth|authorization|sig|code|jwt|session|sid))"
)
_USER = re.compile(r"(?<=:)//[^/?#\s\"'<>\\]+@")
_PARAMETER = re.compile(rf"([?&;#]{_NAME}=)[^\s&;#\"'<>\\]+", re.IGNORECASE)


class Part(NamedTuple):
    """A secret of a URL.

    Attributes:
        value: As it may stand in a text.
        shown: What takes its place there.
        alone: Whether it is the secret by itself; with what stands around it in a URL, the
            shortest can be told from ordinary words.
    """

    value: str
    shown: str
    alone: bool


def redact_urls(text: str) -> str:
    """A text whose URLs have no user info, and no parameters that are secrets by their names."""
    if "//" not in text:
        return text
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(f"//{HIDDEN}@", text))


def parts(url: str) -> Iterator[Part]:
    """The secrets of a URL, none of what is no URL."""
    try:
        split = urlsplit(url)
    except ValueError:
        return
    info = split.netloc.rpartition("@")[0]
    if info:
        user, _, password = info.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}"
        basic = base64.b64encode(pair.encode()).decode()
        yield Part(f"//{info}@", f"//{HIDDEN}@", alone=False)
        yield Part(f"Basic {basic}", f"Basic {HIDDEN}", alone=False)
        yield Part(pair, HIDDEN, alone=True)
        yield from _alone(password or user)
    for found in _PARAMETER.finditer(f"?{split.query}"):
        named, value = found[1][1:], found[0].removeprefix(found[1])
        for mark in "?&;":
            yield Part(f"{mark}{named}{value}", f"{mark}{named}{HIDDEN}", alone=False)
        yield from _alone(value)


def _alone(value: str) -> Iterator[Part]:
    """A part as it stands in the URL, and decoded."""
    for text in dict.fromkeys((value, unquote(value), unquote_plus(value))):
        yield Part(text, HIDDEN, alone=True)
