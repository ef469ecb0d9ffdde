"""verifiers carries what the environments say, through its own commands and its own loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers", reason="verifiers is not installed: make test-adapter-verifiers")

import verifiers.v1 as vf
from loopback import Reply, Request, says, serving
from parity import ENVS, EPISODES, OPTIONS, PLAYERS, Game, games
from verifiers.v1.utils.loaders import load_environment, resolve_env_config

import erl_envs
from erl_envs.core import EnvError
from erl_envs.frozenlake import FrozenLake

Messages = list[dict[str, Any]]


@contextmanager
def model(write: Callable[[str, Messages], str]) -> Iterator[str]:
    """The base URL of an OpenAI-compatible server on loopback.

    Args:
        write: The next message, of the model's name and the conversation; what it raises is
            answered with status 500.
    """

    def answer(request: Request) -> Reply:
        asked = request.body
        try:
            text = write(asked["model"], asked["messages"])
        except (LookupError, AssertionError) as error:
            return Reply({"error": {"message": repr(error)}}, 500)
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        kind = {"id": "x", "object": "chat.completion", "created": 0, "model": asked["model"]}
        return says(text, usage=usage, **kind)

    with serving(answer) as url:
        yield f"{url}/v1"


def command(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of verifiers' commands, of this Python's environment."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(name)), *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def by_opening(played: Sequence[Game]) -> dict[tuple[str, str], Game]:
    found = {(game.system_prompt, game.first): game for game in played}
    assert len(found) == len(played)
    return found


def conversation(game: Game, turns: int) -> list[tuple[str, str]]:
    """What the policy has seen and said after so many turns."""
    said = [("system", game.system_prompt), ("user", game.first)]
    for turn in game.turns[:turns]:
        said += [("assistant", turn.message), ("user", turn.observation)]
    return said


def player(known: Mapping[tuple[str, str], Game]) -> Callable[[str, Messages], str]:
    """Writes what a game's player wrote, and fails at any byte that is not the plain game's."""

    def write(_: str, messages: Messages) -> str:
        game = known[messages[0]["content"], messages[1]["content"]]
        turns = len(messages) // 2 - 1
        seen = [(message["role"], message["content"]) for message in messages]
        assert seen == conversation(game, turns)
        return game.messages[turns]

    return write


def check(trace: Mapping[str, Any], game: Game) -> None:
    """A trace, as JSON, tells what the plain environment did."""
    assert trace["ok"] and not trace["errors"], trace["errors"]
    said = [(node["message"]["role"], node["message"]["content"]) for node in trace["nodes"]]
    assert said == conversation(game, len(game.turns))[:-1]
    last = game.turns[-1]
    reward = sum(turn.reward for turn in game.turns)
    told = dict(trace["info"])
    assert told.pop("outcome")
    assert told == {
        "observation": last.observation,
        "reward": reward,
        "terminated": last.terminated,
        "truncated": last.truncated,
        "feedback": last.feedback,
    }
    assert trace["rewards"]["env_reward"]["score"] == reward
    assert trace["task"]["key"] == game.task.id


def episodes(
    env: str, url: str, count: int = EPISODES, **taskset: Any
) -> tuple[list[vf.Task], list[vf.Episode]]:
    """The first tasks of a taskset and their episodes, through verifiers' loop in this process."""
    limits = taskset.pop("player", {})
    given = {"id": f"erl-{env}", "options": OPTIONS, **taskset}
    loaded = load_environment(resolve_env_config({"taskset": given, "player": limits}))
    client = vf.EvalClientConfig(base_url=url, api_key_var="NO_KEY")
    context = vf.ModelContext(model="any", client=client, sampling=vf.SamplingConfig())
    found = list(loaded.taskset.take(count))

    async def play() -> list[vf.Episode]:
        slots = [slot for task in found for slot in loaded.slots(task)]
        async with loaded.serving():
            return list(await asyncio.gather(*(loaded.run_slot(s, context) for s in slots)))

    return found, asyncio.run(play())


@pytest.fixture(autouse=True)
def a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_KEY", "none")


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("name", PLAYERS)
def test_plays_as_the_plain_environment(env: str, name: str) -> None:
    known = list(games(env, name))
    with model(player(by_opening(known))) as url:
        _, played = episodes(env, url)
    for episode, game in zip(played, known, strict=True):
        assert episode.ok
        check(episode.traces[0].to_record(), game)


@pytest.mark.parametrize("env", ENVS)
def test_vf_eval(env: str, tmp_path: Path) -> None:
    known = list(games(env, "oracle"))
    with model(player(by_opening(known))) as url:
        arguments = ("-n", 3, "-r", 2, "--env.taskset.options", json.dumps(OPTIONS))
        done = command(
            "vf-eval",
            *(f"erl-{env}", "--model", "stub", "--client.base-url", url, "-o", tmp_path),
            *("--client.api-key-var", "NO_KEY", "--no-push", "--no-rich", *arguments),
        )
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = tmp_path.rglob("traces.jsonl")
    lines = [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()]
    assert sorted(line["task"]["data"]["idx"] for line in lines) == [0, 0, 1, 1, 2, 2]
    for line in lines:
        check(line["traces"][0], known[line["task"]["data"]["idx"]])


