"""Shortest Sokoban solutions by A* over pushes, and exact values of the random policy.

Both end at a bound of work: a stranger's room may be as large as `erl_envs.grid.MAX_SIDE` allows,
and hold thousands of boxes.
"""

from __future__ import annotations

import functools
import heapq
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from erl_envs.core import EnvError
from erl_envs.grid import shortest_path
from erl_envs.sokoban.room import Room, State, deltas, move, solved, walk
from erl_envs.work import MAX_WORK, Work

QUICK_WORK = 5_000_000
"""Operations of `count_moves`, some second: twice what any task of ours needs."""

FAR = 1 << 20
"""Push distance of a square from which no box can come to a goal."""

_PER_CELL, _PER_STATE = 8, 40
"""Operations of a cell that is walked to, and of a state that is made, kept and compared; a box of
that state is one more."""


@functools.lru_cache(maxsize=16)  # rooms that a stranger gives have any size
def push_distances(room: Room) -> Mapping[int, int]:
    """For each cell, the fewest pushes that bring a lone box from there to some goal.

    Cells that are missing are dead: a box on one can never be brought home.
    """
    distances = dict.fromkeys(sorted(room.goals), 0)
    frontier = deque(distances)
    while frontier:
        cell = frontier.popleft()
        for delta in deltas(room.width).values():
            before = cell - delta
            if before in room.floor and before - delta in room.floor and before not in distances:
                distances[before] = distances[cell] + 1
                frontier.append(before)
    return distances


def least_pushes(room: Room, boxes: Iterable[int]) -> int:
    """A lower bound on the pushes to solve the room; `FAR` or more if it cannot be solved."""
    return _total(push_distances(room), boxes)


def _total(distances: Mapping[int, int], boxes: Iterable[int]) -> int:
    return sum(distances.get(box, FAR) for box in boxes)


def frozen(room: Room, boxes: Collection[int], pushed: int) -> bool:
    """Whether the box just pushed closes a 2×2 block of boxes and walls with a box off its goal.

    None of that block's boxes can ever move again.
    """
    width = room.width
    for corner in (pushed, pushed - 1, pushed - width, pushed - width - 1):
        block = (corner, corner + 1, corner + width, corner + width + 1)
        held = [cell for cell in block if cell in boxes]
        if all(cell in boxes or cell not in room.floor for cell in block) and not solved(
            room, held
        ):
            return True
    return False


def stuck(room: Room, boxes: Collection[int]) -> bool:
    """Whether the room can surely not be solved any more: a dead square or a frozen block."""
    there = frozenset(boxes)
    return least_pushes(room, there) >= FAR or any(frozen(room, there, box) for box in there)


def _pushes(room: Room, state: State, work: Work) -> Iterator[tuple[int, int, State]]:
    """Every push the player can come to: (moves, box pushed to, state after)."""
    ways, boxes = tuple(deltas(room.width).values()), frozenset(state.boxes)
    work.spend(_PER_CELL * len(room.floor))
    for cell, steps in walk(room, boxes, state.player).items():
        for delta in ways:
            if cell + delta in boxes:
                work.spend(_PER_STATE + len(boxes))
                after = move(room, State(cell, state.boxes), delta)
                if after.boxes != state.boxes:
                    yield steps + 1, cell + 2 * delta, after


def solve(room: Room, start: State, max_work: int = MAX_WORK) -> list[str] | None:
    """A solution of the fewest moves, None if there is none.

    Raises:
        EnvError: `max_work` operations are done, and the answer is still open.
    """
    work = Work("the Sokoban solver", max_work)
    distances = push_distances(room)
    cost = {start: 0}
    came_from: dict[State, State] = {}
    queue = [(_total(distances, start.boxes), 0, start)]
    while queue:
        _, moves, state = heapq.heappop(queue)
        if moves > cost[state]:
            continue
        if solved(room, state.boxes):
            return _actions_to(room, state, came_from, work)
        for more, pushed, after in _pushes(room, state, work):
            bound = _total(distances, after.boxes)
            if bound >= FAR or frozen(room, frozenset(after.boxes), pushed):
                continue
            total = moves + more
            if total < cost.get(after, FAR):
                cost[after] = total
                came_from[after] = state
                heapq.heappush(queue, (total + bound, total, after))
    return None


class Search(NamedTuple):
    """What a search found of a room's shortest solution.

    Attributes:
        known: Whether the search came to an end.
        moves: Of the solution; None if there is none, or it is not known.
    """

    known: bool
    moves: int | None = None


@functools.lru_cache(maxsize=4_096)
def count_moves(room: Room, start: State, max_work: int) -> Search:
    """The moves of a shortest solution, by a search that is quick enough for a file of rooms."""
    try:
        plan = solve(room, start, max_work)
    except EnvError:
        return Search(known=False)
    return Search(known=True, moves=None if plan is None else len(plan))


def _actions_to(
    room: Room, state: State, came_from: Mapping[State, State], work: Work
) -> list[str]:
    """Spell out the walks between the pushes."""
    legs: list[list[str]] = []
    while state in came_from:
        work.spend(_PER_CELL * len(room.floor))
        before = came_from[state]
        legs.append(_leg(room, before, state))
        state = before
    return [action for leg in reversed(legs) for action in leg]


def _leg(room: Room, before: State, after: State) -> list[str]:
    """The walk to the box that is pushed, and the push: it leaves the player where the box was."""
    ways, boxes = deltas(room.width), frozenset(before.boxes)
    (pushed,) = set(after.boxes) - boxes
    delta = pushed - after.player

    def steps(cell: int) -> Iterator[tuple[str, int]]:
        for action, way in ways.items():
            if cell + way in room.floor and cell + way not in boxes:
                yield action, cell + way

    path = shortest_path(before.player, (after.player - delta).__eq__, steps)
    assert path is not None
    return [*path, next(action for action, way in ways.items() if way == delta)]


def random_value(room: Room, start: State, turns: int, max_work: int = MAX_WORK) -> float:
    """Exact chance that uniformly random moves solve the room within `turns`.

    States that cannot be solved in the turns left, by a lower bound, count 0 unexpanded.

    Raises:
        EnvError: `max_work` operations are done, and turns are left.
    """
    work = Work("the random policy's exact value", max_work)
    ways = tuple(deltas(room.width).values())
    pushes = push_distances(room)

    @functools.cache
    def bound(state: State) -> int:
        """A lower bound on moves: the pushes, and the walk to the nearest box that needs one."""
        row, column = divmod(state.player, room.width)
        total, walk = 0, FAR
        for box in state.boxes:
            if (needs := pushes.get(box, FAR)) > 0:
                total += needs
                box_row, box_column = divmod(box, room.width)
                walk = min(walk, abs(box_row - row) + abs(box_column - column) - 1)
        return total + walk

    reached, won = {start: 1.0}, 0.0
    for left in range(turns, 0, -1):
        after: dict[State, float] = defaultdict(float)
        work.spend(len(reached) * (_PER_STATE + len(start.boxes)))
        for state, chance in reached.items():
            for delta in ways:
                end = move(room, state, delta)
                if solved(room, end.boxes):
                    won += chance / len(ways)
                elif bound(end) < left:
                    after[end] += chance / len(ways)
        reached = after
    return won
