"""rLLM's interface, by a stub: the real package has no release that could be installed here.

The stub holds what rLLM 0.3 documents (types, two decorators) and nothing more. If a real `rllm` is
installed, it is used instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import parity
import pytest
from loopback import Reply, Request, says, serving
from parity import ENVS, OPTIONS, PLAYERS, Game

import erl_envs
from erl_envs.adapters.rows import row
from erl_envs.core import Task
from erl_envs.sokoban import Sokoban

pytest.importorskip("pydantic", reason="pydantic is not installed: make test-adapter-rllm")

STUB = {
    "rllm/__init__.py": """
from rllm.eval.types import EvalOutput

class Flow:
    def __init__(self, function, name):
        self.function, self.name = function, name

    async def arun(self, task, config):
        episode = await self.function(task, config)
        if episode.task is None:
            episode.task = task.metadata
        return episode

class Evaluator:
    def __init__(self, function):
        self.function = function

    def evaluate(self, task, episode):
        found = self.function(task, episode)
        assert isinstance(found, EvalOutput)
        return found

def rollout(*, name="solver"):
    return lambda function: Flow(function, name)

evaluator = Evaluator
""",
    "rllm/eval/__init__.py": "",
    "rllm/eval/types.py": """
from dataclasses import dataclass, field

@dataclass
class Signal:
    name: str
    value: float

@dataclass
class EvalOutput:
    reward: float
    is_correct: bool
    signals: list = field(default_factory=list)
    metadata: dict = field(default_factory=dict)
""",
    "rllm/types.py": """
from dataclasses import dataclass, field
from typing import Any
from pydantic import BaseModel, Field

@dataclass
class Task:
    id: str
    instruction: str
    metadata: dict = field(default_factory=dict)

@dataclass
class AgentConfig:
    base_url: str
    model: str
    session_uid: str
    metadata: dict = field(default_factory=dict)

class Step(BaseModel):
    input: Any = None
    output: Any = None
    action: Any = None
    reward: float = 0.0
    done: bool = False

class Trajectory(BaseModel):
    name: str = "agent"
    steps: list[Step] = Field(default_factory=list)
    reward: float | None = None

class Episode(BaseModel):
    task: Any = None
    is_correct: bool = False
    trajectories: list[Trajectory] = Field(default_factory=list)
    artifacts: dict[str, Any] = Field(default_factory=dict)
""",
    "rllm-0.3.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: rllm\nVersion: 0.3.0\n",
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The adapter's module, imported beside the stub, and forgotten again."""
    home = tmp_path_factory.mktemp("stub")
    real = importlib.util.find_spec("rllm") is not None
    if not real:
        for name, text in STUB.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        sys.path.insert(0, str(home))
        importlib.invalidate_caches()
    yield importlib.import_module("erl_envs.adapters.rllm")
    if not real:
        sys.path.remove(str(home))
        for name in [name for name in sys.modules if name.partition(".")[0] == "rllm"]:
            del sys.modules[name]
        del sys.modules["erl_envs.adapters.rllm"]


class Server:
    """A chat server: the model `NUMBER` says the messages of that game, turn by turn."""

    def __init__(self) -> None:
        self.games: list[Game] = []
        self.heard: dict[int, list[dict[str, Any]]] = {}
        self.raw: bytes | None = None
        self.url = ""

    def answer(self, request: Request) -> Reply:
        """To a request."""
        number, messages = int(request.body["model"]), request.body["messages"]
        self.heard[number] = messages
        turn = sum(message["role"] == "assistant" for message in messages)
        status = 200 if request.path == "/sessions/s/v1/chat/completions" else 404
        if self.raw is not None:
            return Reply(self.raw, status)
        reply = says(self.games[number].messages[turn])
        return Reply(reply.raw, status)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with serving(made.answer) as url:
        made.url = f"{url}/sessions/s/v1"
        yield made


