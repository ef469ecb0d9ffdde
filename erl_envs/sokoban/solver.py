"""Shortest Sokoban solutions by A* over pushes, and exact values of the random policy."""

from __future__ import annotations

import functools
import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import NamedTuple

from erl_envs.core import EnvError
from erl_envs.grid import shortest_path
from erl_envs.sokoban.room import Room, State, deltas, move, solved, walk

MAX_NODES = 200_000
"""States after which `solve` gives up and says so."""

MAX_WORK = 400_000_000
"""That times cells and boxes, by which a state takes its time. Rooms of up to 2,000 of these (side
25, three boxes) have `MAX_NODES`; a stranger's of side 64 with sixty boxes half a minute."""

QUICK_WORK = 5_000_000
"""What `count_moves` does of it, in about half a second: sixteen times what any task of ours needs.
"""

MAX_CHANCES = 500_000
"""States at a time, times the turns left, with which `random_value` gives up: a few seconds. Tasks
of ours have a fifth at most."""

FAR = 1 << 20
"""Push distance of a square from which no box can come to a goal."""


@functools.lru_cache(maxsize=256)  # rooms that a stranger gives have any size
def push_distances(room: Room) -> dict[int, int]:
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


def least_pushes(room: Room, boxes: tuple[int, ...]) -> int:
    """A lower bound on the pushes to solve the room; `FAR` or more if it cannot be solved."""
    distances = push_distances(room)
    return sum(distances.get(box, FAR) for box in boxes)


def frozen(room: Room, boxes: tuple[int, ...], pushed: int) -> bool:
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


def stuck(room: Room, boxes: tuple[int, ...]) -> bool:
    """Whether the room can surely not be solved any more: a dead square or a frozen block."""
    return least_pushes(room, boxes) >= FAR or any(frozen(room, boxes, box) for box in boxes)


def _pushes(room: Room, state: State) -> Iterator[tuple[int, int, State]]:
    """Every push the player can come to: (moves, box pushed to, state after)."""
    ways = tuple(deltas(room.width).values())
    for cell, steps in walk(room, state.boxes, state.player).items():
        for delta in ways:
            if cell + delta in state.boxes:
                after = move(room, State(cell, state.boxes), delta)
                if after.boxes != state.boxes:
                    yield steps + 1, cell + 2 * delta, after


def solve(room: Room, start: State, max_work: int = MAX_WORK) -> list[str] | None:
    """A solution of the fewest moves, None if there is none.

    Raises:
        EnvError: So many states were searched that `max_work` is done (or `MAX_NODES`), and the
            answer is still open.
    """
    max_nodes = min(MAX_NODES, max_work // (room.size * max(1, len(start.boxes))))
    cost = {start: 0}
    came_from: dict[State, State] = {}
    queue = [(least_pushes(room, start.boxes), 0, start)]
    nodes = 0
    while queue:
        _, moves, state = heapq.heappop(queue)
        if moves > cost[state]:
            continue
        if solved(room, state.boxes):
            return _actions_to(room, state, came_from)
        nodes += 1
        if nodes > max_nodes:
            raise EnvError(f"the Sokoban solver stopped at its bound of {max_nodes} states")
        for more, pushed, after in _pushes(room, state):
            bound = least_pushes(room, after.boxes)
            if bound >= FAR or frozen(room, after.boxes, pushed):
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


def _actions_to(room: Room, state: State, came_from: dict[State, State]) -> list[str]:
    """Spell out the walks between the pushes."""
    actions: list[str] = []
    while state in came_from:
        before = came_from[state]
        legs = shortest_path(before, state.__eq__, functools.partial(_steps, room, state))
        assert legs is not None
        actions = legs + actions
        state = before
    return actions


def _steps(room: Room, target: State, state: State) -> Iterator[tuple[str, State]]:
    """Moves that push nothing, or that push into the target state."""
    for action, delta in deltas(room.width).items():
        after = move(room, state, delta)
        if after.boxes == state.boxes or after == target:
            yield action, after


def random_value(room: Room, start: State, turns: int) -> float:
    """Exact chance that uniformly random moves solve the room within `turns`.

    States that cannot be solved in the turns left, by a lower bound, count 0 unexpanded.

    Raises:
        EnvError: So many can be reached that `MAX_CHANCES` is exceeded.
    """
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
        if len(reached) * left > MAX_CHANCES:
            raise EnvError(f"random moves reach {len(reached)} states with {left} turns left")
        after: dict[State, float] = defaultdict(float)
        for state, chance in reached.items():
            for delta in ways:
                end = move(room, state, delta)
                if solved(room, end.boxes):
                    won += chance / len(ways)
                elif bound(end) < left:
                    after[end] += chance / len(ways)
        reached = after
    return won
