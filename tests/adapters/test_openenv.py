"""OpenEnv carries what the environments say, through its own server and clients."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: make test-adapter-openenv")

import httpx
import websockets
from answering import answering, connected, ended, eventually, read_all
from openenv.core import GenericEnvClient
from parity import ENVS, OPTIONS, PLAYERS, Game, Played, games
from websockets.sync.client import connect

import erl_envs
from erl_envs import tasks
from erl_envs.adapters.openenv import TextAction, TextClient, app
from erl_envs.asgi.server import listen
from erl_envs.core import EnvError
from erl_envs.frozenlake import FrozenLake
from erl_envs.serve import main, make_server

MAX_BODY = 1 << 16


@contextmanager
def serving(
    env: str,
    max_sessions: int = 64,
    idle: float = 600.0,
    options: Mapping[str, Any] = OPTIONS,
    max_body: int = MAX_BODY,
    buffer: int | None = None,
    file: str | None = None,
) -> Iterator[str]:
    """The URL of a server in a thread of this process."""
    made = app(env, options, max_sessions, max_body, idle, file)
    with answering(make_server(made, max_sessions, max_body, idle), buffer) as url:
        yield url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("frozenlake") as found:
        yield found


def played(message: str, result: Any) -> Played:
    seen = result.observation
    assert (seen.reward, seen.done) == (result.reward, result.done)
    assert result.done == (seen.terminated or seen.truncated)
    assert not seen.metadata and seen.system_prompt is None
    return Played(message, seen.text, result.reward, seen.terminated, seen.truncated, seen.feedback)


def replay(client: Any, game: Game) -> None:
    """Play a game through a synchronous client and find the plain environment's turns."""
    start = client.reset(task=game.task.to_json())
    assert start.observation.text == game.first
    assert start.observation.system_prompt == game.system_prompt
    assert (start.reward, start.done, start.observation.feedback) == (None, False, None)
    turns = [played(text, client.step(TextAction(text=text))) for text in game.messages]
    assert turns == game.turns
    assert client.state().task_id == game.task.id and client.state().done


@pytest.mark.parametrize("env", ENVS)
def test_plays_as_the_plain_environment(env: str) -> None:
    with serving(env) as url, TextClient(base_url=url).sync() as client:
        for player in PLAYERS:  # one session for all: an attempt leaves nothing to the next
            for game in games(env, player):
                replay(client, game)


def test_sixty_four_sessions_at_a_time(url: str) -> None:
    async def one(game: Game) -> None:
        async with TextClient(base_url=url) as client:
            start = await client.reset(task=game.task.to_json())
            assert start.observation.text == game.first
            await everyone.wait()
            for turn in game.turns:
                assert (
                    played(turn.message, await client.step(TextAction(text=turn.message))) == turn
                )
            assert (await client.state()).task_id == game.task.id
            await everyone.wait()
            if game is mixed[0]:
                with pytest.raises(RuntimeError, match="Server at capacity: 64/64"):
                    await TextClient(base_url=url).reset()
            await everyone.wait()

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, mixed))

    mixed = [*games("frozenlake", "random"), *games("frozenlake", "oracle")]
    mixed = (mixed * 2)[:64]
    everyone = Barrier(64)
    asyncio.run(all_of_them())


class Barrier:
    """Lets go when so many wait, again and again."""

    def __init__(self, count: int) -> None:
        self._count, self._waiting, self._gate = count, 0, asyncio.Event()

    async def wait(self) -> None:
        self._waiting += 1
        gate = self._gate
        if self._waiting == self._count:
            self._waiting, self._gate = 0, asyncio.Event()
            gate.set()
        await gate.wait()


