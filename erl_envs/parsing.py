"""What a model's raw message means. Every reader is linear in the text and never raises."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

_FENCE = re.compile(r"```([^`]*)```")
_INFO_LINE = re.compile(r"\A[a-z]+\n\s*")  # Markdown's language word: ```text
_SEARCH_OPEN = re.compile(r'<search(?:\s+top_k="?(\d{1,3})"?)?\s*>')
_BRACES = re.compile(r"\\boxed\{|[{}]")
_PROMPT_OPEN, _PROMPT_CLOSE = "<prompt>", "</prompt>"


@functools.cache
def _spelling(actions: tuple[str, ...]) -> dict[str, str]:
    return {form: action for action in actions for form in (action, action.lower())}


def fenced_action(text: str, actions: Sequence[str]) -> tuple[str | None, str]:
    """The one action that stands alone between triple backticks.

    Case and white space do not matter, nor does a language word on the opening line. Fences that
    hold something else (a drawn board, a plan) are no action. Two different actions are none.

    Args:
        text: A raw message.
        actions: The valid action words.

    Returns:
        The action in its own spelling and "", or None and what is wrong.
    """
    spelling = _spelling(tuple(actions))
    found: str | None = None
    fences = _FENCE.findall(text)
    for content in fences:
        word = content.strip()
        action = spelling.get(word) or spelling.get(_INFO_LINE.sub("", word).lower())
        if action is None:
            continue
        if found is not None and found != action:
            return None, "it gives more than one action in triple backticks"
        found = action
    if found is not None:
        return found, ""
    forms = ", ".join(f"```{action}```" for action in actions)
    if not fences and "```" in text:
        return None, f"its triple backticks are not closed; give one of {forms}"
    return None, f"it gives none of {forms}"


def prompt_tag(text: str) -> str | None:
    """The text of the last closed `<prompt>…</prompt>` pair, stripped; None if there is none.

    The innermost pair counts where tags are nested, so a model that quotes the tag before using it
    is still read.
    """
    end = text.rfind(_PROMPT_CLOSE)
    start = text.rfind(_PROMPT_OPEN, 0, end) if end >= 0 else -1
    if start < 0:
        return None
    return text[start + len(_PROMPT_OPEN) : end].strip() or None


def search_tag(text: str) -> tuple[str, int | None] | None:
    """Query and `top_k` of the last `<search>…</search>`; None if there is none with a query."""
    end = text.rfind("</search>")
    start = text.rfind("<search", 0, end) if end >= 0 else -1
    match = _SEARCH_OPEN.match(text, start) if start >= 0 else None
    if match is None or match.end() > end:
        return None
    query = " ".join(text[match.end() : end].split())
    return (query, int(match[1]) if match[1] else None) if query else None


def boxed(text: str) -> str | None:
    r"""The content of the `\boxed{…}` that closes last, braces inside balanced.

    None if there is none or it is empty.
    """
    opened: list[int | None] = []  # where each open brace's content starts, None if it is no box's
    found: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        if match[0] == "}":
            start = opened.pop() if opened else None
            if start is not None:
                found = start, match.start()
        else:
            opened.append(None if match[0] == "{" else match.end())
    return " ".join(text[slice(*found)].split()) or None if found else None
