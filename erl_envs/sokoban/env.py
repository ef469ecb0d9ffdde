"""The Sokoban environment: push every box onto a goal (PAPER: Environments)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from erl_envs import options as opt
from erl_envs import task_files
from erl_envs.core import MAX_TURNS, EnvError, Reference, Step
from erl_envs.grid import Board, GridEnv, GridOptions, place
from erl_envs.sokoban import collections, levels, solver
from erl_envs.sokoban.room import deltas, move, parse_layout, solved, to_layout

MAX_BOXES, MAX_PUSHES = 100, 100
"""Of a pulled room: a wish that cannot be met is drawn for 10,000 times."""


@dataclass(frozen=True, kw_only=True)
class SokobanOptions(GridOptions):
    """Options of Sokoban; all but the symbols shape fresh tasks only.

    Attributes:
        generator: `paper` (an empty room, one box, at most 8 moves) or `pulls` (inner walls, made
            by pulling boxes off their goals).
        size: Least and greatest side of a room, outer walls included.
        boxes: Boxes of a pulled room.
        min_pushes: Every solution of a pulled room takes at least so many pushes.
        walls: Share of a pulled room's inner cells that are walls.
    """

    generator: Literal["paper", "pulls"] = "paper"
    size: tuple[int, int] = levels.PAPER_SIDES
    boxes: int = 1
    min_pushes: int = 1
    walls: float = 0.1

    def __post_init__(self) -> None:
        """Check every value."""
        super().__post_init__()
        if not 5 <= self.size[0] <= self.size[1] <= 32:
            raise ValueError(f"bad value {self.size} for size; valid: 5 ≤ least ≤ greatest ≤ 32")
        if not (1 <= self.boxes <= MAX_BOXES and 1 <= self.min_pushes <= MAX_PUSHES):
            raise ValueError(
                f"bad value for boxes or min_pushes; valid: 1 to {MAX_BOXES}, 1 to {MAX_PUSHES}"
            )
        if not 0 <= self.walls < 0.5:
            raise ValueError(f"bad value {self.walls} for walls; valid: 0 ≤ walls < 0.5")
        paper = {"boxes": 1, "min_pushes": 1, "walls": 0.1}
        if self.generator == "paper" and any(getattr(self, k) != v for k, v in paper.items()):
            raise ValueError(f"{', '.join(paper)} shape rooms with generator='pulls' only")


class Sokoban(GridEnv):
    """Push every box onto a goal. Reward 1 when all are there, else 0.

    A task is `{layout: ["#####", …]}` in the standard characters, with `max_turns` if it wants
    other than 8. A room that cannot be solved any more plays on until its turns are used, as in
    the paper.
    """

    name = "sokoban"
    Options = SokobanOptions
    options: SokobanOptions
    opaque: ClassVar[Mapping[str, str]] = {
        "player": "A",
        "player_on_goal": "a",
        "box": "B",
        "box_on_goal": "b",
        "goal": "C",
        "floor": "D",
        "wall": "E",
    }
    canonical: ClassVar[Mapping[str, str]] = {
        "player": "@",
        "player_on_goal": "+",
        "box": "$",
        "box_on_goal": "*",
        "goal": ".",
        "floor": "_",
        "wall": "#",
    }

    def sample_task(self, rng: np.random.Generator) -> dict[str, Any]:
        """A room of the chosen generator; a pulled one carries turns enough to be solved."""
        if self.options.generator == "paper":
            return {"layout": levels.draw_paper_room(rng, self.options.size)}
        room, state, moves = levels.pull_room(
            rng,
            side=int(rng.integers(self.options.size[0], self.options.size[1] + 1)),
            boxes=self.options.boxes,
            min_pushes=self.options.min_pushes,
            walls=self.options.walls,
            max_moves=self.options.max_turns or MAX_TURNS,
        )
        turns = max(self.default_max_turns, moves)
        return {"layout": to_layout(room, state), "max_turns": turns}

    def begin(self, params: Mapping[str, Any]) -> None:
        """Lay out the room."""
        if (fields := sorted(set(params) - {"max_turns"})) != ["layout"]:
            raise ValueError(f"a sokoban task has the field layout; got {fields!s:.100}")
        self._room, self._state = parse_layout(params["layout"])
        self._choose_symbols(params)
        self.board = Board(
            [self._symbol(cell) for cell in range(self._room.size)],
            self._room.width,
            self.options.coordinates,
        )

    def act(self, action: str) -> Step:
        """Step, or push the box that stands in the way."""
        room, before = self._room, self._state
        delta = deltas(room.width)[action]
        after = move(room, before, delta)
        if after is before:
            return Step(self._blocked(action, before.player + delta, delta), changed=False)
        self._state = after
        for cell in (before.player, after.player):
            self.board.put(cell, self._symbol(cell))
        moved = f"moved from {self._place(before.player)} to {self._place(after.player)}"
        if after.boxes == before.boxes:
            return Step(f"{action}: the player {moved}.")
        box = after.player + delta
        self.board.put(box, self._symbol(box))
        onto = " onto a goal" if box in room.goals else ""
        off = " off a goal" if after.player in room.goals else ""
        pushed = f"pushing a box{off} to {self._place(box)}{onto}"
        note = f"{action}: the player {moved}, {pushed}."
        if solved(room, after.boxes):
            return Step(f"{note} Every box is on a goal.", True, 1.0, "solved")
        return Step(note)

    def solve(self) -> list[str] | None:
        """A solution of the fewest moves from here."""
        return solver.solve(self._room, self._state)

    def tell_transitions(self, notes: list[str]) -> list[str]:  # type: ignore[override]
        """What each turn did, and whether the boxes as they stand can still be brought home."""
        lines = super().tell_transitions(notes)
        if solver.stuck(self._room, self._state.boxes):
            lines.append("As the boxes stand now, the puzzle can no longer be solved.")
        return lines

    def reference(self) -> Reference:
        """Shortest solution by a quick search, and the random policy's exact value."""
        found = solver.count_moves(self._room, self._state, solver.QUICK_WORK)
        if not found.known:
            raise EnvError("the Sokoban solver's quick search found no solution")
        solvable = found.moves is not None and found.moves <= self.max_turns
        chance = None
        with contextlib.suppress(EnvError):
            chance = solver.random_value(self._room, self._state, self.max_turns)
        return Reference(found.moves if solvable else None, chance, float(solvable))

    def out_of_reach(self) -> bool:
        """Whether the pushes alone take more turns than there are."""
        return solver.least_pushes(self._room, self._state.boxes) > self.max_turns

    def _place(self, cell: int) -> str:
        return place(cell, self._room.width, self.options.coordinates)

    def _symbol(self, cell: int) -> str:
        room, state = self._room, self._state
        on_goal = cell in room.goals
        if cell == state.player:
            return self.symbols["player_on_goal" if on_goal else "player"]
        if cell in state.boxes:
            return self.symbols["box_on_goal" if on_goal else "box"]
        if on_goal:
            return self.symbols["goal"]
        return self.symbols["floor" if cell in room.floor else "wall"]

    def _blocked(self, action: str, cell: int, delta: int) -> str:
        if cell not in self._room.floor:
            return f"{action}: a wall is there, so nothing changed."
        behind = "a wall" if cell + delta not in self._room.floor else "another box"
        at = self._place(cell)
        return f"{action}: the box at {at} has {behind} behind it, so nothing changed."

    @classmethod
    def splits(cls, options: opt.Options) -> dict[str, Callable[[str], Iterator[dict[str, Any]]]]:
        """Task sets by name."""
        return levels.SPLITS

    @classmethod
    def read_tasks(cls, text: str, options: opt.Options) -> Iterator[task_files.Entry]:
        """Levels as people write them (`collections`), or tasks in JSON."""
        return collections.entries(text, cls.row_reader(options))
