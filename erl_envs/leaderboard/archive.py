"""JSON lines in a compressed file, written the same each time and read as from a stranger."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from erl_envs.arguments import one_line
from erl_envs.leaderboard.differences import shown

MAX_PACKED = 20 * 2**20
"""Bytes of a compressed file."""

MAX_UNPACKED = 128 * 2**20
"""Bytes of what is in it."""

MAX_LINE = 4 * 2**20
"""Bytes of one line: an episode of the longest attempts has a few hundred thousand."""

MAX_DEPTH = 12
"""Of nested JSON: an episode's is 5."""

MAX_NUMBER = 40
"""Characters of a number: a float has at most 24."""

MAX_REASON = 380
"""Characters of a reason to refuse."""

MAX_REASONS = 100

_CHUNK = 2**20

_HEAD = b"\x1f\x8b\x08\x00"
"""How a gzip file begins that carries no name, comment or other field."""

_LOOKALIKE = re.compile(r"[^\x00-\x7f…]")
"""What might look like something else."""


class Refused(ValueError):
    """Something that was submitted is not what it must be; a bounded line for each reason."""

    def __init__(self, *reasons: str) -> None:
        """Refuse for these reasons; what they quote of a stranger is made harmless here."""
        lines = [_harmless(reason) for reason in reasons[:MAX_REASONS]]
        if more := len(reasons) - len(lines):
            lines.append(f"and {more} more")
        super().__init__("\n".join(lines))


def _harmless(reason: str) -> str:
    return one_line(_LOOKALIKE.sub(lambda found: ascii(found[0])[1:-1], reason), MAX_REASON)


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
        Refused: They are no UTF-8, or no JSON, name a thing twice, hold a number that nobody needs
            or are nested too deeply; the message says `where`.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_no_number,
        )
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


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:  # which of the two is meant, readers do not agree on
            raise ValueError(f"{shown(key)} is there twice")
        found[key] = value
    return found


def _int(text: str) -> int:
    _check_length(text)
    return int(text)


def _float(text: str) -> float:
    _check_length(text)
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _check_length(number: str) -> None:
    if len(number) > MAX_NUMBER:
        raise ValueError(f"it holds a number of {len(number):,} characters")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


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
    """What is in a gzip file, which is one member and nothing else."""
    size, inflate = 0, zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    with path.open("rb") as file:
        if file.read(len(_HEAD)) != _HEAD:
            raise Refused(f"{path.name} is no gzip file as `submit` writes it")
        file.seek(0)
        while not inflate.eof:
            packed = inflate.unconsumed_tail or file.read(_CHUNK)
            try:
                chunk = inflate.decompress(packed, _CHUNK)
            except zlib.error as error:
                raise Refused(f"{path.name} is no gzip file: {error}") from error
            if not packed and not chunk:
                raise Refused(f"{path.name} breaks off")
            size += len(chunk)
            if size > MAX_UNPACKED:
                raise Refused(f"{path.name} unpacks to more than {MAX_UNPACKED:,} bytes")
            yield chunk
        if inflate.unused_data or file.read(1):
            raise Refused(f"{path.name} goes on after its end")
