"""Boards: the paper's generator exactly, and the task sets."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from erl_envs.grid import (
    MAX_SIDE,
    check_rows,
    neighbours,
    shortest_path,
    split_table,
    stream,
    take_split,
)

PAPER_SIZES, PAPER_P = (2, 9), (0.6, 0.85)
_MAX_DRAWS = 10_000


def draw_task(
    rng: np.random.Generator, size: tuple[int, int], p: tuple[float, float]
) -> dict[str, Any]:
    """Parameters of a task: a seed, a uniform side and a uniform share of frozen cells."""
    return {
        "seed": int(rng.integers(100_000)),
        "size": int(rng.integers(size[0], size[1] + 1)),
        "p": float(rng.uniform(*p)),
    }


_SAFE = str.maketrans("SFGH", "1110")


def safe_path(cells: str, width: int, start: int) -> list[str] | None:
    """A shortest path to the goal past the holes, None if there is none."""
    moves = neighbours(len(cells) // width, width)

    def safe_moves(cell: int) -> Iterator[tuple[str, int]]:
        for action, ends in moves.items():
            if cells[ends[cell]] != "H":
                yield action, ends[cell]

    return shortest_path(start, cells.index("G").__eq__, safe_moves)


def within_reach(cells: str, width: int, start: int, moves: int) -> bool:
    """Whether the goal can be reached past the holes in so many moves.

    `safe_path` says so too; this is for every reset. A set of cells is a number's bits, and one
    move of all of them a few shifts.
    """
    first, last = _edges(len(cells) // width, width)
    safe, goal, reached = int(cells[::-1].translate(_SAFE), 2), 1 << cells.index("G"), 1 << start
    for _ in range(moves):
        before = reached
        beside = (reached & ~last) << 1 | (reached & ~first) >> 1
        reached |= (beside | reached << width | reached >> width) & safe
        if reached & goal or reached == before:
            break
    return bool(reached & goal)


@functools.lru_cache(maxsize=256)
def _edges(height: int, width: int) -> tuple[int, int]:
    """The cells of the first column, and of the last one."""
    first = sum(1 << row * width for row in range(height))
    return first, first << width - 1


def board_of(params: Mapping[str, Any]) -> tuple[str, int]:
    """A task's board as row-major cells of `S`, `G`, `F`, `H`, and its width.

    Raises:
        ValueError: The parameters are not a FrozenLake task's.
    """
    fields = set(params) - {"max_turns"}
    if fields == {"desc"}:
        rows = check_rows(params["desc"], "desc", "SFHG")
        for number, row in enumerate(rows, 1):
            if len(row) != len(rows[0]):
                raise ValueError(f"desc line {number} is not as long as line 1: {row!r}")
        cells = "".join(rows)
        if cells.count("S") != 1 or cells.count("G") != 1:
            raise ValueError("desc must hold exactly one S (start) and one G (goal)")
        return cells, len(rows[0])
    if fields != {"seed", "size", "p"}:
        raise ValueError(
            f"a frozenlake task has the fields seed, size and p, or desc; got {sorted(params)}"
        )
    seed, size, p = params["seed"], params["size"], params["p"]
    if type(seed) is not int or seed < 0:
        raise ValueError(f"task field seed must be a whole number from 0: {seed!r}")
    if type(size) is not int or not 2 <= size <= MAX_SIDE:
        raise ValueError(f"task field size must be a whole number from 2 to {MAX_SIDE}: {size!r}")
    if not isinstance(p, int | float) or not 0 < p <= 1:
        raise ValueError(f"task field p must be a number above 0 and at most 1: {p!r}")
    return generate(seed, size, p), size


def generate(seed: int, size: int, p: float) -> str:
    """The paper's board of a seed, exactly: row-major cells of `S`, `G`, `F`, `H`.

    Draws cells, then start and goal, then all again until `_near` accepts. `rng.random() ≥ cdf`
    is what `Generator.choice(["F", "H"], p=[p, 1 - p])` computes, without its checks.

    Raises:
        ValueError: No acceptable board came in 10,000 draws.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    share = p / (p + (1 - p))
    for _ in range(_MAX_DRAWS):
        holes = (rng.random(size * size) >= share).tobytes()
        while True:
            r, c, goal_r, goal_c = rng.integers(0, size, 4).tolist()
            if (r, c) != (goal_r, goal_c):
                break
        start, goal = r * size + c, goal_r * size + goal_c
        if _near(holes, start, goal, size):
            cells = ["H" if hole else "F" for hole in holes]
            cells[start], cells[goal] = "S", "G"
            return "".join(cells)
    raise ValueError(f"no solvable board of size {size} with p={p} in {_MAX_DRAWS} draws")


