"""What a retriever is: a query in, passages out, best first."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from erl_envs.core import EnvError, digest


class RetrievalError(EnvError):
    """A retriever could not search: the attempt that asked becomes invalid, never a zero."""


@dataclass(frozen=True)
class Passage:
    """A titled text."""

    title: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Passages to search, in an order that is part of their identity.

    Attributes:
        passages: No two have the same title and text.
    """

    passages: tuple[Passage, ...]

    @cached_property
    def hash(self) -> str:
        """Content hash: names the index on disk, and goes into a run's results."""
        return digest([[passage.title, passage.text] for passage in self.passages])

    @classmethod
    def of_questions(cls, questions: Sequence[Mapping[str, Any]]) -> Corpus:
        """The pooled contexts of questions in HotpotQA's JSON schema, each passage once.

        A paragraph's sentences are joined with the empty string: all but the first start with a
        space in the real data.
        """
        found = {
            Passage(title, "".join(sentences)): None
            for question in questions
            for title, sentences in question["context"]
        }
        return cls(tuple(found))

    @classmethod
    def of_json_lines(cls, path: Path) -> Corpus:
        """The passages of a file with an object `{"title", "text"}` a line, each once.

        Raises:
            ValueError: The file cannot be read or is empty, or a line is malformed and named.
        """
        try:
            with path.open(encoding="utf-8") as file:
                lines = list(file)  # `splitlines` ends them at characters that texts may hold
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {path}: {error}") from error
        found: dict[Passage, None] = {}
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                title, text = entry["title"], entry["text"]
                if not (isinstance(title, str) and isinstance(text, str)):
                    raise TypeError("title and text must be strings")
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} line {number} is no passage: {error!r}") from error
            found[Passage(title, text)] = None
        if not found:
            raise ValueError(f"{path} holds no passage")
        return cls(tuple(found))


class Retriever(ABC):
    """Searches; safe to call from several threads at a time, and so shared by all who search."""

    name: str

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same one: a copied environment searches with the original's."""
        return self

    @abstractmethod
    def search(self, query: str, top_k: int) -> list[Passage]:
        """The best passages for a query, best first; fewer where there are not so many.

        Raises:
            RetrievalError: The search failed.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of connections and files."""
