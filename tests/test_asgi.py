"""What our servers bear: too many connections, slow ones, ones that do not read."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed: extra serve")

import uvicorn
from answering import answering, connected, ended, eventually, read_all

from erl_envs.asgi.limits import Limits
from erl_envs.asgi.server import make_server

MAX_BODY = 1 << 12
BIG, SOME, SMALL = 256 << 10, 40 << 10, 1 << 12
"""Bytes: an answer at which uvicorn waits for its client; one at which it does not, but that a
socket with a small buffer does not hold either; that buffer."""

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"


class App:
    """Answers with how long the body was; to `/big` and `/some` much, to `/slow` when it is let."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.go = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        self.bodies.append(body)
        if scope["path"] == "/slow":
            while not self.go.is_set():
                await asyncio.sleep(0.01)
        sizes = {"/big": BIG, "/some": SOME}
        size = sizes.get(scope["path"], 0)
        answer = b"x" * size or str(len(body)).encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(answer), 1 << 16):
            piece = answer[start : start + (1 << 16)]
            more = start + len(piece) < len(answer)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


class Served:
    """A server in a thread, seen from both sides."""

    def __init__(self, url: str, server: uvicorn.Server, app: App) -> None:
        self.url, self.server, self.app = url, server, app

    def connections(self) -> int:
        return len(self.server.server_state.connections)

    def answers(self) -> bool:
        return httpx.post(self.url, content=b"abc", timeout=60).text == "3"


@contextmanager
def serving(
    connections: int = 64,
    seconds: float = 60.0,
    idle: float = 60.0,
    chunked: bool = True,
    buffer: int | None = None,
) -> Iterator[Served]:
    app = App()
    limited = Limits(app, MAX_BODY, idle, key="why", chunked=chunked)
    server = make_server(limited, connections, seconds, key="why")
    with answering(server, buffer) as url:
        try:
            yield Served(url, server, app)
        finally:
            app.go.set()


def drips(one: socket.socket, piece: bytes) -> Callable[[], bool]:
    """Sends a piece more each time it is asked whether the other side has closed."""
    one.setblocking(False)

    def closed() -> bool:
        try:
            one.send(piece)
        except BlockingIOError:
            pass
        except ConnectionError:
            return True
        return ended(one)

    return closed


@pytest.mark.parametrize("half", [b"", b"POST / HT", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{"])
def test_who_is_waited_for_makes_way(half: bytes) -> None:
    with serving(connections=8) as served, ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connected(served.url)).sendall(half)
        assert served.answers()
        assert served.connections() <= 9


def test_who_has_waited_longest_makes_way_first() -> None:
    with serving(connections=3) as served, ExitStack() as stack:
        made = [stack.enter_context(connected(served.url)) for _ in range(3)]
        assert eventually(lambda: served.connections() == 3)
        assert served.answers()
        for one in made:
            one.setblocking(False)
        assert eventually(lambda: ended(made[0]))
        assert not ended(made[2])


def test_who_has_left_makes_no_room() -> None:
    with serving(connections=4) as served, ExitStack() as stack:
        for _ in range(20):
            with connected(served.url):
                assert eventually(lambda: served.connections() == 1)
            assert eventually(lambda: served.connections() == 0)
        for _ in range(10):
            stack.enter_context(connected(served.url))
        assert served.answers()


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b""),
        (HEAD, b"A"),
        (HEAD, b"A: b\r\n"),
        (HEAD + b"Content-Length: 4000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n", b""),  # told without a body
        (HEAD + b"Content-Length: 0\r\n\r\n" + HEAD, b"A"),  # the second one, after an answer
    ],
)
def test_a_request_has_one_deadline_however_often_a_byte_comes(start: bytes, piece: bytes) -> None:
    with serving(seconds=0.5) as served, connected(served.url) as slow:
        slow.sendall(start)
        assert eventually(drips(slow, piece))
        assert eventually(lambda: served.connections() == 0)
        assert served.answers()


@pytest.mark.parametrize("whose", ["seconds", "idle"])  # the connection's, and the application's
def test_a_slow_body_is_told_why(whose: str) -> None:
    with serving(**{whose: 0.5}) as served, connected(served.url) as slow:  # type: ignore[arg-type]
        slow.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
        told = read_all(slow)
        assert told.startswith(b"HTTP/1.1 408 ")
        assert told.endswith(b'{"why": "the body took more than 0.5 s"}')
        assert served.app.bodies == []