def _near(holes: bytes, start: int, goal: int, size: int) -> bool:
    """The paper's depth-limited search, whose order decides which boards it accepts.

    Last in, first out; a popped cell deeper than 5 is skipped before it is marked; neighbours
    come down, right, up, left.
    """
    moves = neighbours(size, size)
    ways = [moves[action] for action in ("Down", "Right", "Up", "Left")]
    frontier, discovered = [(start, 0)], set()
    while frontier:
        cell, depth = frontier.pop()
        if depth > 5 or cell in discovered:
            continue
        discovered.add(cell)
        for way in ways:
            end = way[cell]
            if end == goal:
                return True
            if end != cell and (not holes[end] or end == start):
                frontier.append((end, depth + 1))
    return False


def _paper(part: str) -> Iterator[dict[str, Any]]:
    """The paper's 10,000 train or 100 test tasks: one legacy generator, drawn in a fixed order."""
    rng = np.random.RandomState(42)  # a private one; the authors seeded the global
    seeds = {name: rng.randint(0, 100_000, n) for name, n in (("train", 10_000), ("test", 100))}
    sizes = {name: rng.randint(2, 10, len(seeds[name])) for name in ("train", "test")}
    ps = {name: rng.uniform(*PAPER_P, len(seeds[name])) for name in ("train", "test")}
    for seed, size, p in zip(seeds[part], sizes[part], ps[part], strict=True):
        yield {"seed": int(seed), "size": int(size), "p": float(p)}


def _ours(split: str, count: int, salt: str) -> Iterator[dict[str, Any]]:
    """The paper's generator from side 3, each board in one split and once."""
    return take_split(split, count, _draws(stream(949, salt), (3, 9)))


def _small(split: str, count: int, salt: str) -> Iterator[dict[str, Any]]:
    """Boards of side 5, for small models."""
    return take_split(split, count, _draws(stream(953, salt), (5, 5)))


def _draws(
    rng: np.random.Generator, size: tuple[int, int]
) -> Iterator[tuple[object, dict[str, Any]]]:
    while True:
        params = draw_task(rng, size, PAPER_P)
        yield generate(**params), params


def _hard(salt: str) -> Iterator[dict[str, Any]]:
    """100 boards of side 10 to 12 whose shortest path takes 9 to 16 of 20 turns."""

    def draws() -> Iterator[tuple[object, dict[str, Any]]]:
        rng = stream(950, salt)
        while True:
            size = int(rng.integers(10, 13))
            holes = rng.random(size * size) >= rng.uniform(*PAPER_P)
            cells = ["H" if hole else "F" for hole in holes]
            start, goal = rng.choice(size * size, 2, replace=False).tolist()
            cells[start], cells[goal] = "S", "G"
            text = "".join(cells)
            path = safe_path(text, size, start)
            if path is not None and 9 <= len(path) <= 16:
                rows = [text[i : i + size] for i in range(0, len(text), size)]
                yield text, {"desc": rows, "max_turns": 20}

    return take_split("hard", 100, draws())


SPLITS = split_table(_ours, _small, _hard, _paper)
