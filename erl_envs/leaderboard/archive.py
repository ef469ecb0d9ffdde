"""JSON lines in a compressed file, written the same each time and read as from a stranger."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

MAX_PACKED = 20 * 2**20
"""Bytes of a compressed file."""

MAX_UNPACKED = 128 * 2**20
"""Bytes of what is in it."""

MAX_LINE = 4 * 2**20
"""Bytes of one line: an episode of the longest attempts has a few hundred thousand."""

MAX_DEPTH = 12
"""Of nested JSON: an episode's is 5."""

_CHUNK = 2**20


class Refused(ValueError):
    """Something that was submitted is not what it says; one line that tells what."""


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """Write a value a line.

    Raises:
        ValueError: The file would be larger than `MAX_PACKED`.
    """
    lines = (json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n" for value in values)
    packed = gzip.compress("".join(lines).encode("ascii"), mtime=0)
    if len(packed) > MAX_PACKED:
        raise ValueError(f"{len(packed):,} bytes of transcripts; at most {MAX_PACKED:,} are taken")
    path.write_bytes(packed)


def read_lines(path: Path) -> Iterator[Any]:
    """The values of a file that anybody may have written.

    Raises:
        Refused: It is too large, broken, or no JSON; the message names the line.
    """
    if path.stat().st_size > MAX_PACKED:
        raise Refused(f"{path.name} has more than {MAX_PACKED:,} bytes")
    for number, line in enumerate(_lines(path), 1):
        yield read_json(line, f"{path.name} line {number}")


def read_json(content: bytes, where: str) -> Any:
    """A JSON value of bytes that anybody may have written.

    Raises:
        Refused: They are no UTF-8, or no JSON, or nested too deeply; the message says `where`.
    """
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise Refused(f"{where} is not UTF-8") from error
    except RecursionError as error:
        raise Refused(f"{where} is nested too deeply") from error
    except ValueError as error:
        raise Refused(f"{where} is no JSON: {error}") from error
    if _depth(value) > MAX_DEPTH:
        raise Refused(f"{where} is nested too deeply")
    return value


def _depth(value: Any) -> int:
    """How deeply lists and objects are nested, `MAX_DEPTH` + 1 if more."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        depth, level = depth + 1, below
    return depth


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _lines(path: Path) -> Iterator[bytes]:
    rest = b""
    for chunk in _chunks(path):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > MAX_LINE:
            raise Refused(f"{path.name} has a line of more than {MAX_LINE:,} bytes")
    if rest:
        raise Refused(f"{path.name} ends within a line")


def _chunks(path: Path) -> Iterator[bytes]:
    size = 0
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                if size > MAX_UNPACKED:
                    raise Refused(f"{path.name} unpacks to more than {MAX_UNPACKED:,} bytes")
                yield chunk
    except EOFError as error:
        raise Refused(f"{path.name} breaks off") from error
    except (OSError, zlib.error) as error:
        raise Refused(f"{path.name} is no gzip file: {error}") from error
