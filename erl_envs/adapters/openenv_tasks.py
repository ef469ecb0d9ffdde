"""Tasks as an OpenEnv client names them: by a split and a number, or in full."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from erl_envs import tasks
from erl_envs.core import Task

_loading: dict[tuple[str, str], threading.Lock] = {}
"""Held while a task set is made, so that whoever asks for it too waits and does not make it again.
"""


def served(
    env: str, split: str, names: Mapping[str, str], options: Mapping[str, Any]
) -> tuple[Task, ...]:
    """A split's tasks; no salted one's: salts have no end, and a set that is made is kept.

    Args:
        env: Environment id.
        split: What the client calls it.
        names: The splits that are served: what clients call each, and its own name.
        options: The environment's.

    Raises:
        ValueError: There is no such split; the message lists those there are.
    """
    if split not in names:
        raise ValueError(
            f"{env} has no split {split!r:.100}; valid: {', '.join(names)} "
            "(salted sets are not served, nor files)"
        )
    with _loading.setdefault((env, names[split]), threading.Lock()):
        return tasks.load(env, names[split], **options)


def read(task: Any) -> Task:
    """The task of a client's JSON, as text or object.

    Raises:
        ValueError: It is none, or one of a salted set; one line.
    """
    try:
        found = json.loads(task) if isinstance(task, str) else task
        if not isinstance(found, Mapping):
            raise ValueError("a task is a JSON object")
        given = Task.from_json(found)
    except RecursionError as error:  # a RuntimeError, which would read as: no attempt under way
        raise ValueError("a task is not nested so deeply") from error
    corpus = given.params.get("corpus")
    if isinstance(corpus, str) and "@" in corpus:
        raise ValueError(f"no corpus {corpus!r:.100}; salted sets are not served")
    return given


def spec(task: Task, index: int, split: str) -> dict[str, Any]:
    """What a client is told of a task: nothing of the board or the answer."""
    return {"id": task.id, "index": index, "split": split}


def at(found: tuple[Task, ...], index: int) -> Task:
    """The task of a number.

    Raises:
        IndexError: There is none.
    """
    if type(index) is not int or not 0 <= index < len(found):
        raise IndexError(
            f"index must be a whole number from 0 to {len(found) - 1}, not {index!r:.100}"
        )
    return found[index]
