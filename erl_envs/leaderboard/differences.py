"""Where two JSON values differ, in words."""

from __future__ import annotations

import math
import os.path
from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

SHOWN = 60
"""Characters of a value that a message shows."""

LOOSELY = 0.02
"""How far the ends of an interval may lie apart: it is resampled, and numpy's streams may change
with its version."""


class Difference(NamedTuple):
    """A place where what was stated is not what it should be, and both, as text."""

    where: str
    own: str
    stated: str


def differences(
    own: Any, stated: Any, loose: Container[str] = (), where: str = "", within: float = 1e-9
) -> Iterator[Difference]:
    """What differs, from the first place on.

    Args:
        own: As it should be; made by us.
        stated: What anybody may have written.
        loose: Keys of numbers that may differ by up to `LOOSELY`.
        where: Path of both, as words.
        within: How much floats may differ: a sum may be rounded otherwise by another numpy.
    """
    if isinstance(own, Mapping) and isinstance(stated, Mapping):
        lead = f"{where}, " if where else ""
        for key in sorted({*own, *stated}):
            if key not in own:
                yield Difference(f"{lead}{shown(key)}", "nothing", shown(stated[key]))
            elif key not in stated:
                yield Difference(f"{lead}{key}", shown(own[key]), "nothing")
            else:
                apart = LOOSELY if key in loose else within
                yield from differences(own[key], stated[key], loose, f"{lead}{key}", apart)
    elif isinstance(own, list | tuple) and isinstance(stated, list):
        if len(own) != len(stated):
            yield Difference(f"number of {where}", str(len(own)), str(len(stated)))
        else:
            for number, pair in enumerate(zip(own, stated, strict=True), 1):
                part = f"{where.removesuffix('s')} {number}"
                yield from differences(*pair, loose, part, within)
    elif not _same(own, stated, within):
        yield Difference(where, *_parts(own, stated))


def _same(own: Any, stated: Any, within: float) -> bool:
    if isinstance(own, float) and isinstance(stated, float):
        return math.isclose(own, stated, rel_tol=1e-9, abs_tol=within)
    return type(own) is type(stated) and bool(own == stated)


def _parts(own: Any, stated: Any) -> tuple[str, str]:
    """Both as text; of two long texts, from a little before where they part."""
    if isinstance(own, str) and isinstance(stated, str):
        start = max(0, len(os.path.commonprefix((own, stated))) - SHOWN // 4)  # noqa: RUF071 - of texts
        lead = "…" if start else ""
        return lead + shown(own[start:]), lead + shown(stated[start:])
    return shown(own), shown(stated)


def shown(value: Any, most: int = SHOWN) -> str:
    """A value on one line, in ASCII (no two look alike), cut to so many characters."""
    text = ascii(value)
    return text if len(text) <= most else f"{text[:most]}…"
