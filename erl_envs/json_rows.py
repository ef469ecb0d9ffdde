"""Rows of JSON, an array's or one a line, each with its place, so that a bad one can be named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_JSON = json.JSONDecoder()
_BEGINNING = re.compile(r'\s*(?:\[\s*["\[{\]]|\{\s*["}])')


def is_json(text: str) -> bool:
    """Whether a text begins like rows of JSON; `[Level 1]` does not."""
    return bool(_BEGINNING.match(text))


def json_rows(text: str) -> Iterator[tuple[str, Any]]:
    """The rows of a text in JSON: an array's, one a line, or one object.

    Yields:
        A row's place, and its value or the ValueError that says why it has none.

    Raises:
        ValueError: The text as a whole is no JSON.
    """
    start, stop = len(text) - len(text.lstrip()), len(text.rstrip())
    end = text.find("\n", start, stop)  # -1: it is one line
    in_lines = end >= 0 and _is_whole(text[start:end])
    if text[start] == "[" and not in_lines:
        yield from _elements(text, start)
    elif text[start] == "{" and not in_lines and _is_whole(text):
        yield "line 1", _value(text)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", _value(line)


def brief(error: Exception) -> str:
    """An error's message in one line that has an end."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = " ".join(str(error).split()).encode(errors="backslashreplace").decode()
    return text if len(text) <= 300 else f"{text[:299]}…"


def _elements(text: str, start: int) -> Iterator[tuple[str, Any]]:
    """The elements of an array, one after the other, so that each has its line."""
    at, line, counted, number = start + 1, 1, 0, 0
    while True:
        at = _past_blanks(text, at)
        if text[at : at + 1] == "]":
            break
        line, counted = line + text.count("\n", counted, at), at
        number += 1
        try:
            value, end = _JSON.raw_decode(text, at)
            after = _past_blanks(text, end)
            if text[after : after + 1] not in ("]", ","):
                raise json.JSONDecodeError("a comma is missing", text, after)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {error.lineno} is no JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {line} is no JSON: {brief(error)}") from error
        yield f"row {number} (line {line})", _checked(text[at:end], value)
        at = after + (text[after] == ",")
    if _past_blanks(text, at + 1) < len(text):
        line += text.count("\n", counted, at)
        raise ValueError(f"line {line} is no JSON: more stands behind the array")


def _past_blanks(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\n":
        at += 1
    return at


def _is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _value(text: str) -> Any:
    try:
        return _checked(text, json.loads(text))
    except json.JSONDecodeError as error:
        return ValueError(f"it is no JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits
        return ValueError(brief(error))


def _checked(text: str, value: Any) -> Any:
    """The value, or a ValueError where its text holds a byte that is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return ValueError("it is no UTF-8")
    return value
