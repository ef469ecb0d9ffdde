"""Environments by id: `make`, `list_envs`, and Gymnasium's ids."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium as gym

from erl_envs.core import TextEnv

_ENTRY_POINTS: dict[str, str | type[TextEnv]] = {}


def register(name: str, entry_point: str | type[TextEnv], gymnasium_id: str | None = None) -> None:
    """Make an environment known to `make`, the evaluation run and the task sets.

    Args:
        name: Its id; equals the class's `name`.
        entry_point: The class, or `"module:Class"`, imported when it is asked for.
        gymnasium_id: Also register it with Gymnasium under this id.

    Raises:
        ValueError: The id is taken by another environment.
    """
    if _ENTRY_POINTS.get(name, entry_point) != entry_point:
        raise ValueError(f"environment {name!r} is registered already")
    _ENTRY_POINTS[name] = entry_point
    if gymnasium_id is not None:
        gym.register(gymnasium_id, entry_point=entry_point)


def list_envs() -> list[str]:
    """The ids that `make` knows, sorted."""
    return sorted(_ENTRY_POINTS)


def env_class(name: str) -> type[TextEnv]:
    """The class of an id.

    Raises:
        ValueError: There is no such environment; the message lists those there are.
    """
    if name not in _ENTRY_POINTS:
        raise ValueError(f"no environment {name!r:.100}; valid: {', '.join(list_envs())}")
    entry_point = _ENTRY_POINTS[name]
    if isinstance(entry_point, str):
        module, attribute = entry_point.split(":")
        loaded: type[TextEnv] = getattr(importlib.import_module(module), attribute)
        return loaded
    return entry_point


def make(name: str, /, **options: Any) -> TextEnv:
    """An environment by id.

    Args:
        name: One of `list_envs()`.
        **options: Fields of the environment's `Options`, and `render_mode`.

    Raises:
        ValueError: No such environment or option, or a bad value; the message lists the valid ones.
    """
    return env_class(name)(**options)


register("frozenlake", "erl_envs.frozenlake:FrozenLake", "erl_envs/FrozenLake-v0")
register("sokoban", "erl_envs.sokoban:Sokoban", "erl_envs/Sokoban-v0")
register("hotpotqa", "erl_envs.hotpotqa:HotpotQA", "erl_envs/HotpotQA-v0")
