"""GEM plays what the plain environment plays; run with `make test-adapter-gem`."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import parity
import pytest
from parity import ENVS, EPISODES, OPTIONS, PLAYERS, Game

import erl_envs
from erl_envs import tasks

pytest.importorskip("gem", reason="gem-llm is not installed: make test-adapter-gem")

import gem
from gem.wrappers.wrapper_factory import get_wrapper_fns

import erl_envs.adapters.gem


def made(env: str, **more: Any) -> Any:
    return gem.make(f"erl:{env}", **{"split": "test", **OPTIONS, **more})


def check_turn(turn: parity.Played, stepped: tuple[Any, ...], prefix: str) -> None:
    observation, reward, terminated, truncated, info = stepped
    assert (observation, reward) == (turn.observation, turn.reward)
    assert (terminated, truncated) == (turn.terminated, turn.truncated)
    assert info["prefix"] == prefix and info.get("feedback") == turn.feedback
    assert set(info) <= {"prefix", "feedback", "outcome"}  # a note would name hidden things


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_every_turn_is_the_plain_environments(env: str, player: str) -> None:
    one, ended = made(env), None
    for number, game in enumerate(parity.games(env, player)):
        observation, info = one.reset(idx=number)
        prefix = f"{game.system_prompt}\n\n"
        assert (observation, info.pop("prefix")) == (game.first, prefix)
        assert info == {"task_id": game.task.id} | ({"ended": ended} if ended else {})
        for message, turn in zip(game.messages, game.turns, strict=True):
            stepped = one.step(message)
            check_turn(turn, stepped, prefix)
        ended = {
            "observation": turn.observation,
            "feedback": turn.feedback,
            "outcome": stepped[-1]["outcome"],
        }


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_a_vector_of_them_does_too_and_no_feedback_is_lost(
    env: str, player: str, asynchronous: bool
) -> None:
    """GEM's own loop: it resets what ended at once, and lets the last step's info go."""
    games = list(parity.games(env, player))
    vector = gem.make_vec(
        [f"erl:{env}"] * EPISODES, async_mode=asynchronous, seed=5, split="test", **OPTIONS
    )
    vector.reset(seed=9)
    firsts = [one.reset(idx=number) for number, one in enumerate(vector.envs)]
    assert [observation for observation, _ in firsts] == [game.first for game in games]
    for turn in range(max(len(game.turns) for game in games)):
        live = {i: game.messages[turn] for i, game in enumerate(games) if turn < len(game.turns)}
        observations, rewards, terminated, truncated, infos = vector.step(live)
        for at, number in enumerate(live):
            expected, info = games[number].turns[turn], infos[at]
            assert rewards[at] == expected.reward
            assert (terminated[at], truncated[at]) == (expected.terminated, expected.truncated)
            if expected.feedback is None:
                assert observations[at] == expected.observation
            else:
                assert info["ended"]["observation"] == expected.observation
                assert info["ended"]["feedback"] == expected.feedback
                assert "feedback" not in info


def test_wrappers_tell_the_system_prompt_and_no_feedback() -> None:
    game = next(parity.games("frozenlake", "random"))
    wrapped = made("frozenlake")
    for wrapper in get_wrapper_fns("concat_with_action"):
        wrapped = wrapper(wrapped)
    told, _ = wrapped.reset()
    assert told.startswith(f"{game.system_prompt}\n\n")
    wrapped.env.reset(idx=0)
    for message in game.messages:
        told, *_ = wrapped.step(message)
    assert told.startswith(f"{game.system_prompt}\n\n") and game.messages[0] in told
    feedback = game.turns[-1].feedback
    assert feedback is not None and feedback not in told
    again, info = wrapped.reset()
    assert info["ended"]["feedback"] == feedback and feedback not in again


def test_seeds_are_honoured_and_no_global_generator_is_touched() -> None:
    plain = erl_envs.make("frozenlake", is_slippery=True)
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]

    def run(env: Any, seed: int | None) -> list[str]:
        told, ended = [env.reset(seed=seed)[0]], False
        while not ended:
            observation, _, terminated, truncated, _ = env.step("```Right```")
            told.append(observation)
            ended = terminated or truncated
        return told

    fresh = gem.make("erl:frozenlake", is_slippery=True)
    seeded = gem.make("erl:frozenlake", is_slippery=True, seed=7)  # as make_vec does
    assert run(fresh, 7) == run(seeded, None) == run(plain, 7)
    assert run(seeded, None) == run(plain, None), "a seed is for one reset"
    drawn = made("frozenlake", seed=3)
    firsts = [drawn.reset()[0] for _ in range(5)]
    other = made("frozenlake")
    assert [other.reset(seed=3)[0], *(other.reset()[0] for _ in range(4))] == firsts
    assert len(set(firsts)) > 1
    vector = gem.make_vec(["erl:sokoban"] * 3, seed=20)
    plain = erl_envs.make("sokoban")
    assert vector.reset()[0] == [plain.reset(seed=20 + i)[0] for i in range(3)]
    assert vector.reset(seed=4)[0] == [plain.reset(seed=4 + i)[0] for i in range(3)]
    after = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert before == after


@pytest.mark.parametrize("env", ENVS)
def test_spawn_and_random_actions(env: str) -> None:
    one = made(env, seed=2)
    one.reset()
    one.step("an unreadable message ends nothing")
    twin = one.spawn(same_state=True)
    words = [twin.sample_random_action() for _ in range(4)]
    assert words == [one.sample_random_action() for _ in range(4)]
    twin.step("so there is a turn between them")
    assert (one._env.turn, twin._env.turn) == (1, 2), "they share no state"
    again = one.spawn(same_state=True)
    assert again.step(words[0]) == one.step(words[0])
    fresh = one.spawn(split=None, seed=4)
    assert fresh.reset()[0] == erl_envs.make(env, **OPTIONS).reset(seed=4)[0]


def test_a_twin_shares_retriever_and_tasks() -> None:
    one = made("hotpotqa", retriever="http", retriever_url="http://127.0.0.1:9")  # never asked
    one.reset(idx=0)
    twin = one.spawn(same_state=True)
    assert twin._env is not one._env and twin._env._retriever is one._env._retriever
    assert twin._tasks is one._tasks


def test_two_episodes_in_a_row_leak_nothing() -> None:
    def play(env: Any, game: Game) -> list[Any]:
        first, info = env.reset(idx=0)
        return [first, info["task_id"], *(env.step(message) for message in game.messages)]

    lost = next(parity.games("frozenlake", "random"))
    won = next(parity.games("frozenlake", "oracle"))
    one = made("frozenlake")
    play(one, lost)
    one.reset(idx=5)  # left in the middle
    one.step("```Up```")
    assert play(one, won) == play(made("frozenlake"), won)
    one.reset(idx=3)
    assert "ended" not in one.reset(idx=4)[1], "told once, and only of the attempt before"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rulez": "shown"}, "no option 'rulez'"),
    ({"rules": "seen"}, "'hidden', 'shown'"),
    ({"split": "tset"}, "no split 'tset'; valid: train, test"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_bad_arguments_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as told:
        made("sokoban", **options)
    assert message in str(told.value) and "\n" not in str(told.value)


def test_bad_resets_and_messages_leave_the_others_alone() -> None:
    games = list(parity.games("sokoban", "oracle"))[:2]
    good, bad = made("sokoban"), made("sokoban")
    good.reset(idx=0)
    with pytest.raises(ValueError, match="erl:chess not found"):
        gem.make("erl:chess")
    with pytest.raises(RuntimeError, match="no attempt is under way"):
        bad.step("```Up```")
    for idx in (-1, 10**9, "first"):
        with pytest.raises(ValueError, match="the split has tasks 0 to 199, not"):
            bad.reset(idx=idx)
    with pytest.raises(ValueError, match="made without one"):
        gem.make("erl:sokoban").reset(idx=0)
    with pytest.raises(ValueError, match="the same state has the same split"):
        bad.spawn(same_state=True, split=None)
    bad.reset(idx=1)
    for action in (None, {"text": "```Up```"}, b"```Up```"):
        with pytest.raises(ValueError, match="a message is text, not"):
            bad.step(action)
    assert bad.step("x" * 2_000_000)[0].startswith("The message could not be read")
    del bad  # in the middle of its episode
    for message, turn in zip(games[0].messages, games[0].turns, strict=True):
        check_turn(turn, good.step(message), f"{games[0].system_prompt}\n\n")


@pytest.mark.parametrize("number", range(2))
def test_a_split_is_the_plain_one(number: int) -> None:
    one = made("hotpotqa")
    assert one.reset(idx=number)[1]["task_id"] == tasks.load("hotpotqa", "test")[number].id
