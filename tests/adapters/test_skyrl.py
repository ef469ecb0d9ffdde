"""SkyRL-gym plays what the plain environment plays; run with `make test-adapter-skyrl`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import parity
import pytest
from parity import ENVS, OPTIONS, PLAYERS, Game

import erl_envs
from erl_envs.adapters.rows import row
from erl_envs.core import EnvError, Message, Task
from erl_envs.sokoban import Sokoban

pytest.importorskip("skyrl_gym", reason="skyrl-gym is not installed: make test-adapter-skyrl")

import skyrl_gym
from skyrl_gym.error import Error
from skyrl_gym.metrics import aggregate_for_environment

from erl_envs.adapters import skyrl


def trajectory(
    made: dict[str, Any], answer: Callable[[list[Message]], str]
) -> tuple[list[Message], list[Any], dict[str, Any]]:
    """SkyRL's loop over an environment: make, init, step until done, metrics, close."""
    extras = {key: value for key, value in made.items() if key not in ("prompt", "env_class")}
    extras["max_turns"] = 1  # its generator puts its own there, 1 by default
    env = skyrl_gym.make(made["env_class"], env_config={}, extras=extras)
    history, _ = env.init(made["prompt"])
    first, outputs, done = list(history), [], False
    while not done:
        message = answer(history)
        output = env.step(message)
        history = [*history, {"role": "assistant", "content": message}, *output["observations"]]
        outputs.append(output)
        done = output["done"]
    metrics = env.get_metrics()
    env.close()
    return first, outputs, metrics


def saying(messages: list[str]) -> Callable[[list[Message]], str]:
    left = iter(messages)
    return lambda history: next(left)


def row_of(game: Game, **more: Any) -> dict[str, Any]:
    """As a dataset file gives it back: through JSON."""
    made = row(erl_envs.make(game.task.env, **OPTIONS), game.task, OPTIONS)
    whole = {**made, "env_class": f"erl_{game.task.env}", **more}
    loaded: dict[str, Any] = json.loads(json.dumps(whole))
    return loaded


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_every_turn_is_the_plain_environments(env: str, player: str) -> None:
    collected = []
    for game in parity.games(env, player):
        first, outputs, metrics = trajectory(row_of(game), saying(game.messages))
        assert [message["content"] for message in first] == [game.system_prompt, game.first]
        assert len(outputs) == len(game.turns)
        for output, turn in zip(outputs, game.turns, strict=True):
            assert output["observations"] == [{"role": "user", "content": turn.observation}]
            assert output["reward"] == turn.reward
            assert output["done"] == (turn.terminated or turn.truncated)
            assert output["metadata"]["terminated"] == turn.terminated
            assert output["metadata"]["truncated"] == turn.truncated
            assert output["metadata"].get("feedback") == turn.feedback
            assert not {"note", "details"} & set(output["metadata"])
        last = game.turns[-1]
        assert metrics["feedback"] == last.feedback
        assert metrics["truncated"] == last.truncated and metrics["turns"] == len(game.turns)
        assert metrics["reward"] == sum(turn.reward for turn in game.turns)
        collected.append(metrics)
    means = aggregate_for_environment(f"erl_{env}", collected)
    assert set(means) == {"reward", "turns", "solved", "truncated"}
    assert (means["solved"] == 1.0) == (player == "oracle")


def test_rows_are_the_split_and_hold_no_answer_for_the_policy() -> None:
    """What the policy is told does not depend on the answer; the question may well name it."""
    plain = erl_envs.make("hotpotqa", feedback="score")
    made = skyrl.rows("hotpotqa", "test", feedback="score")
    assert [Task.from_json(json.loads(r["task"])) for r in made] == list(
        erl_envs.tasks.load("hotpotqa", "test")
    )
    for r in made[:20]:
        asked = json.loads(r["task"])["params"]
        assert r["reward_spec"] == {"method": "rule", "ground_truth": ""}
        another = Task("hotpotqa", {**asked, "answer": "something else"})
        assert row(plain, another, {})["prompt"] == r["prompt"]


def test_a_seed_is_honoured() -> None:
    options = {"is_slippery": True, "feedback": "transitions"}
    plain = erl_envs.make("frozenlake", **options)
    plain.reset(seed=3)
    assert plain.task is not None
    made = {**row(plain, plain.task, options), "env_class": "erl_frozenlake", "seed": 11}

    def played(made: dict[str, Any]) -> list[str]:
        _, outputs, _ = trajectory(made, lambda history: "```Right```")
        return [output["observations"][0]["content"] for output in outputs]

    plain.reset(seed=11, options={"task": plain.task})
    expected, done = [], False
    while not done:
        observation, _, terminated, truncated, _ = plain.step("```Right```")
        expected.append(observation)
        done = terminated or truncated
    assert played(made) == played(made) == expected
    assert len({tuple(played({**made, "seed": seed})) for seed in range(8)}) > 1