def test_seeds_are_honoured(url: str) -> None:
    with TextClient(base_url=url).sync() as client:
        for seed in (0, 7, 7, 2**40):
            plain = erl_envs.make("frozenlake", **OPTIONS)
            text, info = plain.reset(seed=seed)
            start = client.reset(seed=seed, episode_id=f"seed {seed}")
            assert start.observation.text == text
            state = client.state()
            assert (state.task_id, state.episode_id) == (info["task_id"], f"seed {seed}")
            step = client.step(TextAction(text="```Up```"))
            assert step.observation.text == plain.step("```Up```")[0]


def test_task_verbs_name_tasks_and_tell_nothing_of_them() -> None:
    with serving("hotpotqa") as url:
        known = tasks.load("hotpotqa", "test", **OPTIONS)
        with httpx.Client(base_url=f"{url}/hotpotqa", timeout=30) as http:
            names = http.get("/splits").json()
            assert [name["name"] for name in names] == tasks.splits("hotpotqa")
            assert http.post("/num_tasks", json={"split": "test"}).json()["num_tasks"] == len(known)
            specs = http.post("/tasks", json={"split": "test"}).json()["tasks"]
            assert specs == [{"id": t.id, "index": i, "split": "test"} for i, t in enumerate(known)]
            part = http.post("/task_range", json={"split": "test", "start": 3, "stop": 5}).json()
            assert part["tasks"] == specs[3:5]
            one = http.post("/task", json={"split": "test", "index": 3}).json()["task"]
            assert one == specs[3]
            gone = http.post("/task", json={"split": "test", "index": 10**6})
            assert (gone.status_code, gone.json()["detail"]) == (400, "Invalid task index")
            none = http.post("/num_tasks", json={"split": "tset"})
            assert none.status_code == 422 and "no split 'tset'" in none.json()["detail"]
        with TextClient(base_url=url).sync() as client:
            start = client.reset(split="test", index=3)
            assert client.state().task_id == one["id"]
            plain = erl_envs.make("hotpotqa", **OPTIONS)
            assert start.observation.text == plain.reset(options={"task": known[3]})[0]


def test_salted_sets_are_not_served() -> None:
    task = tasks.load("hotpotqa", "test", **OPTIONS)[0]
    salted = {"env": "hotpotqa", "params": {**task.params, "corpus": "test@salt"}}
    own = {**task.params, "context": [["A title", ["A sentence."]]]}
    with serving("hotpotqa") as url, httpx.Client(base_url=url, timeout=30) as http:
        split: dict[str, Any] = {"split": "test@salt"}
        asked: list[tuple[str, dict[str, Any]]] = [
            ("hotpotqa/num_tasks", split),
            ("hotpotqa/tasks", split),
            ("hotpotqa/task", split | {"index": 0}),
            ("hotpotqa/task_range", split),
            ("reset", split | {"index": 0}),
            ("reset", {"task": salted}),
            ("reset", {"task": json.dumps(salted)}),
        ]
        for path, body in asked:
            answer = http.post(f"/{path}", json=body)
            assert answer.status_code == 422
            assert "salted sets are not served" in answer.json()["detail"]
        served = http.post("/reset", json={"task": {"env": "hotpotqa", "params": own}})
        assert served.status_code == 200


def test_a_file_is_the_operators_alone_to_name(tmp_path: Path) -> None:
    path = tmp_path / "maps.txt"
    path.write_text("SFG\n\nSFFG\n", encoding="utf-8")
    own = tasks.load("frozenlake", f"file:{path}", **OPTIONS)
    with serving("frozenlake", file=f"file:{path}") as url:
        with httpx.Client(base_url=f"{url}/frozenlake", timeout=30) as http:
            names = [split["name"] for split in http.get("/splits").json()]
            assert names == [*tasks.splits("frozenlake"), "file"]
            specs = http.post("/tasks", json={"split": "file"}).json()["tasks"]
            assert specs == [{"id": t.id, "index": i, "split": "file"} for i, t in enumerate(own)]
        with TextClient(base_url=url).sync() as client:
            client.reset(split="file", index=1)
            assert client.state().task_id == own[1].id
    for file in (f"file:{path}", None):
        with (
            serving("frozenlake", file=file) as url,
            httpx.Client(base_url=url, timeout=30) as http,
        ):
            for split in (f"file:{path}", f"strict-file:{path}", "file:/etc/passwd"):
                for verb, body in (("reset", {"index": 0}), ("frozenlake/num_tasks", {})):
                    answer = http.post(f"/{verb}", json={"split": split, **body})
                    assert answer.status_code == 422
                    assert "not served, nor files" in answer.json()["detail"]
            unnamed = http.post("/frozenlake/num_tasks", json={"split": "file"})
            assert unnamed.status_code == (422 if file is None else 200)
            assert str(path) not in http.get("/frozenlake/splits").text