@pytest.mark.parametrize("path", [b"/big", b"/some"])
@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("piece", [b"", b"G"])  # more of what would be a next request
def test_an_answer_that_is_not_read_is_not_kept(path: bytes, close: bytes, piece: bytes) -> None:
    with serving(seconds=0.5, buffer=SMALL) as served, connected(served.url, SMALL) as deaf:
        deaf.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n%s\r\n" % (path, close))
        assert eventually(lambda: len(served.app.bodies) == 1)
        deaf.setblocking(False)

        def dropped() -> bool:
            with suppress(OSError):
                deaf.send(piece)
            return served.connections() == 0

        assert eventually(dropped)
        assert served.answers()


def test_the_time_to_read_an_answer_is_not_taken_from_the_next() -> None:
    first = b"POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    second = b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with serving(seconds=2, buffer=SMALL) as served, connected(served.url, SMALL) as client:
        client.sendall(first + second)
        read = 0
        while read < BIG:
            read += len(client.recv(1 << 16))
        assert eventually(lambda: len(served.app.bodies) == 2)
        time.sleep(3)  # of the first answer's two seconds nothing is left
        served.app.go.set()
        assert read_all(client).endswith(b"\r\n\r\n0")


def test_the_next_request_has_a_time_of_its_own() -> None:
    with serving(seconds=3) as served, connected(served.url) as client:
        client.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
        told = b""
        while not told.endswith(b"\r\n\r\n0"):
            told += client.recv(1 << 16)
        time.sleep(2.2)
        client.sendall(HEAD)
        time.sleep(1.6)  # after the first one's three seconds
        client.sendall(b"Connection: close\r\nContent-Length: 2\r\n\r\nab")
        assert read_all(client).endswith(b"2")


def test_where_all_are_at_work_a_client_is_told() -> None:
    with serving(connections=2) as served, ExitStack() as stack:
        busy = [stack.enter_context(connected(served.url)) for _ in range(2)]
        for one in busy:
            one.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert eventually(lambda: len(served.app.bodies) == 2)
        assert httpx.get(served.url, timeout=60).status_code == 503
        served.app.go.set()
        assert all(read_all(one).startswith(b"HTTP/1.1 200 ") for one in busy)
        assert served.answers()


@pytest.mark.parametrize(
    ("request_", "status", "why"),
    [
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "Invalid HTTP request"),
        (HEAD + b"Content-Length: 3, 4\r\n\r\nabcd", 400, "Invalid HTTP request"),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "the body needs"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", 400, "the body needs a Content-Length"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 400, "Invalid HTTP request"),
        (HEAD + b"Content-Length: +3\r\n\r\nabc", 400, "Invalid HTTP request"),
        (HEAD + b"Content-Length: %d\r\n\r\n" % (17 * MAX_BODY), 413, "the body has more than"),
        (HEAD + b"Content-Length: %s\r\n\r\n" % (b"9" * 20), 413, "the body has more than"),
        (HEAD + b"Content-Length: %s\r\n\r\n" % (b"9" * 21), 400, "Invalid HTTP request"),
        (HEAD + b"A: " + b"b" * 20_000, 400, "Invalid HTTP request"),
        (b"\x16\x03\x01\r\n\r\n", 400, "Invalid HTTP request"),
    ],
)
def test_what_is_refused_says_why_in_json(request_: bytes, status: int, why: str) -> None:
    with serving(chunked=False) as served, connected(served.url) as plain:
        plain.sendall(request_)
        told = read_all(plain)
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == str(status).encode()
        assert b"application/json" in head
        assert json.loads(body)["why"].startswith(why)
        assert served.app.bodies == [] and served.answers()


def test_a_body_whose_client_leaves_is_not_answered() -> None:
    with serving() as served:
        with connected(served.url) as gone:
            gone.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
            assert eventually(lambda: len(served.server.server_state.tasks) == 1)
        assert eventually(lambda: len(served.server.server_state.tasks) == 0)
        assert served.app.bodies == []
