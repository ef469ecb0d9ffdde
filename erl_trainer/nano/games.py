"""The corpus of the two games: playing by a rulebook, playing without one, writing a rulebook.

Letters are dealt to roles at random, and the paper's own deal is held out; so are the boards of the
test splits. A player says where the things are (symbol, row, column) before it acts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import erl_envs
from erl_envs import registry
from erl_envs.core import LEVELS, Attempt, Message, Task
from erl_envs.frozenlake.levels import PAPER_P, generate
from erl_envs.grid import DIRECTIONS, GridEnv, split_of
from erl_envs.policies.nano import OPTIONS
from erl_envs.reflection import reflection_messages, second_prompt
from erl_envs.sokoban.levels import draw_paper_room
from erl_trainer.nano.boards import Game, Rows, board_rows, cite, evidence, guess, reason
from erl_trainer.nano.examples import GIVEN, LEARN, SHOWN, Part, said, told
from erl_trainer.nano.guide import Guide

LETTERS = "ABCDEFGH"
SIDES = {"frozenlake": 5, "sokoban": 6}
"""Of the boards that nano learns, and of the games' small splits."""

ROLES: Mapping[str, Sequence[str]] = {
    "frozenlake": ("player", "goal", "hole", "frozen"),
    "sokoban": ("player", "box", "goal", "floor", "wall"),
}
"""Roles that letters are dealt to; the others' symbols follow from them."""

FULL = (4, 8, 8)
"""Turns of most attempts to reflect on: a game's own eight, or half of them."""

LOOKS = 4
"""Places of each kind that are asked for at a time."""

Behaviour = Literal["told", "careless", "untold"]


def deal(game: Game, rng: np.random.Generator) -> dict[str, str]:
    """Symbols for a game's roles at random, never the paper's own."""
    held_out = dict(opaque(game))
    while True:
        letters = [LETTERS[i] for i in rng.permutation(len(LETTERS))]
        symbols = _complete(game, dict(zip(ROLES[game], letters, strict=False)))
        if symbols != held_out:
            return symbols


def _complete(game: Game, symbols: dict[str, str]) -> dict[str, str]:
    """The symbols of the roles that are not dealt."""
    if game == "frozenlake":
        return {**opaque(game), **symbols}
    on_goal = {f"{role}_on_goal": symbols[role].lower() for role in ("player", "box")}
    return {**symbols, **on_goal}


def opaque(game: Game) -> Mapping[str, str]:
    """The paper's own symbols, which are held out."""
    kind = registry.env_class(game)
    assert issubclass(kind, GridEnv)
    return kind.opaque


def draw_task(game: Game, rng: np.random.Generator) -> Task:
    """A board or room that no test split holds."""
    while True:
        side = SIDES[game]
        if game == "frozenlake":
            cells = generate(int(rng.integers(1 << 40)), side, float(rng.uniform(*PAPER_P)))
            rows = [cells[i : i + side] for i in range(0, len(cells), side)]
            found = split_of(cells), Task(game, {"desc": rows})
        else:
            layout = draw_paper_room(rng, (side, side))
            found = split_of(layout), Task(game, {"layout": layout})
        if found[0] != "test":
            return found[1]


@dataclass
class Played:
    """An attempt, and the conversation it makes."""

    task: Task
    messages: list[Message]
    reward: float
    feedback: str
    outcome: str
    parts: list[Part]

    @property
    def attempt(self) -> Attempt:
        """As a reflector is shown it."""
        return Attempt(
            task=self.task,
            seed=0,
            messages=self.messages,
            turns=[],
            reward=self.reward,
            feedback=self.feedback,
            outcome=self.outcome,
        )


def play(
    env: GridEnv, task: Task, prompt: str, behaviour: Behaviour, rng: Any, turns: int = 8
) -> Played:
    """One attempt, or its first `turns`.

    Args:
        env: Where to play.
        task: What to play.
        prompt: The system prompt.
        behaviour: `told` plays the best action; `careless` does so too, but often stumbles, and
            learns what would have been best; `untold` guesses, and acts at random.
        rng: Source of every draw.
        turns: Of the conversation.
    """
    game: Any = env.name
    observation, _ = env.reset(options={"task": task})
    guide = Guide(task)
    messages: list[Message] = [
        {"role": "system", "content": prompt},
        {"role": "user", "content": observation},
    ]
    parts = [part for message in messages for part in told(message)]
    reward, feedback, outcome = 0.0, "", ""
    while not outcome and env.turn < turns:
        rows = board_rows(observation)
        best = guide.best()
        action = str(rng.choice(list(DIRECTIONS)))
        if behaviour == "untold":
            thought = reason(game, rows, guess(game, rows, rng))
            kind = LEARN
        else:
            thought = reason(game, rows, env.symbols)
            if best is not None and (behaviour == "told" or rng.random() < 0.7):
                action = best
            kind = LEARN if action == best else GIVEN
        text = f"{thought} {env.say(action)}"
        parts += said(Part(thought, LEARN), Part(env.say(action), kind))
        observation, step_reward, _, _, info = env.step(text)
        guide.go(action)
        answer: Message = {"role": "user", "content": observation}
        messages += [{"role": "assistant", "content": text}, answer]
        parts += told(answer, SHOWN)
        reward += step_reward
        feedback, outcome = info.get("feedback", ""), info.get("outcome", "")
    return Played(task, messages, reward, feedback, outcome, parts)