DEEP = 5_000
NESTED = ["[" * DEEP, '{"env": "frozenlake", "params": ' + '{"a": ' * DEEP + "1" + "}" * (DEEP + 1)]


@pytest.mark.parametrize("task", NESTED)
def test_a_deeply_nested_task_is_a_bad_argument(url: str, task: str) -> None:
    refused = httpx.post(f"{url}/reset", json={"task": task})
    assert refused.status_code == 422
    assert refused.json() == {"detail": "a task is not nested so deeply"}
    with TextClient(base_url=url).sync() as client:
        with pytest.raises(RuntimeError, match="a task is not nested so deeply"):
            client.reset(task=task)
        client.reset(seed=1)


BAD_ACTIONS = [
    ({}, "'text': Field required"),
    ({"text": 1}, "'text': Input should be a valid string"),
    ({"text": None}, "'text': Input should be a valid string"),
    ({"text": "a", "more": 1}, "'more': Extra inputs"),
    ({"text": "a", "metadata": []}, "'metadata': Input should be a valid dict"),
    ({"text": "\ud800"}, "surrogates not allowed"),
    ({"\ud800": "a"}, "Input should be a valid string"),
    ([], "Invalid message"),
]


def test_bad_actions_cost_nothing(url: str) -> None:
    game = next(iter(games("frozenlake", "random")))
    with TextClient(base_url=url).sync() as other, GenericEnvClient(base_url=url).sync() as client:
        other.reset(task=game.task.to_json())
        client.reset(task=game.task.to_json())
        for action, reason in BAD_ACTIONS:
            payload: Any = action
            client.async_client._step_payload = lambda action: action
            with pytest.raises(RuntimeError, match=reason) as caught:
                client.step(payload)
            assert "\n" not in str(caught.value)
        for text in game.messages:
            last = client.step({"text": text})
        assert last.observation["feedback"] == game.turns[-1].feedback
        with pytest.raises(RuntimeError, match=r"no attempt is under way; call reset\(\) first"):
            client.step({"text": "more"})
        assert client.state()["step_count"] == len(game.turns)
        turns = [played(text, other.step(TextAction(text=text))) for text in game.messages]
        assert turns == game.turns


