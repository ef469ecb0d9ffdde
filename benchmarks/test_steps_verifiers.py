"""Steps per second through verifiers' loop and a stub model, beside the plain environment's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("verifiers", reason="verifiers is not installed: make test-adapter-verifiers")

from adapter_steps import compare
from parity import Game, games
from test_verifiers import by_opening, episodes, model, player


def test_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_KEY", "none")
    with model(player(by_opening(list(games("frozenlake", "random"))))) as url:

        def through(played: Sequence[Game]) -> None:
            assert all(episode.ok for episode in episodes("frozenlake", url)[1])

        compare("verifiers", through)
