"""Questions and the corpora they are asked of: fictional worlds, files of questions, the hub.

A source string is `world`, `file:PATH` (a layout that `rows` knows; `strict-file:PATH` takes no bad
row), or `hub[:CONFIG[:PATH]]` with CONFIG `distractor` or `fullwiki`, and PATH a local copy in the
hub's layout. HotpotQA's own data is under CC BY-SA 4.0 (Yang et al., 2018); the worlds are this
project's.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from erl_envs.extras import missing_extra
from erl_envs.hotpotqa import rows
from erl_envs.hotpotqa.rows import Question
from erl_envs.retrieval import Corpus
from erl_envs.task_files import Sorted, TaskFile, entry_of, sort

if TYPE_CHECKING:
    from erl_envs.worlds import World

HUB_ID = "hotpotqa/hotpot_qa"
PAPER_TEST = 1_024
"""The paper tests on the first so many validation questions."""

SMALL = {"small-train": 800, "small-test": 100}
"""Task sets for small models: the first so many of `train` and `test` that `is_chain` takes."""

MAX_FILE = 2 << 30
"""Bytes of a file of questions: HotpotQA's 90,000 of `train` take a quarter."""


class Source(ABC):
    """Where questions come from. A *part* is a list of questions that share a corpus."""

    @abstractmethod
    def parts(self) -> Sequence[str]:
        """Names of the parts; the first one is what fresh tasks are drawn from."""

    @abstractmethod
    def questions(self, part: str) -> Sequence[Question]:
        """A part's questions."""

    @abstractmethod
    def corpus(self, part: str) -> Corpus:
        """A part's corpus."""

    def has(self, part: str) -> bool:
        """Whether there is such a part."""
        return part in self.parts()

    def require(self, part: str) -> None:
        """Raise ValueError where there is no such part."""
        if not self.has(part):
            raise ValueError(f"no corpus {part!r:.100}; valid: {', '.join(self.parts())}")

    def salted(self, part: str, salt: str) -> str:
        """The part that a salt makes of one.

        Raises:
            ValueError: There are no others than the source's own.
        """
        raise ValueError(f"{part} is what it is: it takes no salt")

    def splits(self) -> dict[str, tuple[str, int | None]]:
        """Task sets: name → part and how many of its first questions."""
        return {part: (part, None) for part in self.parts()}


def task_params(question: Question, part: str) -> dict[str, Any]:
    """A question as a task's parameters; its corpus is named, not carried."""
    kept = ("question", "answer", "aliases", "supporting_facts", "type", "hops")
    return {**{key: question[key] for key in kept if key in question}, "corpus": part}


