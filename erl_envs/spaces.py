"""Text as a Gymnasium space, in whatever way an environment is vectorised."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import (
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

MAX_ACTION = 1 << 20
"""Characters of the longest message that the action space contains."""

MAX_OBSERVATION = 1 << 17
"""Characters of the longest observation; `AsyncVectorEnv` reserves 4 bytes for each."""


class UnicodeText(gym.spaces.Text):
    """Any string up to a length: `contains` takes all of Unicode, `sample` draws ASCII."""

    def __init__(self, max_length: int) -> None:
        """A space of strings of at most `max_length` characters."""
        printable = "".join(map(chr, range(32, 127))) + "\n\t"
        super().__init__(max_length, min_length=0, charset=printable)

    def contains(self, x: Any) -> bool:
        """Whether x is a string of at most `max_length` characters."""
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Up to 64 printable characters: a megabyte of noise would test nothing more."""
        if mask is None and probability is None:
            mask = (int(self.np_random.integers(0, 65)), None)
        return super().sample(mask, probability)


class SharedTexts(Sequence[str]):
    """The texts that processes have written into shared memory, read when they are asked for.

    Gymnasium reads a `Text` space's memory once, before anything is written, and hands out that.
    """

    def __init__(self, rows: np.ndarray[Any, Any]) -> None:
        """Args: rows: int32, (n, 1 + max_length): each a length, then as many code points."""
        self._rows = rows

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        """One text, or a tuple of those of a slice."""
        if isinstance(place, slice):
            return tuple(self)[place]
        row = self._rows[place]
        return row[1 : 1 + row[0]].tobytes().decode("utf-32-le", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        """The texts."""
        return (self[place] for place in range(len(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        """A copy that later steps leave alone: `AsyncVectorEnv` hands one out unless told not."""
        return tuple(self)


@create_shared_memory.register(UnicodeText)
def _create(space: UnicodeText, n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.Array("i", n * (1 + space.max_length))


@read_from_shared_memory.register(UnicodeText)
def _read(space: UnicodeText, shared_memory: Any, n: int = 1) -> SharedTexts:
    return SharedTexts(_rows(space, shared_memory))


@write_to_shared_memory.register(UnicodeText)
def _write(space: UnicodeText, index: int, value: str, shared_memory: Any) -> None:
    if len(value) > space.max_length:
        raise ValueError(f"a text of {len(value)} characters; the space has {space.max_length}")
    row = _rows(space, shared_memory)[index]
    row[0] = len(value)
    row[1 : 1 + len(value)] = np.frombuffer(value.encode("utf-32-le", "surrogatepass"), "<i4")


def _rows(space: UnicodeText, shared_memory: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(shared_memory.get_obj(), np.int32).reshape(-1, 1 + space.max_length)
