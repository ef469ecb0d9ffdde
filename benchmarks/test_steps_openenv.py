"""Steps per second through an OpenEnv server on loopback, beside the plain environment's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: make test-adapter-openenv")

from adapter_steps import compare
from parity import Game
from test_openenv import serving

from erl_envs.adapters.openenv import TextAction, TextClient


def test_steps() -> None:
    with serving("frozenlake") as url:

        def one_session(games: Sequence[Game]) -> None:
            asyncio.run(_play(url, games))

        async def a_session_each(games: Sequence[Game]) -> None:
            await asyncio.gather(*(_play(url, [game]) for game in games))

        compare("OpenEnv, one session", one_session)
        compare("OpenEnv, twenty sessions", lambda games: asyncio.run(a_session_each(games)))


async def _play(url: str, games: Sequence[Game]) -> None:
    async with TextClient(base_url=url) as client:
        for game in games:
            await client.reset(task=game.task.to_json())
            for message in game.messages:
                await client.step(TextAction(text=message))
