"""Steps per second through TRL's two roads, beside the plain environment's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from adapter_steps import compare
from parity import OPTIONS, Game

pytest.importorskip("trl", reason="TRL is not installed: make test-adapter-trl")

from tiny_models import tiny_model, tiny_tokenizer

from erl_envs.adapters.rows import Row, rows
from erl_envs.adapters.trl import FrozenLake, TextRollout
from erl_envs.policies.base import Completion, Conversation, Sampling
from erl_envs.policies.transformers import Transformers


@cache
def asked() -> dict[str, Row]:
    """Each row by its task's id."""
    return {json.loads(row["task"])["id"]: row for row in rows("frozenlake", "test", **OPTIONS)}


def by_tools(games: Sequence[Game]) -> None:
    """What TRL's loop does with an environment, but for the model."""
    env: Any = FrozenLake()
    for game in games:
        env.reset(**asked()[game.task.id])
        for message in game.messages:
            env.move(message.strip("`"))
        env.get_reward()


class Script(Transformers):
    """Says the games' messages at once."""

    plan: dict[str, list[str]]

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Any]:
        return [Completion(self.plan[c.key[1]][len(c.messages) // 2 - 1]) for c in conversations]


class ScriptedRollout(TextRollout):
    """The adapter, its model replaced by a script."""

    script = Script("script", tiny_model(), tiny_tokenizer())

    def policy(self, trainer: Any) -> Transformers:
        return self.script


class Trainer:
    """What the adapter reads of TRL's."""

    class args:
        temperature, top_p, top_k, seed = 1.0, 1.0, 0, 0

    class state:
        global_step = 0

    class accelerator:
        process_index = 0

    model = ScriptedRollout.script.model


def in_text(games: Sequence[Game]) -> None:
    rollout = ScriptedRollout(asked().values())
    rollout.script.plan = {game.task.id: game.messages for game in games}
    rollout([asked()[game.task.id]["prompt"] for game in games], Trainer)


def test_steps_by_tools() -> None:
    asked()
    compare("TRL, tools", by_tools)


def test_steps_in_text() -> None:
    asked()
    compare("TRL, plain text", in_text)
