"""Steps per second through a framework, beside the plain environment's, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from parity import OPTIONS, Game, games

import erl_envs

ROUNDS = 3


class Rates(NamedTuple):
    """Steps per second: by itself, and through the framework."""

    plain: float
    framework: float


def compare(name: str, through: Callable[[Sequence[Game]], None], env: str = "frozenlake") -> Rates:
    """Play the same messages by the plain environment and through a framework, in turns.

    Args:
        name: The framework's, for the line that is printed.
        through: Plays all games, its own connections and sessions included.
        env: Environment id.
    """
    played = list(games(env, "random"))
    steps = ROUNDS * sum(len(game.turns) for game in played)
    _plain(played)  # what a process does once is neither's
    own = theirs = 0.0
    for _ in range(ROUNDS):
        own += _timed(_plain, played)
        theirs += _timed(through, played)
    rates = Rates(steps / own, steps / theirs)
    print(
        f"\n{name}: {rates.framework:,.0f} steps/s, plain {rates.plain:,.0f} "
        f"({rates.framework / rates.plain:.1%})"
    )
    return rates


def _plain(played: Sequence[Game]) -> None:
    env = erl_envs.make(played[0].task.env, **OPTIONS)
    for game in played:
        env.reset(options={"task": game.task})
        for message in game.messages:
            env.step(message)


def _timed(play: Callable[[Sequence[Game]], None], played: Sequence[Game]) -> float:
    began = time.perf_counter()
    play(played)
    return time.perf_counter() - began
