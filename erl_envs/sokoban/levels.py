"""Rooms: the paper's generator exactly, and one that pulls boxes away from their goals."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from erl_envs.grid import split_of, split_table, stream, take_split
from erl_envs.sokoban.room import Room, State, deltas, to_layout, walk
from erl_envs.sokoban.solver import least_pushes, solve

PAPER_SIDES, PAPER_MOVES = (6, 8), 8
_MAX_DRAWS = 10_000


def _empty_room(side: int, goals: frozenset[int]) -> Room:
    inner = range(1, side - 1)
    return Room(side, frozenset(r * side + c for r in inner for c in inner), goals, side * side)


@functools.cache
def _moves_to_solve(side: int, goal: int) -> dict[tuple[int, int], int]:
    """Fewest moves from every (player, box) of an empty room, up to 8: backwards from the end."""
    floor = _empty_room(side, frozenset()).floor
    moves = {(player, goal): 0 for player in sorted(floor - {goal})}
    frontier = deque(moves)
    while frontier:
        player, box = state = frontier.popleft()
        if moves[state] == PAPER_MOVES:
            break
        for delta in deltas(side).values():
            before = player - delta
            if before not in floor or before == box:
                continue
            walked, pushed = (before, box), (before, player)
            for earlier in (walked, pushed) if box == player + delta else (walked,):
                if earlier not in moves:
                    moves[earlier] = moves[state] + 1
                    frontier.append(earlier)
    return moves


def draw_paper_room(rng: np.random.Generator, sides: tuple[int, int] = PAPER_SIDES) -> list[str]:
    """One draw of the paper's generator, repeated until at most 8 moves solve it."""
    while True:
        side = int(rng.integers(sides[0], sides[1] + 1))
        inner = range(1, side - 1)
        cells = [r * side + c for r in inner for c in inner]
        goal = box = player = cells[int(rng.integers(len(cells)))]
        while box == goal:
            box = cells[int(rng.integers(len(cells)))]
        while player in (goal, box):
            player = cells[int(rng.integers(len(cells)))]
        if (player, box) in _moves_to_solve(side, goal):
            return to_layout(_empty_room(side, frozenset([goal])), State(player, (box,)))


def _paper(part: str) -> Iterator[dict[str, Any]]:
    """The paper's 10,000 train layouts, then its 100 test layouts, from one generator."""
    rng = np.random.default_rng(42)
    seen: dict[tuple[str, ...], None] = {}
    while len(seen) < 10_100:
        seen.setdefault(tuple(draw_paper_room(rng)))
    layouts = list(seen)
    for layout in layouts[:10_000] if part == "train" else layouts[10_000:]:
        yield {"layout": list(layout)}


class Pulled(NamedTuple):
    """A generated room, its first state, and the length in moves of one known solution."""

    room: Room
    state: State
    moves: int


def pull_room(
    rng: np.random.Generator,
    side: int,
    boxes: int,
    min_pushes: int,
    walls: float,
    max_moves: int | None = None,
) -> Pulled:
    """A room with inner walls, made backwards: boxes start on their goals and are pulled away.

    Args:
        rng: Source of every draw.
        side: Rows and columns, outer walls included; from 5.
        boxes: Boxes, and goals.
        min_pushes: Every solution takes at least so many pushes (by a lower bound, so surely).
        walls: Share of inner cells that become walls.
        max_moves: Greatest length of the known solution; None for any.

    Raises:
        ValueError: 10,000 draws gave no such room: the wishes do not fit together.
    """
    for _ in range(_MAX_DRAWS):
        room = _draw_room(rng, side, boxes, walls)
        pulled = room and _pull(rng, room, min_pushes, max_moves)
        if pulled:
            return pulled
    raise ValueError(
        f"no room with side {side}, {boxes} boxes, at least {min_pushes} pushes"
        f"{f' and at most {max_moves} moves' if max_moves else ''} in {_MAX_DRAWS} draws"
    )


