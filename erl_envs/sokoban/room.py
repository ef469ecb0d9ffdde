"""A Sokoban room: layouts in the standard characters, and what a move does."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from erl_envs.grid import DIRECTIONS, check_rows

CHARACTERS = "#@+$*. -_"
"""Wall, player, player on goal, box, box on goal, goal, floor (three spellings)."""


class Room(NamedTuple):
    """What never moves. Cells count row-major.

    Attributes:
        width: Cells in a row.
        floor: Cells that the player can ever reach if no box were in the way.
        goals: Cells where boxes belong.
        size: Number of cells, walls and outside included.
    """

    width: int
    floor: frozenset[int]
    goals: frozenset[int]
    size: int


class State(NamedTuple):
    """What moves: the player's cell, and the boxes' in ascending order."""

    player: int
    boxes: tuple[int, ...]


@functools.cache
def deltas(width: int) -> dict[str, int]:
    """Action → the difference of a cell's number; walls all around make it safe at the edges."""
    return {action: dr * width + dc for action, (dr, dc) in DIRECTIONS.items()}


def parse_layout(layout: object) -> tuple[Room, State]:
    """Read a layout.

    Raises:
        ValueError: It is no room: the message names the line or what is missing.
    """
    rows = check_rows(layout, "layout", CHARACTERS)
    width = max(map(len, rows))
    cells = "".join(row.ljust(width, "#") for row in rows)
    players = [i for i, c in enumerate(cells) if c in "@+"]
    boxes = tuple(i for i, c in enumerate(cells) if c in "$*")
    goals = frozenset(i for i, c in enumerate(cells) if c in "+*.")
    if len(players) != 1:
        raise ValueError(f"layout must hold exactly one player (@ or +), it holds {len(players)}")
    if not boxes or len(boxes) != len(goals):
        raise ValueError(
            f"layout must hold as many boxes as goals, at least one; "
            f"it holds {len(boxes)} boxes and {len(goals)} goals"
        )
    if goals == set(boxes):
        raise ValueError("layout is solved already")
    floor = _inside(cells, width, players[0])
    # what is finished outside the player's room decorates it, and is as good as wall
    boxes = tuple(box for box in boxes if box in floor)
    return Room(width, floor, goals & floor, len(cells)), State(players[0], boxes)


def _inside(cells: str, width: int, start: int) -> frozenset[int]:
    """Cells that walls enclose together with the player.

    Raises:
        ValueError: The player could walk out, or a box or a goal, unless it is a box on its goal,
            stands where he cannot come.
    """
    seen, frontier = {start}, [start]
    while frontier:
        cell = frontier.pop()
        row, column = divmod(cell, width)
        if row in (0, len(cells) // width - 1) or column in (0, width - 1):
            raise ValueError(f"layout is not closed: line {row + 1} has a gap in the outer wall")
        for delta in deltas(width).values():
            if cells[cell + delta] != "#" and cell + delta not in seen:
                seen.add(cell + delta)
                frontier.append(cell + delta)
    for cell, character in enumerate(cells):
        if character in "$." and cell not in seen:
            line = cell // width + 1
            raise ValueError(f"layout line {line}: {character!r} stands outside the player's room")
    return frozenset(seen)


def move(room: Room, state: State, delta: int) -> State:
    """The state after the player steps by `delta`, pushing a box if one is there; or `state`."""
    end = state.player + delta
    if end not in room.floor:
        return state
    if end not in state.boxes:
        return State(end, state.boxes)
    beyond = end + delta
    if beyond not in room.floor or beyond in state.boxes:
        return state
    return State(end, tuple(sorted(beyond if box == end else box for box in state.boxes)))


def walk(room: Room, boxes: Collection[int], player: int) -> dict[int, int]:
    """Moves to every cell that the player can walk to, nearest first."""
    steps, frontier = {player: 0}, deque([player])
    ways = tuple(deltas(room.width).values())
    while frontier:
        cell = frontier.popleft()
        for delta in ways:
            end = cell + delta
            if end in room.floor and end not in steps and end not in boxes:
                steps[end] = steps[cell] + 1
                frontier.append(end)
    return steps


def solved(room: Room, boxes: Sequence[int]) -> bool:
    """Whether every box stands on a goal."""
    return room.goals.issuperset(boxes)


def to_layout(room: Room, state: State) -> list[str]:
    """The room in the standard characters; what the player can never reach is wall."""
    cells = [" " if cell in room.floor else "#" for cell in range(room.size)]
    for goal in room.goals:
        cells[goal] = "."
    for box in state.boxes:
        cells[box] = "*" if box in room.goals else "$"
    cells[state.player] = "+" if state.player in room.goals else "@"
    text = "".join(cells)
    return [text[i : i + room.width] for i in range(0, room.size, room.width)]