def titles(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Titles of the passages that a question rests on, each once."""
    return tuple(dict.fromkeys(title for title, _ in params.get("supporting_facts", [])))


def split_params(source: Source) -> dict[str, Callable[[str], Iterator[dict[str, Any]]]]:
    """The task sets of a source."""

    def tasks(part: str, count: int | None, salt: str) -> Iterator[dict[str, Any]]:
        part = source.salted(part, salt) if salt else part
        for question in source.questions(part)[:count]:
            yield task_params(question, part)

    return {
        name: functools.partial(tasks, part, count)
        for name, (part, count) in source.splits().items()
    }


@functools.cache
def open_source(text: str) -> Source:
    """The source of a string; nothing is read before it is asked for.

    Raises:
        ValueError: There is no such kind of source; the message lists those there are.
    """
    kind, _, rest = text.partition(":")
    if text == "world":
        return WorldSource()
    if file := TaskFile.of(text):
        return FileSource(file)
    if kind == "hub":
        config, _, path = rest.partition(":")
        if (config or "distractor") in ("distractor", "fullwiki"):
            return HubSource(config or "distractor", path or HUB_ID)
    raise ValueError(
        f"bad value {text!r} for data; valid: 'world', 'file:PATH', "
        "'hub:distractor[:PATH]', 'hub:fullwiki[:PATH]'"
    )


class WorldSource(Source):
    """Fictional worlds, one a split."""

    def parts(self) -> Sequence[str]:
        """The splits of ours."""
        return ("train", "test", "hard", *SMALL)

    def splits(self) -> dict[str, tuple[str, int | None]]:
        """The splits of ours."""
        return {part: (part, SMALL.get(part)) for part in self.parts()}

    def questions(self, part: str) -> Sequence[Question]:
        """The world's questions, or those for small models."""
        questions = self._world(part).questions
        small = part.startswith("small-")
        return [q for q in questions if is_chain(q)] if small else questions

    def corpus(self, part: str) -> Corpus:
        """Every passage of the world."""
        return self._world(part).corpus

    def has(self, part: str) -> bool:
        """Whether there is such a part; each has salted ones."""
        return part.partition("@")[0] in self.parts()

    def salted(self, part: str, salt: str) -> str:
        """The part of another world."""
        return f"{part}@{salt}"

    def _world(self, part: str) -> World:
        from erl_envs.worlds import split_world

        return split_world(part.removeprefix("small-"))


def is_chain(question: Question) -> bool:
    """Whether two searches answer it: for what it names, and for what is found there."""
    facts, context = question["supporting_facts"], dict(question["context"])
    if question["type"] != "bridge" or len(facts) != 2:
        return False
    (first, number), (second, _) = facts
    return second in context[first][number]


class FileSource(Source):
    """A file of questions; its corpus is the pooled contexts."""

    def __init__(self, file: TaskFile) -> None:
        """A source of a file."""
        self._questions = functools.cache(lambda: read_questions(file))
        self._corpus = functools.cache(lambda: Corpus.of_questions(self._questions()))

    def parts(self) -> Sequence[str]:
        """One part."""
        return ("all",)

    def splits(self) -> dict[str, tuple[str, int | None]]:
        """All, and the first 1,024 (the paper's, if it is HotpotQA's validation file)."""
        return {"all": ("all", None), "test": ("all", None), "paper-test": ("all", PAPER_TEST)}

    def questions(self, part: str) -> Sequence[Question]:
        """The file's questions in order."""
        return self._questions()

    def corpus(self, part: str) -> Corpus:
        """The pooled contexts."""
        return self._corpus()


class HubSource(Source):
    """HotpotQA through the `datasets` library: the hub's copy, or a local one in its layout."""

    def __init__(self, config: str, path: str) -> None:
        """A source; nothing is loaded yet."""
        self.config, self.path = config, path
        self._questions = functools.cache(self._load)
        self._corpus = functools.cache(lambda part: Corpus.of_questions(self._questions(part)))

    def parts(self) -> Sequence[str]:
        """The hub's splits."""
        return ("train", "validation")

    def splits(self) -> dict[str, tuple[str, int | None]]:
        """The hub's splits, and the paper's test set."""
        return {**super().splits(), "paper-test": ("validation", PAPER_TEST)}

    def questions(self, part: str) -> Sequence[Question]:
        """A split's questions in order."""
        return self._questions(part)

    def corpus(self, part: str) -> Corpus:
        """A split's pooled contexts."""
        return self._corpus(part)

    def _load(self, part: str) -> Sequence[Question]:
        try:
            import datasets
        except ImportError as error:
            raise missing_extra("hub data", "data", error) from error
        try:
            found = datasets.load_dataset(self.path, self.config, split=part)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"cannot load {self.path} ({self.config}, {part}): {reason}"
            ) from error
        entries = (entry_of(f"row {n}", row, rows.with_context) for n, row in enumerate(found, 1))
        return _kept(sort(entries, f"{self.path} {part}", "questions"))


def read_questions(file: TaskFile) -> tuple[Question, ...]:
    """The questions of a file.

    Raises:
        ValueError: It cannot be read, holds none, or is strictly read and holds what is none.
    """
    return _kept(file.sort(rows.questions(file.text(MAX_FILE)), "questions"))


def _kept(found: Sorted) -> tuple[Question, ...]:
    return tuple(entry.params for entry in found.kept if entry.params is not None)