def row_of(game: Game, **more: Any) -> dict[str, Any]:
    made = row(erl_envs.make(game.task.env, **OPTIONS), game.task, OPTIONS)
    loaded: dict[str, Any] = json.loads(json.dumps({**made, **more}))
    return loaded


def flow(
    adapter: Any, server: Server, metadata: dict[str, Any], number: int, **settings: Any
) -> Any:
    from rllm.types import AgentConfig
    from rllm.types import Task as RllmTask

    task = RllmTask(id=str(number), instruction="", metadata=metadata)
    config = AgentConfig(base_url=server.url, model=str(number), session_uid=f"u:{number}")
    for name, value in settings.items():  # those of newer versions
        setattr(config, name, value)
    return adapter.play.arun(task, config)


def check(adapter: Any, game: Game, episode: Any, heard: list[dict[str, Any]]) -> None:
    (trajectory,) = episode.trajectories
    ended, last = episode.artifacts, game.turns[-1]
    assert [step.output for step in trajectory.steps] == game.messages
    assert [step.reward for step in trajectory.steps] == [turn.reward for turn in game.turns]
    assert [step.done for step in trajectory.steps] == [
        turn.terminated or turn.truncated for turn in game.turns
    ]
    told = [game.system_prompt, game.first]
    for turn in game.turns:
        told += [turn.message, turn.observation]
    assert [message["content"] for message in ended["messages"]] == told
    assert [message["content"] for message in heard] == told[:-2]
    for number, step in enumerate(trajectory.steps):
        assert [message["content"] for message in step.input] == told[: 2 * number + 2]
    assert (ended["feedback"], ended["truncated"]) == (last.feedback, last.truncated)
    assert ended["terminated"] == last.terminated
    scored = adapter.score.evaluate(episode.task, episode)
    assert scored.reward == trajectory.reward == sum(turn.reward for turn in game.turns)
    assert scored.is_correct == episode.is_correct == (scored.reward >= 1)
    assert scored.metadata["feedback"] == last.feedback
    json.dumps(ended)


def test_without_rllm_one_line_tells_what_is_missing() -> None:
    if importlib.util.find_spec("rllm") is not None:
        pytest.skip("rllm is installed")
    with pytest.raises(ImportError) as told:
        importlib.import_module("erl_envs.adapters.rllm")
    assert "this adapter needs rllm 0.3 or newer" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_every_turn_is_the_plain_environments(
    env: str, player: str, adapter: Any, server: Server
) -> None:
    server.games = list(parity.games(env, player))

    async def all_at_once() -> list[Any]:
        flows = [flow(adapter, server, row_of(game), i) for i, game in enumerate(server.games)]
        return list(await asyncio.gather(*flows))

    for number, episode in enumerate(asyncio.run(all_at_once())):
        check(adapter, server.games[number], episode, server.heard[number])


def test_a_seed_is_honoured(adapter: Any, server: Server) -> None:
    options = {"is_slippery": True, "feedback": "transitions"}
    plain = erl_envs.make("frozenlake", **options)
    plain.reset(seed=3)
    assert plain.task is not None
    made = row(plain, plain.task, options)
    plain.reset(seed=11, options={"task": plain.task})
    turns: list[parity.Played] = []
    done = False
    while not done:
        seen, reward, terminated, truncated, info = plain.step("```Right```")
        turn = parity.Played(
            "```Right```", seen, reward, terminated, truncated, info.get("feedback")
        )
        turns.append(turn)
        done = terminated or truncated
    first = made["prompt"][-1]["content"]
    server.games = [Game(plain.task, plain.system_prompt, first, turns)]
    episode = asyncio.run(flow(adapter, server, {**made, "seed": 11}, 0))
    check(adapter, server.games[0], episode, server.heard[0])


