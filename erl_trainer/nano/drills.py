"""Drills of the two games: what follows from where things are, in a fifth of a turn's tokens."""

from __future__ import annotations

import numpy as np

from erl_trainer.nano import games
from erl_trainer.nano.boards import EDGE, Game, board_rows, reason
from erl_trainer.nano.examples import GIVEN, LEARN, Part, said, told
from erl_trainer.nano.guide import Guide

DRILLS = 16
"""Actions of a drill."""


def drilling(game: Game, rng: np.random.Generator) -> list[Part]:
    """What follows from where things are, and nothing else: thoughts without boards, then actions.

    Twenty tokens an action instead of a hundred.
    """
    env = games.make(game, games.deal(game, rng), rules="shown")
    parts: list[Part] = []
    for turn in range(DRILLS):
        task = games.draw_task(game, rng)
        observation, _ = env.reset(options={"task": task})
        if turn == 0:
            parts += told({"role": "system", "content": env.system_prompt})
        action = Guide(task).best()
        assert action is not None, "drawn tasks can be solved"
        thought = reason(game, board_rows(observation), env.symbols)
        parts += told({"role": "user", "content": ""})
        parts += said(*_recalling(game, thought, rng), Part(env.say(action), LEARN))
    return parts


def _recalling(game: Game, thought: str, rng: np.random.Generator) -> list[Part]:
    """A thought that is given; but on the ice, after half of the cells, what follows is learnt.

    It is `hole` if the rulebook says so: a turn on a board teaches it in five times the tokens.
    """
    if game != "frozenlake":
        return [Part(thought, GIVEN)]
    # two things and their places come first; then each cell is a place and a symbol, or an edge
    words, parts = thought.split(), []
    for i, word in enumerate(words):
        follows = i > 4 and words[i - 1] != EDGE and len(words[i - 1]) == 1
        parts.append(Part(word, LEARN if follows and rng.random() < 0.5 else GIVEN))
    return parts
