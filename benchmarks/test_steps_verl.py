"""Steps per second through verl's agent loop worker, beside the plain environment's.

The rollout servers are a stub that answers at once: what is measured is verl's loop, our threads
and tokenizing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from adapter_steps import compare
from parity import EPISODES, OPTIONS, Game

pytest.importorskip("verl", reason="verl is not installed: make test-adapter-verl")

from test_verl import Servers, batch, by_opening, worker

from erl_envs.adapters.verl import verl_rows


def test_steps_through_verl(tmp_path: Path) -> None:
    servers = Servers(by_opening([]))
    loops = worker(servers)
    given = batch(verl_rows("frozenlake", "test", **OPTIONS)[:EPISODES], tmp_path, loops)

    def through(games: Sequence[Game]) -> None:
        servers.script = by_opening(games)
        asyncio.run(loops.generate_sequences(given))

    compare("verl", through)
