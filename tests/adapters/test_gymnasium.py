"""Gymnasium's own ways in: `gym.make`, and `make_vec` in one process or in many."""

from __future__ import annotations

import multiprocessing
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector.utils import create_shared_memory, write_to_shared_memory
from parity import ENVS, OPTIONS, PLAYERS, Game, Played, games, play

import erl_envs
from erl_envs import spaces

IDS = {
    "frozenlake": "erl_envs:erl_envs/FrozenLake-v0",
    "sokoban": "erl_envs/Sokoban-v0",
    "hotpotqa": "erl_envs/HotpotQA-v0",
}


def test_every_environment_has_an_id() -> None:
    assert sorted(IDS) == sorted(ENVS)


@pytest.mark.parametrize("env", ENVS)
def test_gymnasiums_checker_has_no_complaint(env: str) -> None:
    check_env(gym.make(IDS[env], **OPTIONS).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_made_by_id_it_is_the_plain_environment(env: str, player: str) -> None:
    made = gym.make(IDS[env], **OPTIONS)
    for game in games(env, player):
        assert made.reset(options={"task": game.task})[0] == game.first
        for turn in game.turns:
            observation, reward, lost, cut, info = made.step(turn.message)
            feedback = info.get("feedback")
            assert Played(turn.message, observation, float(reward), lost, cut, feedback) == turn


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_side_by_side_they_are_the_plain_environment(env: str, player: str, mode: Any) -> None:
    """Another game in every place, of another length, one round after another."""
    vector: Any = gym.make_vec(IDS[env], num_envs=3, vectorization_mode=mode, **OPTIONS)
    try:
        for seeds in ([3, 4, 5], [8, 7, 6]):
            round_of([seeded(env, seed, player) for seed in seeds], vector, seeds)
    finally:
        vector.close()


def seeded(env: str, seed: int, player: str) -> Game:
    plain = erl_envs.make(env, **OPTIONS)
    plain.reset(seed=seed)
    assert plain.task is not None
    return play(plain, plain.task, player, np.random.default_rng(seed))


def round_of(played: list[Game], vector: Any, seeds: list[int]) -> None:
    first, _ = vector.reset(seed=seeds)
    assert list(first) == [game.first for game in played] and len(set(first)) == len(played)
    for turn in range(max(len(game.turns) for game in played)):
        live = [place for place, game in enumerate(played) if turn < len(game.turns)]
        said = tuple(g.messages[turn] if p in live else "" for p, g in enumerate(played))
        found, rewards, terminated, truncated, infos = vector.step(said)
        ended = infos.get("_feedback", [False] * len(played))
        for place in live:
            told = infos["feedback"][place] if ended[place] else None
            ends = bool(terminated[place]), bool(truncated[place])
            seen = Played(said[place], found[place], float(rewards[place]), *ends, told)
            assert seen == played[place].turns[turn]


@pytest.mark.parametrize("env", ENVS)
def test_places_have_seeds_and_texts_of_their_own(env: str) -> None:
    vectors: list[Any] = [
        gym.make_vec(IDS[env], num_envs=4, vectorization_mode=mode, **OPTIONS)
        for mode in ("sync", "async")
    ]
    try:
        for seeds in ([3, 4, 5, 6], [6, 5, 4, 3]):
            here, there = (list(v.reset(seed=seeds)[0]) for v in vectors)
            assert here == there and len(set(here)) > 1
    finally:
        for vector in vectors:
            vector.close()


def test_a_copy_outlives_the_next_step_and_any_character_passes() -> None:
    space = spaces.UnicodeText(8)
    memory = create_shared_memory(space, n=2, ctx=multiprocessing)
    texts = spaces.SharedTexts(spaces._rows(space, memory))
    write: Any = write_to_shared_memory
    write(space, 1, "√\n\ud800🙂", memory)
    assert list(texts) == ["", "√\n\ud800🙂"]
    write(space, 1, "x", memory)
    assert texts[0:2] == ("", "x")
    with pytest.raises(ValueError, match="9 characters; the space has 8"):
        write(space, 0, "123456789", memory)
