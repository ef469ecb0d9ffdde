"""Task sets as rows of a dataset, the form in which training frameworks pass tasks around."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from erl_envs import registry, tasks
from erl_envs.core import Message, Task, TextEnv, Tokens, canonical_json


class Row(TypedDict):
    """One task, as plain strings and numbers, so that every table format carries it.

    Attributes:
        env: The environment's id.
        options: Its options, JSON.
        task: The task, JSON.
        prompt: What a policy is told: the system prompt and the first observation.
    """

    env: str
    options: str
    task: str
    prompt: list[Message]


def rows(env: str, split: str, **options: Any) -> list[Row]:
    """The tasks of a split as rows.

    Raises:
        ValueError: There is no such environment, split or option; the message lists the valid ones.
    """
    player = registry.make(env, **options)
    return [row(player, task, options) for task in tasks.load(env, split, **options)]


def row(env: TextEnv, task: Task, options: Mapping[str, Any]) -> Row:
    """The row of one task; the environment is reset to it."""
    observation, _ = env.reset(options={"task": task})
    return Row(
        env=env.name,
        options=canonical_json(options),
        task=canonical_json(task.to_json()),
        prompt=opening(env, observation),
    )


def opening(env: TextEnv, observation: str) -> list[Message]:
    """What a policy is told at first: the system prompt and the first observation."""
    return [
        Message(role="system", content=env.system_prompt),
        Message(role="user", content=observation),
    ]


def ending(info: Mapping[str, Any]) -> dict[str, Any]:
    """`feedback` and `outcome` of a step's `info`; nothing before the last step.

    Not the whole of `info`: its note names what the feedback level may keep quiet.
    """
    return {key: info[key] for key in ("feedback", "outcome") if key in info}


def open_row(env: str, options: str, task: str) -> tuple[TextEnv, Task]:
    """The environment and the task of a row's strings.

    Raises:
        ValueError: They name no environment, option or task that there is; one line.
    """
    return registry.make(env, **_object(options, "options")), Task.from_json(_object(task, "task"))


def one_sequence(tokens: Sequence[Tokens]) -> Tokens | None:
    """An attempt's one stretch, None if nobody kept its tokens.

    Raises:
        ValueError: It has several: its chat template does not only append.
    """
    if len(tokens) > 1:
        raise ValueError(
            f"one sequence an attempt is taken here, and this one has {len(tokens)}: the model's "
            "chat template does not only append to what was told and sampled"
        )
    return tokens[0] if tokens else None


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError) as error:  # the one: it is no string
        raise ValueError(f"{what} must be a JSON object: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{what} must be a JSON object, not {text[:60]!r}")
    return found
