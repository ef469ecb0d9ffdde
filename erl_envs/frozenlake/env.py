"""FrozenLake as text: cross a board to the goal, holes end the attempt (PAPER: Environments)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from erl_envs import options as opt
from erl_envs import prompting, task_files
from erl_envs.core import Reference, Step
from erl_envs.frozenlake import maps
from erl_envs.frozenlake.levels import (
    PAPER_P,
    PAPER_SIZES,
    SPLITS,
    board_of,
    draw_task,
    safe_path,
    within_reach,
)
from erl_envs.grid import Board, GridEnv, GridOptions, neighbours, place


@dataclass(frozen=True, kw_only=True)
class FrozenLakeOptions(GridOptions):
    """Options of FrozenLake.

    Attributes:
        is_slippery: Each move goes where it was meant to or to either side of it, a third each.
        size: Least and greatest side of a fresh task's board.
        p: Bounds of a fresh task's share of frozen cells.
    """

    is_slippery: bool = False
    size: tuple[int, int] = PAPER_SIZES
    p: tuple[float, float] = PAPER_P

    def __post_init__(self) -> None:
        """Check every value."""
        super().__post_init__()
        if not 2 <= self.size[0] <= self.size[1] <= 64:
            raise ValueError(f"bad value {self.size} for size; valid: 2 ≤ least ≤ greatest ≤ 64")
        if not 0 < self.p[0] <= self.p[1] <= 1:
            raise ValueError(f"bad value {self.p} for p; valid: 0 < least ≤ greatest ≤ 1")


class FrozenLake(GridEnv):
    """Reach the goal; a hole ends the attempt. Reward 1 at the goal, else 0.

    A task is `{seed, size, p}` (the paper's generator) or `{desc: ["SFH…", …]}`, whose rows may be
    bytes or arrays too, with `max_turns` if it wants other than 8.
    """

    name = "frozenlake"
    Options = FrozenLakeOptions
    options: FrozenLakeOptions
    opaque: ClassVar[Mapping[str, str]] = {
        "player": "A",
        "goal": "B",
        "hole": "C",
        "frozen": "D",
        "player_in_hole": "X",
        "player_on_goal": "√",
    }
    canonical: ClassVar[Mapping[str, str]] = {
        "player": "P",
        "goal": "G",
        "hole": "O",
        "frozen": "_",
        "player_in_hole": "X",
        "player_on_goal": "√",
    }
    outcomes: ClassVar[Mapping[str, str]] = {
        **GridEnv.outcomes,
        "lost": "The attempt was lost on turn {turn} of {max_turns}: that turn's action ended it.",
    }

    def sample_task(self, rng: np.random.Generator) -> dict[str, Any]:
        """A seed, a uniform side and a uniform share of frozen cells."""
        return draw_task(rng, self.options.size, self.options.p)

    def begin(self, params: Mapping[str, Any]) -> None:
        """Lay out the board and put the player at the start."""
        self._choose_symbols(params)
        cells, self.width = board_of(params)
        self._cells = cells
        self._player = cells.index("S")
        self._goal = cells.index("G")
        self._moves = neighbours(len(cells) // self.width, self.width)
        symbol = {
            "F": self.symbols["frozen"],
            "S": self.symbols["player"],
            "H": self.symbols["hole"],
            "G": self.symbols["goal"],
        }
        self.board = Board([symbol[cell] for cell in cells], self.width, self.options.coordinates)

    def act(self, action: str) -> Step:
        """Move the player one cell, or two ways aside on slippery ice."""
        start = self._player
        went = action
        if self.options.is_slippery:
            went = _slips(action)[int(self.np_random.integers(3))]
        end = self._moves[went][start]
        way = action if went == action else f"{action}: slipped {went}"
        if end == start:
            return Step(
                f"{way}: the edge of the board is there, so nothing changed.", changed=False
            )
        self._player = end
        self.board.put(start, self.symbols["frozen"])
        cell = self._cells[end]
        here, at = (place(c, self.width, self.options.coordinates) for c in (start, end))
        if cell == "G":
            self.board.put(end, self.symbols["player_on_goal"])
            return Step(f"{way}: the player reached the goal at {at}.", True, 1.0, "solved")
        if cell == "H":
            self.board.put(end, self.symbols["player_in_hole"])
            return Step(
                f"{way}: the player fell from {here} into the hole at {at}.", True, 0.0, "lost"
            )
        self.board.put(end, self.symbols["player"])
        return Step(f"{way}: the player moved from {here} to {at}.")

    def solve(self) -> list[str] | None:
        """A shortest path; on slippery ice, the next action of the best policy alone."""
        if self.options.is_slippery:
            left = self.max_turns - self.turn
            return [self._best_action(left)] if self._value(left, max) > 0 else None
        return safe_path(self._cells, self.width, self._player)

    def rules_text(self) -> str:
        """The true rules, with the meaning of each symbol of the current task."""
        told = super().rules_text()
        if self.options.is_slippery:  # apart: the template's phrases are tokens of nano's
            told += f"\n{prompting.render('frozenlake_slippery')}"
        return told

    def tell_solution(self) -> str:
        """A shortest path, which slippery ice does not have."""
        if self.options.is_slippery:
            return "The ice is slippery: no fixed sequence of actions is sure to solve the task."
        return super().tell_solution()

    def reference(self) -> Reference:
        """Shortest path, and the random and the best policy's value by dynamic programming."""
        path = safe_path(self._cells, self.width, self._player)
        within = path is not None and len(path) <= self.max_turns
        return Reference(
            difficulty=len(path) if path is not None and within else None,
            random=self._value(self.max_turns, _mean),
            ceiling=self._value(self.max_turns, max),
        )

    def _value(self, turns: int, choose: Callable[[list[float]], float]) -> float:
        """Chance of reaching the goal from here in `turns`, actions chosen by `max` or `_mean`."""
        return self._values(turns, choose)[self._player]

    def _values(self, turns: int, choose: Callable[[list[float]], float]) -> list[float]:
        values = [0.0] * len(self._cells)
        for _ in range(turns):
            values = [
                choose([self._chance(cell, action, values) for action in self.actions])
                if kind in "FS"
                else 0.0
                for cell, kind in enumerate(self._cells)
            ]
        return values

    def _chance(self, cell: int, action: str, values: list[float]) -> float:
        ways = _slips(action) if self.options.is_slippery else (action,)
        ends = [self._moves[way][cell] for way in ways]
        return sum(1.0 if end == self._goal else values[end] for end in ends) / len(ends)

    def _best_action(self, turns: int) -> str:
        values = self._values(turns - 1, max)
        return max(self.actions, key=lambda action: self._chance(self._player, action, values))

    @classmethod
    def splits(cls, options: opt.Options) -> dict[str, Callable[[str], Iterator[dict[str, Any]]]]:
        """Task sets by name."""
        return SPLITS

    @classmethod
    def read_tasks(cls, text: str, options: opt.Options) -> Iterator[task_files.Entry]:
        """Maps as people have them (`maps`), or tasks in JSON."""
        return maps.entries(text, cls.row_reader(options))

    def plain_params(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters, `desc` as rows of strings."""
        return {**params, "desc": maps.rows_of(params["desc"])} if "desc" in params else params

    def out_of_reach(self) -> bool:
        """Whether the shortest path takes more turns than there are, or there is none."""
        return not within_reach(self._cells, self.width, self._player, self.max_turns)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _slips(action: str) -> tuple[str, str, str]:
    sides = ("Left", "Right") if action in ("Up", "Down") else ("Up", "Down")
    return (action, *sides)
