"""Who knows the games' rules: in each state, the first action that comes nearer to the goal."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from erl_envs.core import Task
from erl_envs.frozenlake.levels import board_of
from erl_envs.grid import DIRECTIONS, neighbours
from erl_envs.sokoban.room import Room, State, deltas, move, parse_layout, solved


@functools.lru_cache(maxsize=4096)
def _lake_distances(cells: str, width: int) -> dict[int, int]:
    moves = neighbours(len(cells) // width, width)
    goal = cells.index("G")
    distances, frontier = {goal: 0}, deque([goal])
    while frontier:
        end = frontier.popleft()
        for way in moves.values():  # every move can be taken back, so these lead here too
            cell = way[end]
            if cell not in distances and cells[cell] != "H":
                distances[cell] = distances[end] + 1
                frontier.append(cell)
    return distances


@functools.lru_cache(maxsize=4096)
def _room_distances(room: Room) -> dict[State, int]:
    before: dict[State, list[State]] = {}
    distances: dict[State, int] = {}
    for box in sorted(room.floor):
        for player in sorted(room.floor - {box}):
            state = State(player, (box,))
            if solved(room, state.boxes):
                distances[state] = 0
                continue
            for delta in deltas(room.width).values():
                before.setdefault(move(room, state, delta), []).append(state)
    frontier = deque(distances)
    while frontier:
        after = frontier.popleft()
        for state in before.get(after, []):
            if state not in distances:
                distances[state] = distances[after] + 1
                frontier.append(state)
    return distances


class Guide:
    """Follows one attempt and knows the best next action."""

    def __init__(self, task: Task) -> None:
        """Start at the task's first state."""
        self._step: Callable[[Any, str], Any]
        self._distances: Mapping[Any, int]
        self._state: Any
        if task.env == "frozenlake":
            cells, width = board_of(task.params)
            moves = neighbours(len(cells) // width, width)
            self._state = cells.index("S")
            self._step = lambda cell, action: moves[action][cell]
            self._distances = _lake_distances(cells, width)
        else:
            room, self._state = parse_layout(task.params["layout"])
            self._step = lambda state, action: move(room, state, deltas(room.width)[action])
            self._distances = _room_distances(room)

    def best(self) -> str | None:
        """The first action on a shortest way, None if there is no way left."""
        if self._state not in self._distances:
            return None
        far = 1 << 20
        ends = {a: self._distances.get(self._step(self._state, a), far) for a in DIRECTIONS}
        return min(ends, key=lambda action: ends[action])

    def go(self, action: str) -> None:
        """The player did this."""
        self._state = self._step(self._state, action)
