"""What earlier successes leave for later reflections: rulebooks that led to a solved task.

Memory is read at a step's start and written at its end, so that nothing depends on the order in
which a step's attempts are played (PAPER: What is wrong with the released code).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple


class Lesson(NamedTuple):
    """A rulebook whose second attempt succeeded.

    Attributes:
        opening: First observation of the task it was written for.
        rulebook: The text.
    """

    opening: str
    rulebook: str


class ReflectionMemory(ABC):
    """Rulebooks that helped before."""

    @abstractmethod
    def recall(self, opening: str) -> str | None:
        """The rulebook for a task with this first observation, None if there is none."""

    @abstractmethod
    def store(self, lessons: Sequence[Lesson]) -> None:
        """Keep what a step's successes taught."""

    @abstractmethod
    def state(self) -> Any:
        """What it holds, as JSON."""

    @abstractmethod
    def load(self, state: Any) -> None:
        """Hold what `state` gave."""


class NoMemory(ReflectionMemory):
    """Nothing is kept."""

    def recall(self, opening: str) -> str | None:
        """Nothing."""
        return None

    def store(self, lessons: Sequence[Lesson]) -> None:
        """Keep nothing."""

    def state(self) -> Any:
        """Nothing."""
        return None

    def load(self, state: Any) -> None:
        """Hold nothing."""


class LastMemory(ReflectionMemory):
    """One rulebook for all tasks (PAPER: Alg. 2): that of the step's most, then last, successes.

    Of a step's successful rulebooks the one is kept that succeeded most often, the last of them if
    several did: one lucky success under a wrong rulebook should not outvote many under a right one.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.rulebook: str | None = None

    def recall(self, opening: str) -> str | None:
        """The rulebook."""
        return self.rulebook

    def store(self, lessons: Sequence[Lesson]) -> None:
        """Keep the step's best rulebook, if there is one."""
        rulebooks = [lesson.rulebook for lesson in lessons]
        if rulebooks:
            self.rulebook = max(reversed(rulebooks), key=rulebooks.count)

    def state(self) -> Any:
        """The rulebook."""
        return self.rulebook

    def load(self, state: Any) -> None:
        """Hold a rulebook."""
        self.rulebook = state


class RetrievalMemory(ReflectionMemory):
    """Many rulebooks; a task recalls that of the task whose opening shares most of its words.

    The extension that the paper names (PAPER: App. A) but does not test.
    """

    def __init__(self, size: int = 512) -> None:
        """Hold at most `size` rulebooks, the newest."""
        self.size = size
        self.lessons: list[tuple[str, str]] = []

    def recall(self, opening: str) -> str | None:
        """The rulebook of the most similar opening, the newest of equals."""
        if not self.lessons:
            return None
        own = Counter(opening.split())
        _, rulebook = max(reversed(self.lessons), key=lambda lesson: _overlap(own, lesson[0]))
        return rulebook

    def store(self, lessons: Sequence[Lesson]) -> None:
        """Keep all, the oldest falling out."""
        self.lessons += [(lesson.opening, lesson.rulebook) for lesson in lessons]
        self.lessons = self.lessons[-self.size :]

    def state(self) -> Any:
        """Openings and rulebooks."""
        return [list(lesson) for lesson in self.lessons]

    def load(self, state: Any) -> None:
        """Hold openings and rulebooks."""
        self.lessons = [(opening, rulebook) for opening, rulebook in state]


def _overlap(words: Counter[str], text: str) -> float:
    """Jaccard similarity of word counts: boards of one size and mix of cells are alike."""
    other = Counter(text.split())
    return (words & other).total() / max(1, (words | other).total())


def load_memory(kind: str) -> ReflectionMemory:
    """A memory of a kind that `Config.memory` names, empty."""
    kinds = {"none": NoMemory, "last": LastMemory, "retrieval": RetrievalMemory}
    return kinds[kind]()
