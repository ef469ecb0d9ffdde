"""Steps per second through GEM, beside the plain environment's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from adapter_steps import compare
from parity import OPTIONS, Game

pytest.importorskip("gem", reason="gem-llm is not installed: make test-adapter-gem")

import gem

import erl_envs.adapters.gem  # noqa: F401 - registers


def through(games: Sequence[Game]) -> None:
    env = gem.make("erl:frozenlake", split="test", **OPTIONS)
    for number, game in enumerate(games):
        env.reset(idx=number)
        for message in game.messages:
            env.step(message)


def test_steps_through_gem() -> None:
    compare("gem", through)
