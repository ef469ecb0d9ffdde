"""Collections of levels as people write them: `.xsb`, `.sok`, `.txt`, many levels a file.

Lines of board characters with a wall in them are a level; titles, comments and solutions stand
around it. Floors may be `-` or `_`, players and boxes letters, rows ragged; `3#2(-.)|4#` is
run-length encoding, with `|` between rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from erl_envs.grid import MAX_SIDE, own_turns
from erl_envs.json_rows import is_json, json_rows
from erl_envs.sokoban.room import parse_layout
from erl_envs.sokoban.solver import QUICK_WORK, count_moves
from erl_envs.task_files import Entry, entry_of

UNSOLVED_TURNS = 200
"""Turns of a level whose shortest solution is not known; the option `max_turns` says otherwise."""

FILE_WORK = 2_000_000_000
"""What the solver does for all levels of a file together: some minutes, however many they are."""

_ROW = re.compile(r"[-_ #@+pP$*bB.0-9()|]+")
_EMPTY_ROW = re.compile(r"[-_ @+$*.]+")
_PLAIN = str.maketrans("-_pPbB", "  @+$*")
_MOST = 2 * MAX_SIDE * MAX_SIDE


def entries(text: str, read: Callable[[Any], Mapping[str, Any]]) -> Iterator[Entry]:
    """The levels of a file, each with turns enough, and what is no level and why.

    Args:
        text: The file's.
        read: Makes a task's parameters of a JSON object that is a task, or raises ValueError.

    Raises:
        ValueError: The text as a whole is no JSON, though it begins like it.
    """
    found: list[tuple[str, Any]]
    if is_json(text):
        found = list(json_rows(text))
    else:
        found = [(place, {"layout": rows}) for place, rows in _levels(text)]
    levels = sum(_is_level(row) for _, row in found)
    work = min(QUICK_WORK, FILE_WORK // max(1, levels))
    for place, row in found:
        if _is_level(row):
            yield _with_turns(entry_of(place, row["layout"], _task_of), work)
        else:
            yield entry_of(place, row, read)


def _is_level(row: Any) -> bool:
    return isinstance(row, Mapping) and set(row) == {"layout"}


def _task_of(rows: Any) -> dict[str, Any]:
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise ValueError(f"a level is a list of strings, not {rows!r:.60}")
    layout = tidy(rows)
    parse_layout(layout)
    return {"layout": layout}


def _with_turns(entry: Entry, work: int) -> Entry:
    """The level with turns enough; none where it has no solution."""
    if (params := entry.params) is None:
        return entry
    found = count_moves(*parse_layout(params["layout"]), work)
    if not found.known:
        turns = {"max_turns": UNSOLVED_TURNS}
        problem = f"the solver's bound came before a solution; it has {UNSOLVED_TURNS} turns"
        return Entry(entry.place, {**params, **turns}, problem)
    if found.moves is None:
        return Entry(entry.place, problem="the level has no solution")
    return entry_of(entry.place, found.moves, lambda moves: {**params, **own_turns(moves)})


def _levels(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each level's place and its rows, as they are written."""
    rows: list[str] = []
    start = 0
    for number, line in enumerate([*text.split("\n"), ""], 1):
        row = line.rstrip()
        if "#" in row and _ROW.fullmatch(row):
            start = start if rows else number
            rows.append(row)
        elif rows and row and _EMPTY_ROW.fullmatch(row):  # `-`: a row without a wall
            rows.append(row)
        elif rows:
            if any(set(row) - set("#-_ 0123456789()|") for row in rows):  # else it underlines
                yield f"line {start}", rows
            rows = []


def tidy(rows: list[str]) -> list[str]:
    """A level's rows in the standard characters, without blank rows around it or a margin.

    Raises:
        ValueError: It is too large, or its run-length encoding is broken.
    """
    if len(rows) > MAX_SIDE:
        raise ValueError(f"the level has {len(rows)} rows; {MAX_SIDE} are the most")
    plain = [row.rstrip() for row in spell_out("|".join(rows)).translate(_PLAIN).split("|")]
    walled = [number for number, row in enumerate(plain) if "#" in row]
    if not walled:
        raise ValueError("the level has no wall")
    plain = plain[walled[0] : walled[-1] + 1]
    margin = min(len(row) - len(row.lstrip()) for row in plain if row)
    if (width := max(map(len, plain)) - margin) > MAX_SIDE:
        raise ValueError(f"the level is {width} cells wide; {MAX_SIDE} are the most")
    return [row[margin:] or " " for row in plain]


def spell_out(text: str) -> str:
    """Run-length encoding spelt out: `3#` is `###`, `2(-.)` is `-.-.`.

    Raises:
        ValueError: A bracket has no other, a number stands before nothing, or it has no end.
    """
    texts, counts, count = [""], [1], ""
    for character in text:
        if character in "0123456789":
            count += character
            continue
        times, piece = int(count[:9] or 1), character
        if character == "(":
            texts.append("")
            counts.append(times)
            count = ""
            continue
        if count and character in ")|":
            raise ValueError(f"the number {count:.9} stands before {character!r}")
        if character == ")":
            if len(texts) == 1:
                raise ValueError("a bracket is closed that was not opened")
            times, piece = counts.pop(), texts.pop()
        if len(texts[-1]) + times * len(piece) > _MOST:
            raise ValueError(f"the level has more than {_MOST:,} cells")
        texts[-1] += times * piece
        count = ""
    if count or len(texts) > 1:
        raise ValueError("its run-length encoding breaks off")
    return texts[0]
