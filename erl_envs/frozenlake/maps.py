"""Maps as people have them: Gymnasium's `desc` as strings, bytes or arrays, and files of many.

A file holds rows of `S`, `F`, `H`, `G` as text, maps apart by any other line, or JSON: one map, an
array of maps, a map a line, or an object of maps by name, as Gymnasium's `MAPS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from erl_envs.frozenlake.levels import board_of, safe_path
from erl_envs.grid import MAX_SIDE, own_turns
from erl_envs.json_rows import is_json, json_rows
from erl_envs.task_files import Entry, entry_of

_ROW = re.compile(r"[SFHG]+")


def rows_of(desc: Any) -> Any:
    """A map's rows as strings, given as strings, bytes, or arrays of one-letter ones.

    What is none of these comes back as it is, for `board_of` to refuse.
    """
    plain = desc.tolist() if hasattr(desc, "tolist") else desc
    if isinstance(plain, str):
        return plain.split("\n") if "\n" in plain else plain
    if not isinstance(plain, Sequence) or len(plain) > MAX_SIDE:
        return plain
    return [_row(row) for row in plain]


def _row(row: Any) -> Any:
    if isinstance(row, bytes):
        return row.decode("ascii", "replace")
    if isinstance(row, list | tuple) and row and len(row) <= MAX_SIDE:
        cells = [_row(cell) for cell in row if isinstance(cell, str | bytes)]
        return "".join(cells) if len(cells) == len(row) else row
    return row


def task_of(desc: Any) -> dict[str, Any]:
    """The task of a map, with turns enough to solve it.

    Raises:
        ValueError: It is no map, or its goal cannot be reached.
    """
    rows = rows_of(desc)
    cells, width = board_of({"desc": rows})
    path = safe_path(cells, width, cells.index("S"))
    if path is None:
        raise ValueError("the goal cannot be reached")
    return {"desc": rows, **own_turns(len(path))}


def entries(text: str, read: Callable[[Any], Mapping[str, Any]]) -> Iterator[Entry]:
    """The maps of a file.

    Args:
        text: The file's.
        read: Makes a task's parameters of a JSON object that is a task, or raises ValueError.

    Raises:
        ValueError: The text as a whole is no JSON, though it begins like it.
    """
    if not is_json(text):
        yield from (entry_of(place, rows, task_of) for place, rows in _blocks(text))
        return
    alone: list[str] = []
    for place, row in json_rows(text):
        if isinstance(row, str):  # a map alone is an array of its rows
            alone.append(row)
        elif not isinstance(row, Mapping):
            yield entry_of(place, row, task_of)
        elif set(row) == {"desc"}:
            yield entry_of(place, row["desc"], task_of)
        elif {"desc", "seed", "params"}.isdisjoint(row):
            for name, desc in row.items():
                yield entry_of(f"map {name!r:.60}", desc, task_of)
        else:
            yield entry_of(place, row, read)
    if alone:
        yield entry_of("line 1", alone, task_of)


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    rows: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if _ROW.fullmatch(line.strip()):
            rows.append(line.strip())
        elif rows:
            yield f"line {number - len(rows)}", rows
            rows = []