BAD_RESETS = [
    ({"sed": 1}, "unknown reset argument 'sed'; valid: seed, episode_id, task, split, index"),
    ({"seed": -1}, "seed must be a whole number from 0, not -1"),
    ({"seed": "1"}, "seed must be a whole number from 0, not '1'"),
    ({"seed": True}, "seed must be a whole number from 0, not True"),
    ({"episode_id": 1}, "episode_id must be a string"),
    ({"episode_id": "x" * 256}, "episode_id must be a string of at most 255 characters, not 'xxx"),
    (
        {"task": {"env": "frozenlake", "params": {"desc": ["SG"], "max_turns": 10**9}}},
        "task field max_turns must be a whole number from 1 to 1000",
    ),
    ({"split": "test"}, "needs both split and index"),
    ({"split": "tset", "index": 0}, "no split 'tset'; valid: train, test"),
    ({"split": "test@salt", "index": 0}, "no split 'test@salt'; .* not served"),
    ({"split": "test", "index": 10**6}, "index must be a whole number from 0 to 199"),
    ({"split": "test", "index": -1}, "index must be a whole number from 0 to 199"),
    ({"split": "test", "index": "0"}, "index must be a whole number from 0 to 199"),
    ({"split": [], "index": 0}, "split must be a string"),
    ({"split": "test", "index": 0, "task": {}}, "not both"),
    ({"task": {}}, "missing task fields"),
    ({"task": "["}, "Expecting value"),
    ({"task": [1]}, "a task is a JSON object"),
    ({"task": {"env": "frozenlake", "params": []}}, "a task"),
    ({"task": {"env": "frozenlake", "params": {"sede": 1}}}, "a frozenlake task has the fields"),
    ({"task": {"env": "sokoban", "params": {}}}, "this is frozenlake; the task is for sokoban"),
    ({"task": {"env": "frozenlake", "params": {}, "id": "0"}}, "task id '0' does not match"),
]


@pytest.mark.parametrize(("arguments", "reason"), BAD_RESETS)
def test_bad_resets(url: str, arguments: dict[str, Any], reason: str) -> None:
    with TextClient(base_url=url).sync() as client:
        with pytest.raises(RuntimeError, match=reason) as caught:
            client.reset(**arguments)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
        client.reset(seed=1)


@pytest.mark.parametrize("raw", ["", "[]", "nonsense", '{"type": 3}', "[" * 10_000, b"\xff"])
def test_nonsense_on_a_socket(url: str, raw: str | bytes) -> None:
    with connect(f"{url.replace('http', 'ws')}/ws") as plain:
        plain.send(raw)
        assert json.loads(plain.recv(10))["type"] == "error"
    assert httpx.get(f"{url}/health").status_code == 200


def test_plain_http_has_no_session(url: str) -> None:
    with httpx.Client(base_url=url) as http:
        start = http.post("/reset", json={"seed": 7})
        assert start.json()["observation"]["text"] == erl_envs.make("frozenlake").reset(seed=7)[0]
        assert http.get("/state").json()["task_id"] is None
        step = http.post("/step", json={"action": {"text": "```Up```"}})
        assert (step.status_code, step.json()["detail"][:26]) == (409, "no attempt is under way; c")
        assert http.post("/step", json={"action": {}}).status_code == 422
        assert http.post("/reset", json={"seed": -1}).status_code == 422
        assert http.post("/reset", json={"sed": 1}).status_code == 422


@pytest.mark.parametrize("path", ["reset", "step", "frozenlake/tasks", "frozenlake/task"])
def test_a_body_with_many_faults_is_told_of_one(url: str, path: str) -> None:
    many = dict.fromkeys(map(str, range(2_000)), 1)
    answer = httpx.post(f"{url}/{path}", json={**many, "seed": [], "action": many})
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert isinstance(detail, str) and len(detail) < 200


@pytest.mark.parametrize("size", [MAX_BODY + 1, 10 * MAX_BODY])
def test_big_requests(url: str, size: int) -> None:
    game = next(iter(games("frozenlake", "oracle")))
    with TextClient(base_url=url).sync() as other:
        other.reset(task=game.task.to_json())
        refused = httpx.post(f"{url}/reset", content=b" " * size)
        assert refused.status_code == 413
        assert refused.json() == {"detail": f"the body has more than {MAX_BODY} bytes"}
        with TextClient(base_url=url).sync() as client:
            client.reset(seed=1)
            with pytest.raises(websockets.ConnectionClosed, match="message too big"):
                client.step(TextAction(text="x" * size))
        turns = [played(text, other.step(TextAction(text=text))) for text in game.messages]
        assert turns == game.turns