@pytest.mark.parametrize("env", ENVS)
def test_vf_validate(env: str, tmp_path: Path) -> None:
    done = command(
        *("vf-validate", f"erl-{env}", "-n", 5, "-o", tmp_path),
        *("--runtime.type", "subprocess", "--no-rich"),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (found,) = tmp_path.rglob("results.jsonl")
    rows = [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()]
    assert [row["reason"] for row in rows] == ["valid"] * 5, rows
    assert all(row["noop"]["rewards"] == {"env_reward": 0.0} for row in rows)


def test_seeds_are_honoured() -> None:
    """The slips too: they are drawn from what is left of the stream that drew the task."""
    options = {**OPTIONS, "is_slippery": True}
    plain = erl_envs.make("frozenlake", **options)

    def write(_: str, messages: Messages) -> str:
        return "```Up```"

    with model(write) as url:
        found, played = episodes("frozenlake", url, seeds=4, options=options)
    assert [task.data.seed for task in found] == [0, 1, 2, 3]
    assert len({task.key for task in found}) == 4
    for seed, (task, episode) in enumerate(zip(found, played, strict=True)):
        first, info = plain.reset(seed=seed)
        assert (task.data.prompt, task.data.id) == (first, info["task_id"])
        seen = [node.message.content for node in episode.traces[0].nodes if not node.sampled][2:]
        told = [plain.step("```Up```") for _ in range(len(seen) + 1)]
        assert seen == [step[0] for step in told[:-1]]
        assert episode.traces[0].info["feedback"] == told[-1][4]["feedback"]


def test_the_environment_reads_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["  ```Up``` \n", "", "no action", "\t```Right```"]
    read: list[str] = []
    parse = FrozenLake.parse

    def spy(self: FrozenLake, text: str) -> tuple[str | None, str]:
        read.append(text)
        return parse(self, text)

    monkeypatch.setattr(FrozenLake, "parse", spy)
    options = {**OPTIONS, "max_turns": 4, "symbols": "canonical"}
    with model(lambda _, messages: texts[len(messages) // 2 - 1]) as url:
        _, (episode,) = episodes("frozenlake", url, 1, options=options)
    assert episode.ok and read == texts[: len(read)] and len(read) >= 2
    said = [node.message.content for node in episode.traces[0].nodes if node.sampled]
    assert [text or "" for text in said] == read  # verifiers writes an empty text as None


def test_an_environment_that_fails_makes_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    known = list(games("frozenlake", "random"))[:6]
    step = FrozenLake.step

    def fail(self: FrozenLake, action: str) -> Any:
        assert self.task is not None
        if self.task.id == known[2].task.id and self.turn == len(known[2].turns) - 1:
            raise EnvError("the retriever is down")
        return step(self, action)

    monkeypatch.setattr(FrozenLake, "step", fail)
    with model(player(by_opening(known))) as url:
        _, played = episodes("frozenlake", url, 6)
    for number, episode in enumerate(played):
        if number == 2:
            assert not episode.ok and not episode.traces[0].ok
            assert "EnvError: the retriever is down" in episode.errors[0].message
            assert not any(episode.traces[0].rewards.values())
            assert "feedback" not in episode.traces[0].info
        else:
            check(episode.traces[0].to_record(), known[number])


def test_a_model_that_fails_mid_episode_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [game for game in games("frozenlake", "random") if len(game.turns) > 1]
    write = player(by_opening(known))

    def breaks(name: str, messages: Messages) -> str:
        if messages[1]["content"] == known[0].first and len(messages) > 2:
            raise LookupError("gone")
        return write(name, messages)

    with model(breaks) as url:
        found, played = episodes("frozenlake", url)
    at = {task.data.id: episode for task, episode in zip(found, played, strict=True)}
    lost = at[known[0].task.id]
    assert not lost.ok and lost.traces[0].errors[0].type == "ProviderError"
    assert not any(lost.traces[0].rewards.values())
    for game in known[1:]:
        check(at[game.task.id].traces[0].to_record(), game)


def test_turns_that_verifiers_cuts_are_truncated() -> None:
    (game,) = [game for game in games("frozenlake", "random") if len(game.turns) > 3][:1]
    with model(player(by_opening(list(games("frozenlake", "random"))))) as url:
        found, played = episodes("frozenlake", url, player={"max_turns": 2})
    at = {task.data.id: episode for task, episode in zip(found, played, strict=True)}
    trace = at[game.task.id].traces[0]
    assert (trace.ok, trace.stop_condition) == (True, "max_turns")
    assert trace.info == {"reward": 0.0, "terminated": False, "truncated": True}
    assert trace.reward == 0.0


@pytest.mark.parametrize(
    ("taskset", "reason"),
    [
        ({"split": "tset"}, "frozenlake has no split 'tset'; valid: train, test"),
        ({"options": {"rule": "shown"}}, "frozenlake has no option 'rule'; valid options: rules"),
        ({"options": {"rules": "show"}}, "bad value 'show' for rules; valid: 'hidden', 'shown'"),
    ],
)
def test_bad_tasksets(taskset: dict[str, Any], reason: str) -> None:
    given = {"id": "erl-frozenlake", **taskset}
    loaded = load_environment(resolve_env_config({"taskset": given}))
    with pytest.raises(ValueError, match=reason) as caught:
        list(loaded.taskset)
    assert "\n" not in str(caught.value)


def test_an_unknown_task_is_an_error_of_its_episode() -> None:
    with model(lambda *_: "") as url:
        loaded = load_environment(resolve_env_config({"taskset": {"id": "erl-frozenlake"}}))
        client = vf.EvalClientConfig(base_url=url, api_key_var="NO_KEY")
        context = vf.ModelContext(model="any", client=client, sampling=vf.SamplingConfig())
        task = next(iter(loaded.taskset)).with_data(task='{"env": "frozenlake"}')

        async def play() -> vf.Episode:
            async with loaded.serving():
                return await loaded.run_episode(task, context)

        episode = asyncio.run(play())
    assert not episode.ok and "missing task fields ['params']" in episode.errors[0].message
