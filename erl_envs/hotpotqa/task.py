"""What a HotpotQA task may be: its fields, and how much of them.

A task may come from anybody. What it brings is indexed, searched and graded again and again, so
each field has a bound, many times what HotpotQA's own questions need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erl_envs.core import turns_of

FIELDS = (
    "aliases",
    "answer",
    "context",
    "corpus",
    "hops",
    "max_turns",
    "question",
    "supporting_facts",
    "type",
)
"""What a task may hold."""

MAX_QUESTION, MAX_GOLD, MAX_FACTS = 4_000, 1_000, 100
"""Characters of a question and of a right answer; supporting facts, and characters of a title."""

MAX_ALIASES = 1_000
"""Other answers that are as right."""

MAX_PASSAGES, MAX_CONTEXT = 100, 200_000
"""Passages of a task's own context, and their characters, titles among them."""


def check_task(params: Mapping[str, Any]) -> None:
    """Check the fields of a task.

    Raises:
        ValueError: One is missing, unknown, malformed or too large; the message names it.
    """
    if unknown := sorted(set(params) - set(FIELDS)):
        valid = ", ".join(field for field in FIELDS if field != "max_turns")
        raise ValueError(f"a hotpotqa task has no field {unknown[0]!r:.100}; valid: {valid}")
    for field, most in (("question", MAX_QUESTION), ("answer", MAX_GOLD)):
        text = params.get(field)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"task field {field} must be a non-empty string")
        _bound(field, len(text), most, "characters")
    for field, kind in (("type", str), ("corpus", str), ("hops", int)):
        if field in params and type(params[field]) is not kind:
            raise ValueError(f"task field {field} must be of type {kind.__name__}")
    _check_aliases(params.get("aliases", []))
    _check_facts(params.get("supporting_facts", []))
    turns_of(params)
    if "context" in params:
        _check_context(params["context"])


def _check_aliases(aliases: Any) -> None:
    if not _are_strings(aliases) or not all(alias.strip() for alias in aliases):
        raise ValueError("task field aliases must be a list of non-empty strings")
    _bound("aliases", len(aliases), MAX_ALIASES, "answers")
    _bound("aliases", max(map(len, aliases), default=0), MAX_GOLD, "characters in an answer")


def _check_facts(facts: Any) -> None:
    if not _are_facts(facts):
        raise ValueError("task field supporting_facts must be a list of [title, sentence number]")
    longest = max((len(title) for title, _ in facts), default=0)
    _bound("supporting_facts", len(facts), MAX_FACTS, "facts")
    _bound("supporting_facts", longest, MAX_GOLD, "characters in a title")


def _check_context(context: Any) -> None:
    if not isinstance(context, Sequence) or isinstance(context, str) or not context:
        raise ValueError("task field context must be a non-empty list of [title, sentences]")
    _bound("context", len(context), MAX_PASSAGES, "passages")
    for entry in context:
        if not (_is_pair(entry) and isinstance(entry[0], str) and _are_strings(entry[1])):
            raise ValueError(
                "task field context must be a list of [title, sentences]; "
                f"it holds {str(entry)[:60]!r}"
            )
    size = sum(len(title) + sum(map(len, sentences)) for title, sentences in context)
    _bound("context", size, MAX_CONTEXT, "characters")


def _bound(field: str, found: int, most: int, of_what: str) -> None:
    if found > most:
        raise ValueError(f"task field {field} has {found:,} {of_what}; {most:,} are the most")


def _are_facts(value: object) -> bool:
    """Whether it is a list of [title, sentence number]."""
    return isinstance(value, Sequence) and all(
        _is_pair(fact) and isinstance(fact[0], str) and type(fact[1]) is int for fact in value
    )


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def _are_strings(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(item, str) for item in value)
    )
