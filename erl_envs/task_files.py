"""Files of tasks: a split `file:PATH`, its text in bounded memory, and its rows one by one.

What a row means is its environment's to say (`TextEnv.read_tasks`); this module knows files, and
what to do with a row that is no task.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from erl_envs.json_rows import brief, json_rows
from erl_envs.records import Task

LENIENT, STRICT = "file:", "strict-file:"
"""What a split of a file begins with: bad rows are left out and counted, or stop the reading."""

LIMIT = 64 << 20
"""Bytes of a task file, unless its environment takes more."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What stands at one place of a task file.

    Attributes:
        place: Where, in words: a line, or a row and its line.
        params: A task's parameters; None where there is no task.
        problem: Why there is none; or, beside parameters, what is not as one would wish.
    """

    place: str
    params: Mapping[str, Any] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Sorted:
    """A file's entries: those with a task, and of these those with a problem; those without."""

    kept: tuple[Entry, ...]
    left_out: tuple[Entry, ...] = ()

    @property
    def doubtful(self) -> tuple[Entry, ...]:
        """Tasks that have a problem."""
        return tuple(entry for entry in self.kept if entry.problem)


@dataclass(frozen=True)
class TaskFile:
    """A file of tasks, as a split names it.

    Attributes:
        path: Where it is.
        strict: Whether an entry that is no task stops the reading.
    """

    path: Path
    strict: bool = False

    @classmethod
    def of(cls, split: str) -> Self | None:
        """The file that `file:PATH` or `strict-file:PATH` names, None for another split."""
        for prefix in (LENIENT, STRICT):
            if split.startswith(prefix) and split != prefix:
                return cls(Path(split.removeprefix(prefix)), prefix == STRICT)
        return None

    def stamp(self) -> tuple[int, ...]:
        """What changes when the file does.

        Raises:
            ValueError: It cannot be read.
        """
        try:
            found = self.path.stat()
        except (OSError, ValueError) as error:  # ValueError: a path that no system has
            raise ValueError(f"cannot read {self.path}: {_reason(error)}") from error
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def text(self, limit: int = LIMIT) -> str:
        """Its text: lines end in a newline alone, bytes that are no UTF-8 are lone surrogates.

        Args:
            limit: Most bytes that are read.

        Raises:
            ValueError: It is no file, is too large, empty, or binary.
        """
        self.stamp()
        if not self.path.is_file():
            kind = "a folder" if self.path.is_dir() else "no plain file"
            raise ValueError(f"cannot read {self.path}: it is {kind}")
        try:
            with self.path.open("rb") as file:
                raw = file.read(limit + 1)
        except OSError as error:
            raise ValueError(f"cannot read {self.path}: {_reason(error)}") from error
        if len(raw) > limit:
            raise ValueError(f"{self.path} has more than {limit:,} bytes, the most that are read")
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = raw.decode("utf-16", "replace")
        elif b"\0" in raw:
            raise ValueError(f"{self.path} is binary: byte {raw.index(0) + 1} is 0")
        else:
            text = raw.decode("utf-8-sig", "surrogateescape")
        if not text.strip():
            raise ValueError(f"{self.path} is empty")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def sort(self, entries: Iterable[Entry], what: str) -> Sorted:
        """As `sort`, of this file."""
        return sort(entries, str(self.path), what, self.strict)


def sort(entries: Iterable[Entry], where: str, what: str, strict: bool = False) -> Sorted:
    """Part what has a task from what has none, and tell a person, in a line, of what is wrong.

    Args:
        entries: In their order.
        where: What they stand in.
        what: What they should be, in the plural.
        strict: Whether one that has no task is an error.

    Raises:
        ValueError: There is such a one, none has a task, or `where` cannot be read to its end.
    """
    kept, left_out = [], []
    for entry in _named(entries, where):
        if entry.params is not None:
            kept.append(entry)
        elif strict:
            raise ValueError(f"{where} {entry.place}: {entry.problem}")
        else:
            left_out.append(entry)
    if not kept:
        first = f"; {left_out[0].place}: {left_out[0].problem}" if left_out else ""
        raise ValueError(f"{where} holds no {what}{first}")
    found = Sorted(tuple(kept), tuple(left_out))
    for some, verdict in ((found.left_out, "left out"), (found.doubtful, "doubtful")):
        if some:
            _log.warning(
                "%s: %d of %d %s %s, the first at %s: %s",
                *(where, len(some), len(kept) + len(left_out), what, verdict),
                *(some[0].place, some[0].problem),
            )
    return found


def _named(entries: Iterable[Entry], where: str) -> Iterator[Entry]:
    try:
        yield from entries
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error


def strictly(split: str) -> str:
    """The split of the same file whose bad rows stop the reading.

    Raises:
        ValueError: It is no file's.
    """
    file = TaskFile.of(split)
    if file is None:
        raise ValueError(f"--strict is for a split file:PATH, not {split!r}")
    return f"{STRICT}{file.path}"


def entry_of(place: str, row: Any, read: Callable[[Any], Mapping[str, Any]]) -> Entry:
    """What stands in a row.

    Args:
        place: Where it is.
        row: Its value, or the ValueError that says why it has none.
        read: Makes a task's parameters of it, or raises ValueError.
    """
    try:
        if isinstance(row, ValueError):
            raise row
        return Entry(place, read(row))
    except (ValueError, RecursionError) as error:
        return Entry(place, problem=brief(error))


def entries_of(text: str, read: Callable[[Any], Mapping[str, Any]]) -> Iterator[Entry]:
    """The entries of a text in JSON.

    Args:
        text: The file's.
        read: Makes a task's parameters of a row, or raises ValueError.

    Raises:
        ValueError: The text as a whole is no JSON.
    """
    return (entry_of(place, row, read) for place, row in json_rows(text))


def params_of(env: str, row: Any) -> Mapping[str, Any]:
    """The parameters in a row: of a task of this environment, or the row itself.

    Raises:
        ValueError: It is no object, a task whose id is another's, or another environment's.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"a task is a JSON object, not {row!r:.60}")
    if not {"env", "params"} <= set(row):
        return row
    task = Task.from_json(row)
    if task.env != env:
        raise ValueError(f"this is {env}; the task is for {task.env!r:.60}")
    return task.params


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