def test_half_sent_heads_leave_room_for_others() -> None:
    half = b"GET /health HTTP/1.1\r\nHost: a\r\n"
    with (
        serving("frozenlake", max_sessions=1, idle=3) as url,
        TextClient(base_url=url).sync() as session,
        ExitStack() as stack,
    ):
        session.reset(seed=1)
        silent = [stack.enter_context(connected(url)) for _ in range(70)]
        silent[68].sendall(half)
        silent[69].sendall(half + b"\r\n" + half)
        assert httpx.get(f"{url}/health").status_code == 200
        for one in silent:
            one.setblocking(False)

        def all_closed() -> bool:
            session.reset(seed=1)  # who plays stays
            return all(map(ended, silent))

        assert eventually(all_closed)
        assert httpx.get(f"{url}/health").status_code == 200
        session.step(TextAction(text="```Up```"))


def test_half_a_second_request_is_not_waited_for() -> None:
    with serving("frozenlake", idle=0.5) as url, connected(url) as kept:
        for _ in range(2):
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            told = b""
            while b"healthy" not in told:
                piece = kept.recv(1 << 16)
                assert piece
                told += piece
            time.sleep(1)  # nothing is left of the deadline of its head
        kept.sendall(b"GET /health HTTP/1.1\r\n")
        assert kept.recv(1 << 16) == b""


def test_a_slow_body_is_refused() -> None:
    with serving("frozenlake", idle=0.5) as url, connected(url) as slow:
        slow.sendall(b"POST /reset HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        told = read_all(slow)
        assert told.startswith(b"HTTP/1.1 408 ")
        assert told.endswith(b'{"detail": "the body took more than 0.5 s"}')


def soon(attempt: Callable[[], Any]) -> None:
    """Try until it works, for ten seconds."""
    until = time.monotonic() + 10
    while True:
        try:
            attempt()
            return
        except (RuntimeError, ConnectionError, websockets.ConnectionClosed):
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def fresh_session(url: str) -> None:
    with TextClient(base_url=url).sync() as client:
        client.reset(seed=1)


def test_a_session_that_disappears_leaves_its_place() -> None:
    game = next(iter(games("frozenlake", "random")))
    with serving("frozenlake", max_sessions=2) as url, TextClient(base_url=url).sync() as other:
        other.reset(task=game.task.to_json())
        other.step(TextAction(text=game.messages[0]))
        for _ in range(3):
            gone = connected(url)
            with connect(f"{url.replace('http', 'ws')}/ws", sock=gone) as lost:
                lost.send('{"type": "reset", "data": {"seed": 1}}')
                lost.recv(10)
                with pytest.raises(RuntimeError, match="at capacity: 2/2"):
                    fresh_session(url)
                gone.shutdown(socket.SHUT_RDWR)  # no closing handshake
            soon(lambda: fresh_session(url))
        turns = [played(text, other.step(TextAction(text=text))) for text in game.messages[1:]]
        assert turns == game.turns[1:]


def test_silence_ends_a_session() -> None:
    with (
        serving("frozenlake", max_sessions=1, idle=0.5) as url,
        connect(f"{url.replace('http', 'ws')}/ws") as silent,
    ):
        with pytest.raises(RuntimeError, match="at capacity: 1/1"):
            fresh_session(url)
        with pytest.raises(websockets.ConnectionClosed, match=r"nothing was said for 0\.5 s"):
            silent.recv(10)
        soon(lambda: fresh_session(url))


def test_no_session_is_held_for_tools_that_nobody_has() -> None:
    create = {"jsonrpc": "2.0", "id": 7, "method": "openenv/session/create", "params": {}}
    with serving("frozenlake", max_sessions=1) as url:
        bodies: list[Any] = [create, {**create, "method": "tools/list"}, {}, [], "[" * 5_000]
        for body in bodies:
            raw = body if isinstance(body, str) else json.dumps(body)
            answer = httpx.post(f"{url}/mcp", content=raw)
            told = answer.json()
            assert (answer.status_code, told["error"]["code"]) == (200, -32601)
            assert told["id"] == (7 if isinstance(body, dict) and body else None)
            assert "result" not in told
        with pytest.raises(websockets.InvalidStatus, match="403"):
            connect(f"{url.replace('http', 'ws')}/mcp")
        fresh_session(url)


def test_a_task_set_is_made_once_whoever_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load, lock, inside, most = tasks.load, threading.Lock(), 0, 0

    def slow(*args: Any, **options: Any) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.2)  # long enough for the others to come, if they are let
        with lock:
            inside -= 1
        return load(*args, **options)

    def ask(_: int) -> None:
        with TextClient(base_url=url).sync() as client:
            client.reset(split="test", index=0)

    with serving("frozenlake") as url, ThreadPoolExecutor(4) as threads:
        monkeypatch.setattr(tasks, "load", slow)
        list(threads.map(ask, range(4)))
    assert most == 1


