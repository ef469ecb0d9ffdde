"""What a model's raw message means. Every reader is linear in the text and never raises.

Nothing is read from a model's thoughts, only from what it says after them (`erl_envs.thoughts`).
"""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Sequence

from erl_envs.thoughts import strip_thoughts

_FENCE = re.compile(r"```([^`]*)```")
_INFO_LINE = re.compile(r"([A-Za-z][\w+#.-]*)[ \t]*\r?\n\s*")  # Markdown's language word: ```text
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|[{}]")
_WORD = re.compile(r"\w")

# tags that are spoken of, not used: "between <search> and </search>", "<prompt>…</prompt>"
_JOINED = r"(?:\W{1,8}(?:and|or|to|until)\W{1,8}|[\s.…]{0,8})"
_PROMPT = re.compile("<prompt>"), re.compile(f"<prompt>{_JOINED}</prompt>")
_SEARCH = (
    re.compile(r"""<search(?:\s+top_k\s*=\s*["']?(\d{1,3})["']?)?\s*>"""),
    re.compile(f"<search>{_JOINED}</search>"),
)


@functools.cache
def _spelling(actions: tuple[str, ...]) -> dict[str, str]:
    return {form: action for action in actions for form in (action, action.lower())}


def fenced_action(text: str, actions: Sequence[str]) -> tuple[str | None, str]:
    """The one action that stands alone between triple backticks.

    Case and white space do not matter, nor does a language word on the opening line. Fences that
    hold something else (a drawn board, a plan) are no action. Two different actions are none, in
    whatever order: a message that weighs actions names them without backticks.

    Args:
        text: A raw message.
        actions: The valid action words.

    Returns:
        The action in its own spelling and "", or None and what is wrong.
    """
    spelling = _spelling(tuple(actions))
    found: str | None = None
    text = strip_thoughts(text)
    fences = _FENCE.findall(text)
    for content in fences:
        action = _alone(content.strip(), spelling)
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


def _alone(content: str, spelling: dict[str, str]) -> str | None:
    """The action that a fence holds, beside a language word at most; that is no action itself."""
    if content in spelling:
        return spelling[content]
    info = _INFO_LINE.match(content)
    if info is not None and info[1].lower() not in spelling:
        content = content[info.end() :]
    return spelling.get(content) or spelling.get(content.lower())


def prompt_tag(text: str) -> str | None:
    """The text of the last `<prompt>…</prompt>` pair, stripped; None if there is none.

    The innermost pair counts where tags are nested, and a pair that is only spoken of ("between
    <prompt> and </prompt>") not at all, so a model that quotes the tags is still read.
    """
    found = _last_pair(strip_thoughts(text), _PROMPT, "</prompt>")
    return found[1].strip() or None if found else None


def search_tag(text: str) -> tuple[str, int | None] | None:
    """Query and `top_k` of the last `<search>…</search>`; None if there is none with a query.

    A pair that is only spoken of does not count, as in `prompt_tag`.
    """
    found = _last_pair(strip_thoughts(text), _SEARCH, "</search>")
    query = " ".join(found[1].split()) if found else ""
    return (query, int(found[0][1]) if found[0][1] else None) if found and query else None


def _last_pair(
    text: str, tag: tuple[re.Pattern[str], re.Pattern[str]], closing: str
) -> tuple[re.Match[str], str] | None:
    """The last opening tag that a closing one follows, and what stands before the last of those."""
    opening, mention = tag
    # as long as before, so that its places are the text's
    used = mention.sub(lambda match: " " * len(match[0]), text)
    end = used.rfind(closing)
    last = deque(opening.finditer(used, 0, max(end, 0)), maxlen=1)
    return (last[0], text[last[0].end() : end]) if last else None


def boxed(text: str) -> str | None:
    r"""The content of the `\boxed{…}` or `\fbox{…}` that closes last, braces inside balanced.

    None if there is none that holds a word: `\boxed{…}` is only spoken of.
    """
    text = strip_thoughts(text)
    opened: list[int | None] = []  # where each open brace's content starts, None if it is no box's
    found: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        if match[0] == "}":
            start = opened.pop() if opened else None
            if start is not None and _WORD.search(text, start, match.start()):
                found = start, match.start()
        else:
            opened.append(None if match[0] == "{" else match.end())
    return " ".join(text[slice(*found)].split()) if found else None