def acting(game: Game, rng: np.random.Generator, turns: int = 8) -> list[Part]:
    """The first turns of a player who is told the rules, or (one in six) is not."""
    symbols = deal(game, rng)
    task = draw_task(game, rng)
    if rng.random() < 1 / 6:
        env = make(game, symbols)
        env.reset(options={"task": task})
        return play(env, task, env.system_prompt, "untold", rng, turns).parts
    env = make(game, symbols, rules="shown")
    env.reset(options={"task": task})
    prompt = env.system_prompt if rng.random() < 0.5 else second_prompt(env, env.rules_text())
    told_by: Behaviour = "told" if rng.random() < 0.5 else "careless"
    return play(env, task, prompt, told_by, rng, turns).parts


def reflecting(game: Game, rng: np.random.Generator, lengths: Sequence[int] = FULL) -> list[Part]:
    """A failed attempt, its feedback, sometimes a memory; then evidence and the true rulebook.

    Args:
        game: Of the attempt.
        rng: Source of every draw.
        lengths: Numbers of turns, equally likely: a few turns tell as much in fewer tokens.
    """
    env, attempt, parts = _asked(game, rng, lengths)
    return parts + _reflection(game, env, _boards(attempt), attempt.feedback)


def looking(game: Game, rng: np.random.Generator) -> list[Part]:
    """A board, then places, of each of which what stands there is to be told.

    It is what a reflection cites, ten times as dense.
    """
    env = make(game, deal(game, rng))
    observation, _ = env.reset(options={"task": draw_task(game, rng)})
    rows = board_rows(observation)
    # walls are many, and players few: some places of each symbol
    places: dict[str, list[tuple[int, int]]] = {}
    for r, c in itertools.product(range(len(rows)), range(len(rows[0]))):
        places.setdefault(rows[r][c], []).append((r, c))
    some = [of[int(i)] for of in places.values() for i in rng.permutation(len(of))[:LOOKS]]
    cited: list[Part] = []
    for i in rng.permutation(len(some)):
        place, symbol = cite(rows, *some[int(i)]).split()
        cited += [Part(place, GIVEN), Part(symbol, LEARN)]
    return _shown(env, observation) + said(*cited)


def recounting(rng: np.random.Generator) -> list[Part]:
    """A room seen once and what might be noted of it; then what a reflection says of it.

    It is a reflection in a quarter of the tokens.
    """
    env = make("sokoban", deal("sokoban", rng))
    observation, _ = env.reset(options={"task": draw_task("sokoban", rng)})
    rows = board_rows(observation)
    places = {rows[r][c]: f"{r + 1},{c + 1}" for r, c in np.ndindex(len(rows), len(rows[0]))}
    notes = []
    at = places.get(env.symbols["player"])
    if at and rng.random() < 0.8:
        notes.append(f"the player moved from {at} to {at}.")
    at = places.get(env.symbols["box"])
    if at and rng.random() < 0.3:
        notes.append(f"the box at {at} has a wall behind it.")
    seen = "\n".join([observation, *notes])
    return _shown(env, seen) + _reflection("sokoban", env, [rows], seen)


def _shown(env: GridEnv, text: str) -> list[Part]:
    """The system prompt and a first message."""
    prompt = told({"role": "system", "content": env.system_prompt})
    return prompt + told({"role": "user", "content": text})


def _reflection(game: Game, env: GridEnv, boards: Sequence[Rows], feedback: str) -> list[Part]:
    """What a reflector says: the evidence and the true rulebook."""
    thought = evidence(game, boards, env.symbols, feedback)
    rulebook = f"<prompt>{env.rules_text()}</prompt>"
    return said(Part(thought, LEARN), Part(rulebook, LEARN))


def _boards(attempt: Attempt) -> list[Rows]:
    return [board_rows(m["content"]) for m in attempt.messages if m["role"] == "user"]


def _asked(
    game: Game, rng: np.random.Generator, lengths: Sequence[int]
) -> tuple[GridEnv, Attempt, list[Part]]:
    """A failed attempt, and what a reflector is asked about it."""
    symbols = deal(game, rng)
    level = LEVELS[int(rng.choice(4, p=(0.08, 0.12, 0.7, 0.1)))]
    turns = lengths[int(rng.integers(len(lengths)))]
    env = make(game, symbols, feedback=level, max_turns=turns)
    while True:
        task = draw_task(game, rng)
        env.reset(options={"task": task})
        behaviour: Behaviour = "untold" if rng.random() < 0.75 else "careless"
        attempt = play(env, task, env.system_prompt, behaviour, rng).attempt
        if attempt.reward < 1:
            break
    memory = None
    if rng.random() < 0.25:
        known = symbols if rng.random() < 0.6 else _muddle(game, symbols, rng)
        memory = make(game, known).rules_text()
    system, user = reflection_messages(env, attempt, memory)
    return env, attempt, told(system) + told(user, SHOWN)


def _muddle(game: Game, symbols: Mapping[str, str], rng: np.random.Generator) -> dict[str, str]:
    """The symbols, with two roles exchanged; never the paper's own."""
    dealt, muddled = {role: symbols[role] for role in ROLES[game]}, dict(opaque(game))
    while muddled == opaque(game):
        one, other = (str(role) for role in rng.choice(ROLES[game], 2, replace=False))
        muddled = _complete(game, {**dealt, one: symbols[other], other: symbols[one]})
    return muddled


def make(game: Game, symbols: Mapping[str, str], **options: Any) -> Any:
    """A game as nano sees it, with these symbols."""
    return erl_envs.make(game, symbols=symbols, **{**OPTIONS[game], **options})
