"""What both games share: symbol maps, incremental text boards, breadth-first search."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from erl_envs import prompting
from erl_envs.core import MAX_TURNS, Options, TextEnv, digest

State = TypeVar("State", bound=Hashable)

DIRECTIONS: Mapping[str, tuple[int, int]] = {
    "Up": (-1, 0),
    "Down": (1, 0),
    "Left": (0, -1),
    "Right": (0, 1),
}
"""Action word → (row, column) step; row 0 is the top."""

MAX_SIDE = 64
"""Cells of a board's longest side."""


@dataclass(frozen=True, kw_only=True)
class GridOptions(Options):
    """Options of a game on a grid.

    Attributes:
        symbols: `opaque` (the paper's letters), `canonical` (the usual ones), `random` (the opaque
            ones permuted, drawn from the task's content), or a mapping from role to character.
        coordinates: Show each cell's row and column behind its symbol (`A2,3`), and name places
            so in feedback, for models that cannot count.
    """

    symbols: Literal["opaque", "canonical", "random"] | Mapping[str, str] = "opaque"
    coordinates: bool = False


# boards of tasks that a stranger gives have any size: what is kept of them has an end
_kept = functools.lru_cache(maxsize=64)


@_kept
def neighbours(height: int, width: int) -> dict[str, tuple[int, ...]]:
    """For each action, each row-major cell's neighbour; at the edge, the cell itself."""
    return {
        action: tuple(
            (r + dr) * width + c + dc
            if 0 <= r + dr < height and 0 <= c + dc < width
            else r * width + c
            for r in range(height)
            for c in range(width)
        )
        for action, (dr, dc) in DIRECTIONS.items()
    }


class Board:
    r"""A grid as text, edited cell by cell: a cell is `" X \t"`, rows are joined by newlines."""

    def __init__(self, symbols: Sequence[str], width: int, coordinates: bool = False) -> None:
        r"""A board of row-major symbols; with coordinates, a cell is `" X2,3 \t"`."""
        labels = _labels(len(symbols), width, coordinates)
        cells = [f" {symbol}{label} \t" for symbol, label in zip(symbols, labels, strict=True)]
        rows = ("".join(cells[i : i + width]) for i in range(0, len(cells), width))
        self.text = "\n".join(rows)
        self._offsets = _offsets(labels, width)

    def put(self, cell: int, symbol: str) -> None:
        """Show a symbol in a cell."""
        at = self._offsets[cell]
        self.text = f"{self.text[:at]}{symbol}{self.text[at + 1 :]}"


@_kept
def _labels(cells: int, width: int, coordinates: bool) -> tuple[str, ...]:
    if not coordinates:
        return ("",) * cells
    return tuple(f"{cell // width + 1},{cell % width + 1}" for cell in range(cells))