def test_two_episodes_in_a_row_leak_nothing() -> None:
    lost, won = (
        next(parity.games("frozenlake", "random")),
        next(parity.games("frozenlake", "oracle")),
    )
    env = skyrl_gym.make("erl_frozenlake", extras=row_of(won))
    for game in (lost, won):  # the same task, the same environment
        env.init([])
        assert env.get_metrics() == {"reward": 0.0, "turns": 0, "solved": False, "truncated": False}
        for message in game.messages:
            output = env.step(message)
    assert output["metadata"]["feedback"] == won.turns[-1].feedback
    assert env.get_metrics()["turns"] == len(won.turns)


@pytest.fixture
def good() -> Iterator[tuple[Any, Game]]:
    """An episode under way, which no failure beside it may touch."""
    game = next(parity.games("sokoban", "oracle"))
    env = skyrl_gym.make("erl_sokoban", extras=row_of(game))
    env.init([])
    yield env, game
    assert [env.step(message)["observations"][0]["content"] for message in game.messages] == [
        turn.observation for turn in game.turns
    ]


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"env": "chess"}, "no environment 'chess'; valid: frozenlake, hotpotqa, sokoban"),
    ({"options": '{"rulez": 1}'}, "no option 'rulez'"),
    ({"options": "[]"}, "options must be a JSON object"),
    ({"options": None}, "bad row: "),
    ({"task": "nonsense"}, "task must be a JSON object"),
    ({"task": '{"env": "sokoban"}'}, "missing task fields ['params']"),
    ({"task": '{"env": "sokoban", "params": {"layout": []}, "id": "abc"}'}, "task id 'abc'"),
]
BAD_TASKS: list[tuple[dict[str, Any], str]] = [
    ({"task": '{"env": "sokoban", "params": {"layout": 3}}'}, "bad task or seed: "),
    ({"task": '{"env": "sokoban", "params": []}'}, "params must be a mapping"),
    ({"task": '{"env": "frozenlake", "params": {"seed": 1}}'}, "the task is for frozenlake"),
    ({"seed": "seven"}, "bad task or seed: "),
]


@pytest.mark.parametrize(("change", "message"), BAD_ROWS + BAD_TASKS, ids=str)
def test_a_bad_row_is_one_line_of_the_frameworks_error(
    change: dict[str, Any], message: str, good: tuple[Any, Game]
) -> None:
    with pytest.raises(Error) as told:
        skyrl_gym.make("erl_sokoban", extras={**row_of(good[1]), **change}).init([])
    assert message in str(told.value) and "\n" not in str(told.value)


def test_an_environment_that_fails_at_once_is_one_line_of_the_frameworks_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = skyrl_gym.make("erl_sokoban", extras=row_of(next(parity.games("sokoban", "oracle"))))

    def fail(*_: Any, **__: Any) -> None:
        raise EnvError("the retriever is down")

    monkeypatch.setattr(Sokoban, "reset", fail)
    with pytest.raises(Error, match="the retriever is down"):
        env.init([])


def test_a_bad_message_prompt_or_moment_is_told(good: tuple[Any, Game]) -> None:
    game = good[1]
    with pytest.raises(Error, match="the row lacks 'env'"):
        skyrl_gym.make("erl_sokoban")
    with pytest.raises(Error, match="No registered env with id: erl_chess"):
        skyrl_gym.make("erl_chess")
    env = skyrl_gym.make("erl_sokoban", extras=row_of(game))
    assert env.get_metrics() == {}
    with pytest.raises(Error, match="no attempt is under way"):
        env.step("```Up```")
    with pytest.raises(Error, match="first observation of its row's task"):
        env.init([{"role": "user", "content": "another board"}])
    own = [{"role": "system", "content": "My rulebook."}, {"role": "user", "content": game.first}]
    assert env.init(own)[0] == own
    for action in (None, {"text": "```Up```"}, b"```Up```"):
        with pytest.raises(Error, match="a message is text, not"):
            env.step(action)
    output = env.step("x" * 2_000_000)  # unreadable, so a turn
    assert output["observations"][0]["content"].startswith("The message could not be read")
    env.close()  # mid-episode
    del env
