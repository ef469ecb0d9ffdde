"""Steps per second through SkyRL-gym, beside the plain environment's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from adapter_steps import compare
from parity import OPTIONS, Game

pytest.importorskip("skyrl_gym", reason="skyrl-gym is not installed: make test-adapter-skyrl")

import skyrl_gym

import erl_envs.adapters.skyrl  # noqa: F401 - registers
from erl_envs.core import canonical_json


def through(games: Sequence[Game]) -> None:
    for game in games:
        task = canonical_json(game.task.to_json())
        row = {"env": game.task.env, "options": canonical_json(OPTIONS), "task": task}
        env = skyrl_gym.make("erl_frozenlake", extras=row)
        env.init([])
        for message in game.messages:
            env.step(message)
        env.close()


def test_steps_through_skyrl() -> None:
    compare("skyrl-gym", through)