def test_the_event_loop_never_waits_for_an_environment(
    adapter: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.games = list(parity.games("sokoban", "oracle"))[:1]
    made, threads = row_of(server.games[0]), []

    def spied(method: Callable[..., Any]) -> Callable[..., Any]:
        def spy(*args: Any, **kwargs: Any) -> Any:
            threads.append(threading.current_thread())
            return method(*args, **kwargs)

        return spy

    for name in ("__init__", "reset", "step"):
        monkeypatch.setattr(Sokoban, name, spied(getattr(Sokoban, name)))
    asyncio.run(flow(adapter, server, made, 0))
    assert len(threads) == 2 + len(server.games[0].turns)
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("params", [None, {}, {"temperature": 0.5}])
def test_sampling_parameters_may_be_none(params: Any, adapter: Any, server: Server) -> None:
    server.games = list(parity.games("sokoban", "oracle"))[:1]
    played = flow(adapter, server, row_of(server.games[0]), 0, sampling_params=params)
    check(adapter, server.games[0], asyncio.run(played), server.heard[0])


def test_rows_are_the_split(adapter: Any) -> None:
    made = adapter.rows("hotpotqa", "test", feedback="score")
    split = erl_envs.tasks.load("hotpotqa", "test")
    assert [Task.from_json(json.loads(r["task"])) for r in made] == list(split)
    assert [r["uid"] for r in made] == [task.id for task in split]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"env": "chess"}, "no environment 'chess'; valid: frozenlake"),
    ({"options": '{"rulez": 1}'}, "no option 'rulez'"),
    ({"task": "nonsense"}, "task must be a JSON object"),
    ({"task": '{"env": "sokoban", "params": {"layout": []}, "id": "abc"}'}, "task id 'abc'"),
    ({"task": '{"env": "frozenlake", "params": {"seed": 1}}'}, "the task is for frozenlake"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=str)
def test_a_bad_row_is_one_line(
    change: dict[str, Any], message: str, adapter: Any, server: Server
) -> None:
    server.games = list(parity.games("sokoban", "oracle"))[:2]

    async def beside_a_good_one() -> list[Any]:
        bad = flow(adapter, server, row_of(server.games[0], **change), 0)
        good = flow(adapter, server, row_of(server.games[1]), 1)
        return list(await asyncio.gather(bad, good, return_exceptions=True))

    error, episode = asyncio.run(beside_a_good_one())
    assert isinstance(error, ValueError)
    assert message in str(error) and "\n" not in str(error)
    check(adapter, server.games[1], episode, server.heard[1])


def test_a_row_of_something_else_and_a_failing_server(adapter: Any, server: Server) -> None:
    server.games = list(parity.games("sokoban", "oracle"))[:1]
    with pytest.raises(ValueError, match="the row lacks 'env'"):
        asyncio.run(flow(adapter, server, {"question": "1 + 1"}, 0))
    for raw in (b"no json", b"{}", b'{"choices": [{"message": {"content": 7}}]}', b"[]"):
        server.raw = raw
        with pytest.raises(RuntimeError, match="no message from http") as told:
            asyncio.run(flow(adapter, server, row_of(server.games[0]), 0))
        assert "\n" not in str(told.value)
    server.raw = b'{"choices": [{"message": {"content": null}}]}'
    episode = asyncio.run(flow(adapter, server, row_of(server.games[0]), 0))
    assert episode.artifacts["outcome"] == "out_of_turns" and episode.artifacts["truncated"]
    server.raw, server.url = None, server.url.replace("/v1", "/v2")
    with pytest.raises(RuntimeError, match="no message from http"):
        asyncio.run(flow(adapter, server, row_of(server.games[0]), 0))


def test_a_server_that_drips_is_not_waited_for(
    adapter: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "TIMEOUT", 0.3)
    game = next(iter(parity.games("sokoban", "oracle")))

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(ConnectionError):
            for _piece in range(100):
                writer.write(b"X: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()

    async def play() -> None:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as listening:
            server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            await flow(adapter, server, row_of(game), 0)

    with pytest.raises(RuntimeError, match=r"no message from http.*: no answer within 0\.3 s"):
        asyncio.run(play())
