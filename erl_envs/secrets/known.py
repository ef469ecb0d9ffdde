"""The secrets that this process was given, kept out of what it writes, sends and tells.

They are the values of the environment's key variables, and what the URLs of servers carry. Each is
found by its value alone, so a text that does not hold one is never changed: a transcript is what
was said, and replays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from erl_envs.secrets import likely
from erl_envs.secrets.forms import Form, encoded, plain
from erl_envs.secrets.urls import HIDDEN, Part, parts, redact_urls

_KEYS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE")
_URLS = ("URL", "URI", "PROXY", "DSN")
"""Ends of the names of variables that hold secrets, and of those whose URLs may."""

_PIECE = re.compile(r"(?=[^/?&=#@]*\d)[^/?&=#@]{20,}")
"""Of a URL, what may be a key."""

_LONGEST = 8192
"""Characters of a variable that are looked for."""

_SHORTEST = 4
"""Characters of what is taken out of errors."""

_MOST = 64
"""URLs that are remembered; a framework may give each session one of its own."""

_urls: tuple[str, ...] = ()
_keys: tuple[tuple[str, str], ...] = ()


def learn_url(url: str) -> None:
    """Take what a URL carries for secrets from here on."""
    global _urls  # noqa: PLW0603 - like the environment, they are the process's
    if url not in _urls and any(_of_url(url)):
        _urls = (*_urls[1 - _MOST :], url)


def learn_key(name: str, value: str) -> None:
    """Take a value for the secret of this name from here on, whatever becomes of the variable."""
    global _keys  # noqa: PLW0603
    if (name, value) not in _keys:
        _keys = (*_keys[1 - _MOST :], (name, value))


def redact(text: str) -> str:
    """A text with `[NAME_OF_THE_VARIABLE]` for each secret, however it is escaped or encoded.

    A secret of a URL becomes `[secret]`. What could be an ordinary word stays.
    """
    return _hide(text, _known().sure)


def held(text: str) -> str | None:
    """What would take the place of a secret that a text holds; None if it holds none."""
    return next((form.shown for form in _known().sure if form.hide(text) != text), None)


def redact_error(text: str) -> str:
    """What is told of a failure: `redact`, and more.

    What servers are sent is taken out even where it is an ordinary word, and so are secrets in URLs
    that nobody gave. Not for transcripts, which are what somebody said.
    """
    known = _known()
    return redact_urls(_hide(_hide(text, known.sure), known.short))


def redact_json(value: Any) -> Any:
    """A configuration, as JSON, with `redact_error` of every text."""
    if isinstance(value, str):
        return redact_error(value)
    if isinstance(value, dict):
        return {redact_json(key): redact_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(redact_json, value))
    return value


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Let errors through as they are, but for secrets in what they and their causes say."""
    try:
        yield
    except Exception as error:
        _redact_chain(error)
        raise


def _redact_chain(error: BaseException) -> None:
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if (args := tuple(map(_redact_argument, one.args))) != one.args:
            one.args = args
        if hasattr(one, "__notes__"):
            one.__notes__ = list(map(redact_error, one.__notes__))
        inner = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [e for e in (one.__cause__, one.__context__, *inner) if e is not None]


def _redact_argument(value: Any) -> Any:
    if isinstance(value, str):
        return redact_error(value)
    if isinstance(value, bytes | bytearray | tuple | list | dict):
        shown = repr(value)
        hidden = redact_error(shown)
        return value if hidden == shown else hidden
    return value


class _Known(NamedTuple):
    """Forms of secrets, the longest first, for one may hold another.

    Attributes:
        sure: Of those that cannot be ordinary words.
        short: Of the others that servers are sent.
    """

    sure: tuple[Form, ...]
    short: tuple[Form, ...]


def _hide(text: str, forms: tuple[Form, ...]) -> str:
    for form in forms:
        text = form.hide(text)
    return text


def _known() -> _Known:
    ends = _KEYS + _URLS
    variables = [(name, os.environ[name]) for name in os.environ if name.upper().endswith(ends)]
    return _compiled(tuple(sorted(variables)), _keys, _urls)


@lru_cache(maxsize=8)
def _compiled(
    variables: tuple[tuple[str, str], ...], keys: tuple[tuple[str, str], ...], urls: tuple[str, ...]
) -> _Known:
    sure: dict[str, list[Form]] = {}
    short: dict[str, list[Form]] = {}
    for name, value in (*keys, *(v for v in variables if v[0].upper().endswith(_KEYS))):
        whole, *lines = map(str.strip, (value[:_LONGEST], *value[:_LONGEST].splitlines()))
        if _is_no_word(whole):
            sure.setdefault(whole, [plain(whole, f"[{name}]"), *encoded(whole, f"[{name}]")])
        elif len(whole) >= _SHORTEST and (name, value) in keys:
            short.setdefault(whole, [plain(whole, f"[{name}]")])
        for line in filter(_is_no_word, lines):  # an error may quote one of a private key's
            sure.setdefault(line, [plain(line, f"[{name}]")])
    for url in (*urls, *(value for name, value in variables if name.upper().endswith(_URLS))):
        for value, shown, alone in _of_url(url):
            if not alone:
                sure.setdefault(value, [plain(value, shown)])
            elif _is_no_word(value):
                sure.setdefault(value, [plain(value, shown), *encoded(value, shown)])
            elif len(value) >= _SHORTEST and url in urls:
                short.setdefault(value, [plain(value, shown)])
    return _Known(_in_order(sure), _in_order(short))


def _in_order(found: Mapping[str, list[Form]]) -> tuple[Form, ...]:
    values = sorted(found, key=lambda value: (-len(value), value))
    return tuple(form for value in values for form in found[value])


def _is_no_word(value: str) -> bool:
    """Whether a value cannot be an ordinary word or number: `EMPTY`, `lm-studio`, `12345678`."""
    letters, digits = sum(map(str.isalpha, value)), sum(map(str.isdigit, value))
    others = len(value) - letters - digits
    return letters > 1 and len(value) >= (8 if digits else 12 if others else 16)


def _of_url(url: str) -> Iterator[Part]:
    """What a URL carries; also a key in its path, or in a parameter whose name does not tell."""
    yield from parts(url)
    for piece in _PIECE.findall(url.partition("//")[2].partition("/")[2]):
        if likely.kind_of(piece):
            yield Part(piece, HIDDEN, alone=True)
