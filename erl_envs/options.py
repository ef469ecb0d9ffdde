"""What every environment can be asked for, checked so that a typo raises and says why."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from erl_envs.records import Level

T = TypeVar("T")


def fits(value: object, hint: Any) -> bool:
    """Whether a value fits an annotation of literals, plain types, tuples, mappings and unions."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if origin in (Union, types.UnionType):
        return any(fits(value, arm) for arm in args)
    if origin is tuple:
        given = value if isinstance(value, tuple) else ()
        hints = args[:1] * len(given) if args[-1] is Ellipsis else args
        return given is value and len(given) == len(hints) and all(map(fits, given, hints))
    if origin is collections.abc.Mapping:
        return isinstance(value, Mapping) and all(
            fits(k, args[0]) and fits(v, args[1]) for k, v in value.items()
        )
    if isinstance(value, bool):
        return hint in (bool, Any)
    return hint is Any or isinstance(value, (int, float) if hint is float else hint)


def _describe(hint: Any) -> str:
    args = get_args(hint)
    if get_origin(hint) is Literal:
        return ", ".join(map(repr, args))
    if get_origin(hint) in (Union, types.UnionType):
        return ", ".join(map(_describe, args))
    if get_origin(hint) is tuple:
        return f"({', '.join('…' if arg is Ellipsis else _describe(arg) for arg in args)})"
    if get_origin(hint) is collections.abc.Mapping:
        return f"a mapping from {_describe(args[0])} to {_describe(args[1])}"
    return "None" if hint is type(None) else str(hint.__name__)


@functools.cache
def _hints(cls: type[Any]) -> Mapping[str, Any]:
    """A class's annotations; resolving them would take most of an environment's construction."""
    return get_type_hints(cls)


def check(options: Any) -> None:
    """Check every field of a dataclass instance against its annotation.

    Raises:
        ValueError: A value does not fit; the message lists what would.
    """
    hints = _hints(options.__class__)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not fits(value, hints[field.name]):
            raise ValueError(
                f"bad value {value!r:.100} for {field.name}; valid: {_describe(hints[field.name])}"
            )


def build(cls: type[T], owner: str, kwargs: Mapping[str, Any]) -> T:
    """The options dataclass `cls` from keyword arguments; lists (from JSON) become tuples.

    Raises:
        ValueError: An option is unknown, named with the valid ones, or its value is bad.
    """
    valid = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if unknown := sorted(set(kwargs) - set(valid)):
        raise ValueError(
            f"{owner} has no option {unknown[0]!r:.100}; valid options: {', '.join(valid)}"
        )
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()})


def read_pair(text: str) -> tuple[str, Any]:
    """Key and value of a command line's `KEY=VALUE`; the value is JSON or a plain word.

    Raises:
        ValueError: It has no such form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"an option must look like key=value, got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def to_json(options: Any) -> dict[str, Any]:
    """An options dataclass as a JSON object (one level; mappings copied)."""
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every environment can be asked for; a subclass adds its own.

    Attributes:
        rules: `hidden`: the system prompt names the actions and the answer format only (the
            paper's setting). `shown`: it tells the true rules too.
        feedback: Rung of the feedback ladder that an attempt's end tells.
        max_turns: Turns an attempt has; None takes the task's own, else the environment's default.
        turn_feedback: Append every step's note to the next observation.
        prompt_style: `full` (the paper's structure) or `compact` (a few lines, for small models).
    """

    rules: Literal["hidden", "shown"] = "hidden"
    feedback: Level = "outcome"
    max_turns: int | None = None
    turn_feedback: bool = False
    prompt_style: Literal["full", "compact"] = "full"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ValueError: A value is not valid; the message says what would be.
        """
        check(self)
        if self.max_turns is not None and self.max_turns < 1:
            raise ValueError(f"bad value {self.max_turns} for max_turns; valid: None, 1 or more")