@_kept
def _offsets(labels: tuple[str, ...], width: int) -> tuple[int, ...]:
    """Where each cell's symbol stands in the text."""
    before = itertools.accumulate((4 + len(label) for label in labels), initial=0)
    return tuple(start + cell // width + 1 for cell, start in enumerate(before))[: len(labels)]


def shortest_path(
    start: State,
    done: Callable[[State], bool],
    moves: Callable[[State], Iterable[tuple[str, State]]],
) -> list[str] | None:
    """The actions of a shortest path by breadth-first search, None if there is none."""
    if done(start):
        return []
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    frontier = deque([start])
    while frontier:
        state = frontier.popleft()
        for action, successor in moves(state):
            if successor in came_from:
                continue
            came_from[successor] = (state, action)
            if done(successor):
                return _actions_to(successor, came_from)
            frontier.append(successor)
    return None


def _actions_to(state: State, came_from: Mapping[State, tuple[State, str] | None]) -> list[str]:
    path: list[str] = []
    while (step := came_from[state]) is not None:
        state, action = step
        path.append(action)
    return path[::-1]


def place(cell: int, width: int, coordinates: bool = False) -> str:
    """A cell in words, counted from 1 at the top left; or as boards with coordinates show it."""
    row, column = cell // width + 1, cell % width + 1
    return f"{row},{column}" if coordinates else f"row {row}, column {column}"


def split_of(board: object) -> str:
    """The one split of ours that a board may stand in, told by the board's own content hash.

    So no two splits can share a board, and each is generated without knowing the others.
    """
    bucket = int(digest(board)[:8], 16) % 10
    return {0: "test", 1: "hard"}.get(bucket, "train")


def take_split(
    split: str, count: int, draws: Iterator[tuple[object, dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """The first `count` distinct boards of `split` among (board, params) draws."""
    seen: set[str] = set()
    for board, params in draws:
        key = digest(board)
        if split_of(board) == split and key not in seen:
            seen.add(key)
            yield params
            if len(seen) == count:
                return


def stream(number: int, salt: str) -> np.random.Generator:
    """What a task set is drawn with; a salt gives another set of the same distribution."""
    words = [int(digest(salt)[:16], 16)] if salt else []
    return np.random.default_rng([20_260_213, number, *words])


SLACK = 4
"""Turns beyond a shortest solution, where that takes more than the usual turns."""


def own_turns(moves: int) -> dict[str, int]:
    """The `max_turns` of a task from a file that so many moves solve; none where the usual do.

    Raises:
        ValueError: No task may have so many turns.
    """
    if moves > MAX_TURNS:
        raise ValueError(f"a solution takes {moves:,} moves; {MAX_TURNS:,} turns are the most")
    usual = moves <= TextEnv.default_max_turns
    return {} if usual else {"max_turns": min(moves + SLACK, MAX_TURNS)}


Params = Iterator[dict[str, Any]]


def split_table(
    ours: Callable[[str, int, str], Params],
    small: Callable[[str, int, str], Params],
    hard: Callable[[str], Params],
    paper: Callable[[str], Params],
) -> dict[str, Callable[[str], Params]]:
    """A game's task sets by name, of the functions that draw ours, small, hard and the paper's.

    Each takes a salt; the paper's sets are what they are.
    """

    def theirs(part: str, salt: str) -> Params:
        if salt:
            raise ValueError(f"paper-{part} is the paper's own: it takes no salt")
        return paper(part)

    return {
        "train": partial(ours, "train", 10_000),
        "test": partial(ours, "test", 200),
        "small-train": partial(small, "train", 800),
        "small-test": partial(small, "test", 100),
        "hard": hard,
        "paper-train": partial(theirs, "train"),
        "paper-test": partial(theirs, "test"),
    }


class GridEnv(TextEnv):
    """A game on a grid of symbols, played with Up, Down, Left and Right.

    Attributes:
        opaque: Role → the paper's letter.
        canonical: Role → the usual character.
        symbols: Role → character, for the current task.
    """

    actions = tuple(DIRECTIONS)
    Options = GridOptions
    options: GridOptions
    opaque: ClassVar[Mapping[str, str]]
    canonical: ClassVar[Mapping[str, str]]

    def __init__(self, /, render_mode: str | None = None, **options: Any) -> None:
        """See `TextEnv`; also checks a symbol mapping against the game's roles."""
        super().__init__(render_mode, **options)
        self.symbols: Mapping[str, str] = self.opaque
        self.board: Board
        self._choose_symbols({})

    def _choose_symbols(self, params: Mapping[str, Any]) -> None:
        """Set `self.symbols` for a task.

        Raises:
            ValueError: A given mapping lacks a role, has an unknown one, or repeats a character.
        """
        choice = self.options.symbols
        if isinstance(choice, Mapping):
            if set(choice) != set(self.opaque):
                raise ValueError(f"symbols must map each of {', '.join(self.opaque)}")
            characters = list(choice.values())
            if any(len(c) != 1 or not c.isprintable() for c in characters):
                raise ValueError(
                    f"symbols must be single printable characters, got {characters!s:.100}"
                )
            if len(set(characters)) < len(characters):
                raise ValueError(f"symbols must differ from each other, got {characters}")
            self.symbols = choice
        elif choice == "random":
            rng = np.random.default_rng(int(digest(params)[:16], 16))
            letters = list(self.opaque.values())
            order = rng.permutation(len(letters))
            self.symbols = {role: letters[i] for role, i in zip(self.opaque, order, strict=True)}
        else:
            self.symbols = self.canonical if choice == "canonical" else self.opaque

    def observe(self) -> str:
        """The board."""
        return self.board.text

    def rules_text(self) -> str:
        """The true rules, with the meaning of each symbol of the current task."""
        return prompting.render(f"{self.name}_rules", **self.symbols)

    def tell_transitions(self, notes: Sequence[str]) -> list[str]:
        """What each turn did, a line each."""
        lead = "Rows and columns count from 1 at the top left."
        return [lead, *super().tell_transitions(notes)]


def check_rows(rows: object, field: str, characters: str) -> list[str]:
    """A board given as rows of characters.

    Raises:
        ValueError: It is no list of non-empty strings, is too large, or a line holds another
            character.
    """
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise ValueError(f"task field {field} must be a list of strings, got {rows!r:.100}")
    if len(rows) > MAX_SIDE:
        raise ValueError(f"{field} has {len(rows)} lines; {MAX_SIDE} are the most")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, str) or not 0 < len(row) <= MAX_SIDE:
            raise ValueError(
                f"{field} line {number} must be a non-empty string of at most {MAX_SIDE} "
                f"characters, got {row!r:.100}"
            )
        if bad := sorted(set(row) - set(characters)):
            raise ValueError(
                f"{field} line {number} holds {bad[0]!r}; valid characters: {characters!r}: {row!r}"
            )
    return list(rows)
