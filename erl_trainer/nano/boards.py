"""What nano's players say of a board: where things are, and what shows which is which."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from erl_envs.grid import DIRECTIONS

Game = Literal["frozenlake", "sokoban"]
Rows = list[list[str]]

_STUCK = re.compile(r"the box at \d+,\d+ has")

EDGE = "|"
"""What a player sees beside the board."""


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
    """The cells that show what is what, as a reflector cites them: `player 3,4 A`.

    What moved shows itself; a box that never did, where the feedback says that it had something
    behind it; a hole, where the player fell. All of it is read off one board; of a room, whose box
    and goal are one cell each among many, every cell inside is said first.
    """
    forms = {"player": ("player", "player_on_goal"), "box": ("box", "box_on_goal")}
    board = boards[at(game)]
    cited = [] if game == "frozenlake" else [_inside(board)]
    for role, names in forms.items():
        shown = [symbols[name] for name in names if name in symbols]
        places = {_find(rows, shown)[1:] for rows in boards if shown}
        if len(places) > 1 or (role == "box" and _STUCK.search(feedback)):
            cited.append(f"{role} {cite(board, *_find(board, shown)[1:])}")
    if game == "frozenlake":
        _, r, c = _find(boards[-1], [symbols["player_in_hole"]])
        cited += [f"hole {cite(board, r, c)}"] if r >= 0 else []
    return " ".join(cited)


def _inside(rows: Rows) -> str:
    height, width = len(rows), len(rows[0])
    return " ".join(cite(rows, r, c) for r in range(1, height - 1) for c in range(1, width - 1))


def at(game: Game) -> int:
    """Which of an attempt's boards a reflector looks at: the first (0) or the last (-1).

    The last one is nearest; on FrozenLake's, who fell into a hole hides both.
    """
    return 0 if game == "frozenlake" else -1


def cite(rows: Rows, r: int, c: int) -> str:
    """A place and what stands there."""
    return f"{r + 1},{c + 1} {rows[r][c]}"