def _draw_room(rng: np.random.Generator, side: int, boxes: int, walls: float) -> Room | None:
    """Random inner walls, the part around a random cell, random goals in it."""
    inner = sorted(_empty_room(side, frozenset()).floor)
    is_open = (rng.random(len(inner)) >= walls).tolist()
    cells = {cell for cell, free in zip(inner, is_open, strict=True) if free}
    if len(cells) < 3 * boxes + 3:
        return None
    order = rng.permutation(sorted(cells)).tolist()
    floor, frontier = {order[0]}, [order[0]]
    while frontier:
        cell = frontier.pop()
        for delta in deltas(side).values():
            if cell + delta in cells and cell + delta not in floor:
                floor.add(cell + delta)
                frontier.append(cell + delta)
    if len(floor) < 0.6 * len(inner) or len(floor) < 3 * boxes + 3:
        return None
    goals = [cell for cell in order if cell in floor][:boxes]
    return Room(side, frozenset(floor), frozenset(goals), side * side)


def _pull(
    rng: np.random.Generator, room: Room, min_pushes: int, max_moves: int | None
) -> Pulled | None:
    """Pull boxes at random until enough pushes lie before the player and no box is at home."""
    boxes = set(room.goals)
    free = sorted(room.floor - boxes)
    player = free[int(rng.integers(len(free)))]
    moves, first = 0, True
    draws = iter(rng.random(6 * (min_pushes + len(boxes))).tolist())
    for draw in draws:
        steps = walk(room, boxes, player)
        pulls = [
            (box, delta)
            for box in sorted(boxes)
            for delta in deltas(room.width).values()
            if box + delta in steps
            and box + 2 * delta in room.floor
            and box + 2 * delta not in boxes
        ]
        if not pulls:
            return None
        box, delta = pulls[int(draw * len(pulls))]
        moves += 1 if first else 1 + steps[box + delta]
        first = False
        if max_moves is not None and moves > max_moves:
            return None
        boxes.remove(box)
        boxes.add(box + delta)
        player = box + 2 * delta
        ordered = tuple(sorted(boxes))
        if boxes.isdisjoint(room.goals) and least_pushes(room, ordered) >= min_pushes:
            return Pulled(room, State(player, ordered), moves)
    return None


def _ours(split: str, count: int, salt: str) -> Iterator[dict[str, Any]]:
    """Rooms of side 6 to 8 with inner walls and one or two boxes, solvable in 8 moves."""

    def draws() -> Iterator[tuple[object, dict[str, Any]]]:
        rng = stream(951, salt)
        while True:
            boxes = 1 if rng.random() < 0.7 else 2
            side, pushes = int(rng.integers(6, 9)), int(rng.integers(1, 5))
            room, state, _ = pull_room(rng, side, boxes, max(pushes, boxes), 0.1, PAPER_MOVES)
            layout = to_layout(room, state)
            yield layout, {"layout": layout}

    return take_split(split, count, draws())


def _small(split: str, count: int, salt: str) -> Iterator[dict[str, Any]]:
    """The paper's generator at side 6, its smallest, for small models; there are 1,136 rooms."""

    def draws() -> Iterator[tuple[object, dict[str, Any]]]:
        rng = stream(954, salt)
        while True:
            layout = draw_paper_room(rng, (6, 6))
            yield layout, {"layout": layout}

    return take_split(split, count, draws())


def _hard(salt: str) -> Iterator[dict[str, Any]]:
    """100 rooms of side 8 to 10 with two or three boxes; 4 turns more than a shortest solution."""

    def draws() -> Iterator[tuple[object, dict[str, Any]]]:
        rng = stream(952, salt)
        while True:
            boxes, side = int(rng.integers(2, 4)), int(rng.integers(8, 11))
            room, state, _ = pull_room(rng, side, boxes, 2 * boxes, 0.15, 24)
            layout = to_layout(room, state)
            if split_of(layout) != "hard":  # asked here too, because solving is slow
                continue
            plan = solve(room, state)
            assert plan is not None, "a pulled room is solvable by construction"
            if len(plan) >= PAPER_MOVES:
                yield layout, {"layout": layout, "max_turns": len(plan) + 4}

    return take_split("hard", 100, draws())


SPLITS = split_table(_ours, _small, _hard, _paper)
