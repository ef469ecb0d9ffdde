"""What a HotpotQA task may be: its fields, and how much of them.

A task may come from anybody. What it brings is indexed, searched and graded again and again, so
each field has a bound, many times what HotpotQA's own questions need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erl_envs.hotpotqa.data import are_facts, check_question
from erl_envs.retrieval import Corpus

FIELDS = ("answer", "context", "corpus", "hops", "question", "supporting_facts", "type")

MAX_QUESTION, MAX_GOLD, MAX_FACTS = 4_000, 1_000, 100
"""Characters of a question and of the right answer; supporting facts, and characters of a title."""

MAX_PASSAGES, MAX_CONTEXT = 100, 200_000
"""Passages of a task's own context, and their characters, titles among them."""


def check_task(params: Mapping[str, Any]) -> None:
    """Check a task's parameters, but for its context, which `own_corpus` reads.

    Raises:
        ValueError: A field is unknown, malformed or too large; the message names it.
    """
    if unknown := sorted(set(params) - {*FIELDS, "max_turns"}):
        raise ValueError(
            f"a hotpotqa task has no field {unknown[0]!r:.100}; valid: {', '.join(FIELDS)}"
        )
    for field, most in (("question", MAX_QUESTION), ("answer", MAX_GOLD)):
        text = params.get(field)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"task field {field} must be a non-empty string")
        if len(text) > most:
            raise _too_much(field, len(text), most, "characters")
    facts = params.get("supporting_facts", [])
    if not are_facts(facts):
        raise ValueError("task field supporting_facts must be a list of [title, number]")
    if len(facts) > MAX_FACTS:
        raise _too_much("supporting_facts", len(facts), MAX_FACTS, "facts")
    if (longest := max((len(title) for title, _ in facts), default=0)) > MAX_GOLD:
        raise _too_much("supporting_facts", longest, MAX_GOLD, "characters in a title")


def own_corpus(params: Mapping[str, Any]) -> Corpus:
    """The corpus of a task's own context.

    Raises:
        ValueError: It is malformed or too large.
    """
    context = check_question(params, "the task's", 1)["context"]
    if len(context) > MAX_PASSAGES:
        raise _too_much("context", len(context), MAX_PASSAGES, "passages")
    size = sum(len(title) + sum(map(len, sentences)) for title, sentences in context)
    if size > MAX_CONTEXT:
        raise _too_much("context", size, MAX_CONTEXT, "characters")
    return Corpus.of_questions([{"context": context}])


def _too_much(field: str, found: int, most: int, of_what: str) -> ValueError:
    return ValueError(f"task field {field} has {found:,} {of_what}; {most:,} are the most")
