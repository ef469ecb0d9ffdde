"""Gymnasium's vectorised environments beside the plain one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import pytest
from adapter_steps import compare
from parity import OPTIONS, Game


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_steps_per_second(mode: Any) -> None:
    vector = gym.make_vec(
        "erl_envs:erl_envs/FrozenLake-v0", num_envs=1, vectorization_mode=mode, **OPTIONS
    )

    def through(games: Sequence[Game]) -> None:
        for game in games:
            vector.reset(options={"task": game.task})
            for message in game.messages:
                vector.step((message,))

    try:
        assert compare(f"gymnasium, {mode}", through).framework > 0
    finally:
        vector.close()
