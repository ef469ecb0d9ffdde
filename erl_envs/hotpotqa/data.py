"""Questions and the corpora they are asked of: fictional worlds, HotpotQA files, the hub.

A source string is `world`, `file:PATH` (HotpotQA's JSON), or `hub[:CONFIG[:PATH]]` with CONFIG
`distractor` or `fullwiki`, and PATH a local copy in the hub's layout. HotpotQA's own data is under
CC BY-SA 4.0 (Yang et al., 2018); the worlds are this project's.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erl_envs.extras import missing_extra
from erl_envs.retrieval import Corpus

if TYPE_CHECKING:
    from erl_envs.worlds import World

HUB_ID = "hotpotqa/hotpot_qa"
PAPER_TEST = 1_024
"""The paper tests on the first so many validation questions."""

SMALL = {"small-train": 800, "small-test": 100}
"""Task sets for small models: the first so many of `train` and `test` that `is_chain` takes."""

Question = Mapping[str, Any]
"""A question in HotpotQA's JSON schema: `_id`, `question`, `answer`, `context`, …"""


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
    kept = ("question", "answer", "supporting_facts", "type", "hops")
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
    if kind == "file" and rest:
        return FileSource(Path(rest))
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
    """A file in HotpotQA's JSON schema; its corpus is the pooled contexts."""

    def __init__(self, path: Path) -> None:
        """A source of the file at `path`."""
        self.path = path
        self._questions = functools.cache(lambda: read_questions(path))
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
            rows = datasets.load_dataset(self.path, self.config, split=part)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"cannot load {self.path} ({self.config}, {part}): {reason}"
            ) from error
        where = f"{self.path} {part}"
        return tuple(check_question(_of_row(row), where, n) for n, row in enumerate(rows, 1))


def _of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The hub keeps lists of structures as structures of lists."""
    facts, context = row["supporting_facts"], row["context"]
    return {
        **{key: row[key] for key in ("question", "answer", "type", "level")},
        "_id": row["id"],
        "supporting_facts": list(zip(facts["title"], facts["sent_id"], strict=True)),
        "context": list(zip(context["title"], context["sentences"], strict=True)),
    }


def read_questions(path: Path) -> tuple[Question, ...]:
    """The questions of a HotpotQA JSON file.

    Raises:
        ValueError: It cannot be read; the message names the line, or the question and the field.
    """
    try:
        questions = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {error.lineno} is no JSON: {error.msg}") from error
    if not isinstance(questions, list) or not questions:
        raise ValueError(f"{path} must hold a list of questions")
    return tuple(check_question(question, str(path), n) for n, question in enumerate(questions, 1))


def check_question(question: Any, where: str, number: int) -> Question:
    """A question whose fields are what they should be; its facts and context as plain lists.

    Raises:
        ValueError: A field is missing or malformed; the message names it and the question.
    """

    def fail(field: str, wanted: str) -> ValueError:
        return ValueError(f"{where} question {number}: field {field} must be {wanted}")

    if not isinstance(question, Mapping):
        raise ValueError(f"{where} question {number} must be an object")
    for field in ("question", "answer"):
        if not isinstance(question.get(field), str) or not question[field].strip():
            raise fail(field, "a non-empty string")
    context = question.get("context")
    if not isinstance(context, Sequence) or isinstance(context, str) or not context:
        raise fail("context", "a non-empty list of [title, sentences]")
    for entry in context:
        if not (_is_pair(entry) and isinstance(entry[0], str) and _is_strings(entry[1])):
            raise fail("context", f"a list of [title, sentences]; it holds {str(entry)[:60]!r}")
    facts = question.get("supporting_facts", [])
    if not are_facts(facts):
        raise fail("supporting_facts", "a list of [title, sentence number]")
    return {
        **question,
        "supporting_facts": [list(fact) for fact in facts],
        "context": [[title, list(sentences)] for title, sentences in context],
    }


def are_facts(value: object) -> bool:
    """Whether it is a list of [title, sentence number]."""
    return isinstance(value, Sequence) and all(
        _is_pair(fact) and isinstance(fact[0], str) and type(fact[1]) is int for fact in value
    )


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def _is_strings(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(item, str) for item in value)
    )
