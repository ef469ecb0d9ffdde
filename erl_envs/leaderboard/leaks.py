"""What must not be published: secrets, and where somebody's files lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erl_envs import secrets
from erl_envs.leaderboard.archive import Refused
from erl_envs.secrets import likely

_HOME = re.compile(r"(?<![\w.])(?:/home/|/Users/|/root/|[A-Za-z]:\\{1,2}Users\\{1,2}|file://)\S")

_Finder = Callable[[str], str | None]
"""What a text holds that must not be published, in words; None if nothing."""


def check(about: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], own: bool = False) -> None:
    """Look through what is about to be published.

    Args:
        about: What is said of a run: no path of a home folder either.
        lines: Its episodes.
        own: Whether they are this machine's: then its user's secrets and home folder, which look
            like nothing in particular, are looked for too.

    Raises:
        Refused: Something must not be published. The message names the place and the kind, and
            never shows the secret.
    """
    find = _finder(own)
    for where, text in _texts(about):
        if what := find(text) or _home(text):
            raise Refused(f"{where} holds {what}; submissions are published as they are")
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        fresh = [(where, text) for where, text in _texts(line) if text not in seen]
        seen.update(text for _, text in fresh)
        if find("\n".join(text for _, text in fresh)) is None:
            continue
        for where, text in fresh:  # one that reaches over several texts is none
            if what := find(text):
                raise Refused(
                    f"episode {number}{_name(line)}: {where} holds {what}; "
                    "transcripts are published as they are"
                )


def _finder(own: bool) -> _Finder:
    home = str(Path("~").expanduser())
    # `/root` is nobody's name, and may be a word of a transcript
    own_path = re.compile(re.escape(home) + r"(?!\w)") if own and home.count("/") > 1 else None

    def find(text: str) -> str | None:
        if own and (shown := secrets.held(text)):
            return "a secret of a URL" if shown == secrets.HIDDEN else f"the value of {shown[1:-1]}"
        if own_path and own_path.search(text):
            return "the path of your home folder"
        kind = likely.kind_of(text)
        return None if kind is None else f"what looks like a key ({kind})"

    return find


def _home(text: str) -> str | None:
    return "a path of a home folder" if _HOME.search(text) else None


def _name(line: Mapping[str, Any]) -> str:
    task, sample = line.get("task"), line.get("sample")
    named = task.get("id") if isinstance(task, Mapping) else None
    return f" (task {named:.60}, sample {sample!r:.20})" if isinstance(named, str) else ""


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a JSON value, names of fields too, each with its place in words."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"a name in {where or 'it'}", key
            yield from _texts(inner, f"{where}, {key}" if where else key)
    elif isinstance(value, Sequence):
        for number, inner in enumerate(value, 1):
            yield from _texts(inner, f"{where} {number}")
