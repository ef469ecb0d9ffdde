"""Where two JSON values differ, in words."""

from __future__ import annotations

import math
import os.path
from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

SHOWN = 60
"""Characters of a value that a message shows."""


class Difference(NamedTuple):
    """A place where what was stated is not what it should be, and both, as text."""

    where: str
    own: str
    stated: str


def differences(
    own: Any, stated: Any, skip: Container[str] = (), where: str = ""
) -> Iterator[Difference]:
    """What differs, from the first place on.

    Args:
        own: As it should be; made by us.
        stated: What anybody may have written.
        skip: Keys that may differ.
        where: Path of both, as words.
    """
    if isinstance(own, Mapping) and isinstance(stated, Mapping):
        lead = f"{where}, " if where else ""
        for key in sorted({*own, *stated} - {key for key in own if key in skip}):
            if key not in own:
                yield Difference(f"{lead}{shown(key)}", "nothing", shown(stated[key]))
            elif key not in stated:
                yield Difference(f"{lead}{key}", shown(own[key]), "nothing")
            else:
                yield from differences(own[key], stated[key], skip, f"{lead}{key}")
    elif isinstance(own, list | tuple) and isinstance(stated, list):
        if len(own) != len(stated):
            yield Difference(f"number of {where}", str(len(own)), str(len(stated)))
        else:
            for number, pair in enumerate(zip(own, stated, strict=True), 1):
                yield from differences(*pair, skip, f"{where.removesuffix('s')} {number}")
    elif not _same(own, stated):
        yield Difference(where, *_parts(own, stated))


def _same(own: Any, stated: Any) -> bool:
    if isinstance(own, float) and isinstance(stated, float):
        # a sum of floats may be rounded otherwise by another version of numpy
        return math.isclose(own, stated, rel_tol=1e-9, abs_tol=1e-9)
    return type(own) is type(stated) and bool(own == stated)


def _parts(own: Any, stated: Any) -> tuple[str, str]:
    """Both as text; of two long texts, from a little before where they part."""
    if isinstance(own, str) and isinstance(stated, str):
        start = max(0, len(os.path.commonprefix((own, stated))) - SHOWN // 4)  # noqa: RUF071 - of texts
        lead = "…" if start else ""
        return lead + shown(own[start:]), lead + shown(stated[start:])
    return shown(own), shown(stated)


def shown(value: Any) -> str:
    """A value on one line, cut to `SHOWN` characters."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
