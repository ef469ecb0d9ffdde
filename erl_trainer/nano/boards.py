"""What nano's players say of a board: where things are, and what shows which is which."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from erl_envs.grid import DIRECTIONS

Game = Literal["frozenlake", "sokoban"]
Rows = list[list[str]]

_NOTES = {
    "player": re.compile(r"the player moved from \d,\d to (\d,\d)"),
    "box": re.compile(r"(?:, pushing a box(?: off a goal)? to|the box at) (\d,\d)"),
}

EDGE = "|"
"""What a player sees beside the board."""

AGAIN = "|"
"""A symbol that has been said before."""

UNKNOWN = ("?", "!", ";")
"""What stands somewhere, if no note says it: the first such thing, the second, the third."""


def board_rows(observation: str) -> Rows:
    """The board's symbols in an observation; their coordinates are left out."""
    lines = [line for line in observation.split("\n") if "\t" in line]
    return [[cell[0] for cell in line.split()] for line in lines]


def _find(rows: Rows, symbols: Sequence[str]) -> tuple[str, int, int]:
    for symbol in symbols:
        for r, row in enumerate(rows):
            if symbol in row:
                return symbol, r, row.index(symbol)
    return symbols[0], -1, -1


def reason(game: Game, rows: Rows, symbols: Mapping[str, str]) -> str:
    """Where things are: `A 1,2 C 4,4`, rows and columns from 1.

    What lies above, below, left and right of the player follows: `1,1 D`, and of a hole that it is
    one.
    """
    if game == "frozenlake":
        seen = [_find(rows, [symbols["player"]]), _find(rows, [symbols["goal"]])]
    else:
        seen = [
            _find(rows, [symbols["player"], symbols["player_on_goal"]]),
            _find(rows, [symbols["box"], symbols["box_on_goal"]]),
            _find(rows, [symbols["goal"], symbols["player_on_goal"]]),
        ]
    words = [f"{symbol} {r + 1},{c + 1}" for symbol, r, c in seen]
    _, r, c = seen[0]
    words += [_cell(rows, r + dr, c + dc, symbols) for dr, dc in DIRECTIONS.values()]
    return " ".join(words)


def _cell(rows: Rows, r: int, c: int, symbols: Mapping[str, str]) -> str:
    if not (0 <= r < len(rows) and 0 <= c < len(rows[r])):
        return EDGE
    hole = " hole" if rows[r][c] == symbols.get("hole") else ""
    return cite(rows, r, c) + hole


def guess(game: Game, rows: Rows, rng: np.random.Generator) -> dict[str, str]:
    """Symbols on the board for the roles that `reason` asks for, at random."""
    present = sorted({symbol for row in rows for symbol in row})
    roles = ("player", "goal", "hole" if game == "frozenlake" else "box")
    dealt = [present[i] for i in rng.permutation(len(present))]
    named = {role: dealt[i % len(dealt)] for i, role in enumerate(roles)}
    return {"player_on_goal": named["player"], "box_on_goal": "", **named}


def evidence(
    game: Game, boards: Sequence[Rows], symbols: Mapping[str, str], feedback: str = ""
) -> str:
    """The cells that show what is what, as a reflector cites them."""
    if game == "sokoban":
        return _in_room(boards[-1], feedback, symbols)
    return _on_ice(boards, symbols)


def _on_ice(boards: Sequence[Rows], symbols: Mapping[str, str]) -> str:
    """Where the player left, and where it fell: `player 3,4 A hole 4,4 C`, of the first board.

    On the last one, who fell into a hole hides both.
    """
    first, cited = boards[0], []
    places = {_find(rows, [symbols["player"]])[1:] for rows in boards}
    if len(places) > 1:
        cited.append(f"player {cite(first, *_find(first, [symbols['player']])[1:])}")
    _, r, c = _find(boards[-1], [symbols["player_in_hole"]])
    if r >= 0:
        cited.append(f"hole {cite(first, r, c)}")
    return " ".join(cited)


def _in_room(rows: Rows, feedback: str, symbols: Mapping[str, str]) -> str:
    """The last notes that name a place, then the last board's inside: `3,3 player A 3,4 ? B`.

    Each symbol is said once, then `|`; before it, if it is not the floor's, what stands there, by
    the notes or by nobody's word. So what is one cell among many stands out; in the end these few
    are said again, close to the rulebook.
    """
    words, named, unknown = [], {}, [*UNKNOWN]
    known, found_out = set(), []
    for role, note in _NOTES.items():
        if found := list(note.finditer(feedback)):
            words.append(found[-1][0])
            named[found[-1][1]] = role
    for r in range(1, len(rows) - 1):
        for c in range(1, len(rows[r]) - 1):
            place, symbol = cite(rows, r, c).split()
            if symbol in known:
                words += [place, AGAIN]
                continue
            known.add(symbol)
            if symbol == symbols["floor"]:
                words += [place, symbol]
                continue
            role = named.get(place) or unknown.pop(0)
            words += [place, role, symbol]
            found_out.append(f"{role} {symbol}")
    order = [*_NOTES, *UNKNOWN]
    words += sorted(found_out, key=lambda told: order.index(told.split()[0]))
    return " ".join(words)


def cite(rows: Rows, r: int, c: int) -> str:
    """A place and what stands there."""
    return f"{r + 1},{c + 1} {rows[r][c]}"