def test_searches_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    act, lock, inside, most = FrozenLake.act, threading.Lock(), 0, 0

    def slow(env: FrozenLake, action: str) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.5)
        with lock:
            inside -= 1
        return act(env, action)

    async def play() -> None:
        async with TextClient(base_url=url) as client:
            await client.reset(seed=1)
            await client.step(TextAction(text="```Up```"))

    async def all_of_them() -> None:
        await asyncio.gather(*(play() for _ in range(40)))

    with serving("frozenlake") as url:
        monkeypatch.setattr(FrozenLake, "act", slow)
        asyncio.run(all_of_them())
    assert 1 < most <= 16


WALL, OPEN = "#" * 64, "#" + " " * 62 + "#"
BOXES = "#" + "  $" * 20 + "  #"
HUGE = [WALL, "#@" + OPEN[2:], *[OPEN, BOXES] * 3, *[OPEN] * 54, "#" + "." * 60 + "  #", WALL]


def test_a_room_that_nobody_can_solve_costs_a_message_little() -> None:
    """60 boxes in 64 x 64 cells took minutes of a processor."""
    task = {"env": "sokoban", "params": {"layout": HUGE, "max_turns": 1}}
    with (
        serving("sokoban", options={"feedback": "solution"}) as url,
        TextClient(base_url=url).sync() as client,
    ):
        client.reset(task=task)
        reason = "the Sokoban solver stopped at its bound of 10,000,000 operations"
        with pytest.raises(RuntimeError, match=reason):
            client.step(TextAction(text="```Down```"))
        client.reset(seed=1)


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PING = b"\x89\xfd" + bytes(4) + bytes(125)


def upgraded(one: socket.socket) -> bool:
    """Ask for a WebSocket, and whether the answer is one."""
    one.sendall(UPGRADE)
    return one.recv(12) == b"HTTP/1.1 101"


def test_a_socket_that_reads_nothing_is_heard_no_more() -> None:
    """Pings are answered at once: what nobody reads would heap up."""
    with (
        serving("frozenlake", max_sessions=1, buffer=1 << 12) as url,
        connected(url, 1 << 12) as deaf,
    ):
        assert upgraded(deaf)
        deaf.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 16 << 20:
                sent += deaf.send(PING * 100)
        assert sent < 16 << 20


def test_a_socket_that_reads_nothing_is_dropped() -> None:
    with (
        serving("frozenlake", max_sessions=1, idle=0.5, buffer=1 << 12) as url,
        connected(url, 1 << 12) as deaf,
    ):
        assert upgraded(deaf)
        deaf.setblocking(False)

        def dropped() -> bool:
            try:
                while True:
                    deaf.send(PING * 100)
            except BlockingIOError:
                return False
            except OSError:
                return True

        assert eventually(dropped)
        soon(lambda: fresh_session(url))


def test_a_socket_that_does_not_close_is_dropped() -> None:
    with serving("frozenlake", max_sessions=1, idle=0.5) as url, connected(url) as stubborn:
        assert upgraded(stubborn)
        read_all(stubborn)  # told to close, it says nothing
        soon(lambda: fresh_session(url))


