"""Questions as files hold them, in any of the usual layouts, made HotpotQA's own.

HotpotQA's JSON and the hub's rows of it, 2WikiMultihopQA's (the same with `evidences`), MuSiQue's
(`paragraphs`), and plain rows of a question and its answer or answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from erl_envs.hotpotqa.task import check_task
from erl_envs.json_rows import json_rows
from erl_envs.task_files import Entry, entry_of, params_of

Question = Mapping[str, Any]
"""A question in HotpotQA's JSON schema: `question`, `answer`, `context`, … and `aliases`, other
answers that are as right."""

_AS_THEY_ARE = ("question", "corpus", "hops", "max_turns", "type")
_ANSWERS = ("answer", "answers", "golden_answers", "answer_aliases", "aliases")


def questions(text: str) -> Iterator[Entry]:
    """The questions of a file; one that has no paragraphs is none.

    Raises:
        ValueError: The text as a whole is no JSON.
    """
    return (entry_of(place, row, with_context) for place, row in _unwrapped(text))


def tasks(text: str, name: str, require: Callable[[str], None] | None) -> Iterator[Entry]:
    """The tasks of a file: of its questions, or as they were exported.

    Args:
        text: The file's.
        name: The environment's.
        require: Raises ValueError where there is no corpus of a name. None where no corpus is
            searched, and so a question need not bring paragraphs, nor name one.

    Raises:
        ValueError: The text as a whole is no JSON.
    """

    def read(row: Any) -> Mapping[str, Any]:
        params = params_of(name, row)
        if params is row:
            alone = require is None or "corpus" in row
            params = question_of(row) if alone else with_context(row)
        check_task(params)
        if require is not None and "corpus" in params:
            require(params["corpus"])
        return params

    return (entry_of(place, row, read) for place, row in _unwrapped(text))


def _unwrapped(text: str) -> Iterator[tuple[str, Any]]:
    """The rows; those of an object that holds them as `rows` (the hub's server) or `data`."""
    for place, row in json_rows(text):
        inner = row.get("rows", row.get("data")) if isinstance(row, Mapping) else None
        if isinstance(inner, list):
            for number, value in enumerate(inner, 1):
                wrapped = isinstance(value, Mapping) and isinstance(value.get("row"), Mapping)
                yield f"row {number}", value["row"] if wrapped else value
        else:
            yield place, row


def with_context(row: Any) -> dict[str, Any]:
    """The question of a row, with the paragraphs that are searched.

    Raises:
        ValueError: As `question_of`, or it has none.
    """
    found = question_of(row)
    if "context" not in found:
        raise ValueError("the question has no paragraphs to search")
    return found


def question_of(row: Any) -> dict[str, Any]:
    """The question of a row in any layout: its fields checked, none of them empty.

    Raises:
        ValueError: A field is missing or malformed; the message names it.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"a question must be an object, not {row!r:.60}")
    if row.get("answerable") is False:
        raise ValueError("the question is marked as not answerable")
    found = {field: row[field] for field in _AS_THEY_ARE if row.get(field) is not None}
    found |= _answers(row)
    if "paragraphs" in row:
        found |= _of_paragraphs(row["paragraphs"])
    else:
        found["context"] = _pairs(row.get("context"), "title", "sentences", "content")
        found["supporting_facts"] = _pairs(row.get("supporting_facts"), "title", "sent_id")
    for field in ("aliases", "context", "supporting_facts"):
        if found[field] in (None, []):
            del found[field]
    check_task(found)
    for field in ("context", "supporting_facts"):
        if field in found:
            found[field] = [list(pair) for pair in found[field]]
    return found


def _answers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The accepted answers: the one that is told, and the others."""
    given = [row[field] for field in _ANSWERS if row.get(field) not in (None, "", [])]
    flat = [answer for some in given for answer in (some if isinstance(some, list) else [some])]
    aliases = [alias for n, alias in enumerate(flat) if alias != "" and alias not in flat[:n]]
    return {"answer": aliases[0] if aliases else "", "aliases": aliases[1:]}


def _of_paragraphs(paragraphs: Any) -> dict[str, Any]:
    """MuSiQue's paragraphs as context and supporting facts."""
    if not isinstance(paragraphs, list):
        raise ValueError("field paragraphs must be a list")
    for paragraph in paragraphs:
        if not isinstance(paragraph, Mapping) or not all(
            isinstance(paragraph.get(field), str) for field in ("title", "paragraph_text")
        ):
            raise ValueError("field paragraphs must hold objects with title and paragraph_text")
    needed = [paragraph["title"] for paragraph in paragraphs if paragraph.get("is_supporting")]
    return {
        "context": [[p["title"], [p["paragraph_text"]]] for p in paragraphs],
        "supporting_facts": [[title, 0] for title in dict.fromkeys(needed)],
    }


def _pairs(value: Any, first: str, *second: str) -> Any:
    """A list of pairs, which the hub keeps as a pair of lists, and some copies as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, Mapping) and first in value:
        other = next((value[name] for name in second if name in value), None)
        if isinstance(value[first], list) and isinstance(other, list):
            if len(value[first]) != len(other):
                raise ValueError(f"{first} and {' or '.join(second)} differ in length")
            return list(zip(value[first], other, strict=True))
    return value