def test_sockets_that_are_at_their_end_make_way() -> None:
    with serving("frozenlake", max_sessions=1) as url, ExitStack() as stack:
        for _ in range(100):  # all but one are told to close, and do not
            assert upgraded(stack.enter_context(connected(url)))
        assert httpx.get(f"{url}/health").status_code == 200


def test_where_all_are_at_work_no_socket_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def waits(*_: object) -> None:
        go.wait(60)
        raise EnvError("too late")

    server = make_server(app("frozenlake", OPTIONS, 1, MAX_BODY), 1, MAX_BODY, 600.0)
    with answering(server) as url, ExitStack() as stack:
        monkeypatch.setattr(FrozenLake, "begin", waits)
        head = b"POST /reset HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        for _ in range(66):
            busy = stack.enter_context(connected(url))
            busy.sendall(head + b"Content-Length: 2\r\n\r\n{}")
        assert eventually(lambda: len(server.server_state.tasks) == 66)
        one_more = stack.enter_context(connected(url))
        one_more.sendall(UPGRADE)
        told = read_all(one_more)
        go.set()
    assert told.startswith(b"HTTP/1.1 503 ")
    assert told.endswith(b'{"detail": "there are too many connections"}')


def test_an_environment_that_fails_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise EnvError("the retriever is down")

    with TextClient(base_url=url).sync() as client:
        client.reset(seed=1)
        with monkeypatch.context() as patch:
            patch.setattr(FrozenLake, "act", fail)
            with pytest.raises(RuntimeError, match="the retriever is down"):
                client.step(TextAction(text="```Up```"))
        client.step(TextAction(text="```Up```"))
    monkeypatch.setattr(FrozenLake, "begin", fail)
    refused = httpx.post(f"{url}/reset", json={"seed": 1})
    assert (refused.status_code, refused.json()) == (503, {"detail": "the retriever is down"})


def test_openenv_finds_the_server_in_order(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "openenv.cli", "validate", "--url", url, "--json"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_command_serves_until_interrupted(host: str) -> None:
    try:
        listen(host, 0).close()
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    command = [sys.executable, "-m", "erl_envs.serve", "frozenlake", "--host", host, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            told = process.stdout.readline().split()
            assert told[:3] == ["frozenlake", "answers", "at"]
            fresh_session(told[3])
            process.send_signal(signal.SIGINT)
            assert (process.stdout.read(), process.wait(30)) == ("stopped\n", 0)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["frozenlak"], "no environment 'frozenlak'; valid: frozenlake"),
        (["frozenlake", "--option", "rule=shown"], "frozenlake has no option 'rule'"),
        *(
            (["frozenlake", "--option", f"{key}=3"], f"frozenlake has no option {key!r}; valid")
            for key in ("idle", "max_body", "max_sessions", "env", "name", "options", "self")
        ),
        (
            ["frozenlake", "--option", "render_mode=ansi", "--port", "99999"],
            "has no option 'render_mode'; valid",
        ),
        (["frozenlake", "--port", "99999"], "port must be 0-65535"),
        (["frozenlake", "--host", "no.such.host.invalid"], "error: "),
        (["frozenlake", "--idle", "0"], "must be above 0"),
        (["frozenlake", "--idle", "nan"], "must be above 0"),
        (["frozenlake", "--max-sessions", "0"], "must be above 0"),
        (["frozenlake", "--split", "test"], "--split takes file:PATH, not 'test'"),
        (["frozenlake", "--split", "file:/nowhere"], "cannot read /nowhere"),
    ],
)
def test_bad_arguments(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and reason in said and said.count("\n") == 1


def test_an_option_is_not_taken_for_the_environment() -> None:
    with pytest.raises(ValueError, match="frozenlake has no option 'name'; valid"):
        erl_envs.make("frozenlake", **{"name": "sokoban"})
