"""The client that all HTTP goes through, among servers that never end, never stop or lie."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from loopback import CHUNKED, DRIPS, OK, Reply, Talk, serving, talking

from erl_envs.calls import MAX_WAIT, Bounds, PassingError, ServerError, Stop
from erl_envs.web import MAX_ANSWER, Client, wait_of

ONCE = Bounds(timeout=30, retries=0, backoff=0.01, concurrency=8)


def ask(url: str, bounds: Bounds = ONCE, **options: Any) -> Any:
    """What a server's answer holds."""
    client = Client("the server", bounds, **options)
    try:
        return client.call(lambda: said(client, url))
    finally:
        client.close()


async def said(client: Client, url: str) -> Any:
    return (await client.send("POST", url, {"√": "\ud800"})).json()


def failure(url: str, bounds: Bounds = ONCE) -> str:
    with pytest.raises(ServerError) as caught:
        ask(url, bounds)
    assert str(caught.value).isprintable()
    return str(caught.value)


def sends(answer: bytes) -> Talk:
    return lambda connection: connection.sendall(answer)


# Time


@pytest.mark.parametrize("what", DRIPS)
def test_no_part_of_an_answer_can_be_dripped_for_ever(what: str) -> None:
    with talking(DRIPS[what]) as url:
        told = failure(url, Bounds(timeout=0.3, retries=1, backoff=0.0, concurrency=1))
    assert told == "the server failed 2 times, the last time with no answer within 0.3 s"


def test_a_silent_name_server_is_bounded_and_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(20))
    before = {thread for thread in threading.enumerate() if not thread.daemon}
    told = failure("http://example.invalid/", Bounds(0.3, 0, 0.0, 1))
    # the interpreter waits for threads that are no daemons
    assert {thread for thread in threading.enumerate() if not thread.daemon} == before
    answered.set()
    assert "no answer within 0.3 s" in told


# Size


def test_a_long_answer_is_read_no_further_than_its_bound() -> None:
    sent = 0

    def talk(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(OK + b"\r\n")
        for _ in range(200):
            connection.sendall(b" " * (1 << 20))
            sent += 1 << 20

    with talking(talk) as url:
        assert failure(url) == "the server answered with more than 8 MiB"
    assert sent < MAX_ANSWER + (16 << 20)  # what lies in the buffers of both ends beside it


def test_a_packed_answer_is_unpacked_no_further_than_its_bound() -> None:
    bomb = gzip.compress(bytes(300 << 20), compresslevel=1)
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with talking(sends(OK + head + bomb)) as url:
        client = Client("the server", ONCE)
        tracemalloc.start()
        try:
            answers = client.call_all([lambda: said(client, url)] * 4)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            client.close()
    assert [str(answer) for answer in answers] == ["the server answered with more than 8 MiB"] * 4
    assert peak < 4 * 2 * MAX_ANSWER  # two copies of each, where all four are there at once


def test_an_endless_error_is_told_by_its_beginning() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 418 Teapot\r\n\r\nno tea ")
        while True:
            connection.sendall(b"x" * 65536)

    with talking(talk) as url:
        assert failure(url).startswith("the server refused: status 418: no tea xxx")


@pytest.mark.parametrize("coding", ["gzip", "X-GZIP"])
def test_a_packed_answer_is_read(coding: str) -> None:
    packed = gzip.compress(b'{"answer": [1, 2, 3]}')
    with serving(lambda _: Reply(packed, Content_Encoding=coding)) as url:
        assert ask(url) == {"answer": [1, 2, 3]}


@pytest.mark.parametrize(
    ("coding", "told"), [("br", "in the coding 'br', which was not asked"), ("gzip", "Decoding")]
)
def test_an_answer_that_cannot_be_unpacked_is_told(coding: str, told: str) -> None:
    with serving(lambda _: Reply(b"{}", Content_Encoding=coding)) as url:
        assert told in failure(url)


# Answers that are none

BROKEN = [
    b"",
    b"\x00" * 100,
    b"SSH-2.0\r\n\r\n",
    b"HTTP/1.1 999999 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n{}",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n{}",
    b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 500 \r\nRetry-After: \xff\r\nContent-Length: 0\r\n\r\n",
    CHUNKED + b"zz\r\n{}\r\n",
    CHUNKED + b"f" * 100 + b"\r\n{}",
    CHUNKED + b"2\r\n{}nothing",
    OK + b"\r\n\x1b[31m\xff not JSON",
    OK + b"\r\n" + b"[" * 100_000,
    OK + b"\r\n" + b"9" * 5000,
]


@pytest.mark.parametrize("answer", BROKEN, ids=lambda answer: repr(answer[:40]))
def test_a_broken_answer_is_one_line(answer: bytes) -> None:
    with talking(sends(answer)) as url:
        told = failure(url)
    assert told.startswith("the server ") and len(told) < 400


def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    def answer(request: Any) -> Reply:
        asked.append(request.path)
        return Reply(b"", 307, Location="/elsewhere")

    with serving(answer) as url:
        assert "refused: status 307" in failure(f"{url}/here")
    assert asked == ["/here"]


# Tries


def waits(value: str) -> float:
    return wait_of(httpx.Response(429, headers={"Retry-After": value}))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert waits("7") == 7.0 and waits("0.5") == 0.5
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3000 < waits(in_an_hour) <= 3600
    assert waits("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    for odd in ("", "soon", "-1", "nan", "Wed, 99 Oct 99999999999 07:28:00 GMT", "1 Jan 2030"):
        assert waits(odd) == 0.0, odd
    assert waits("1e999") == float("inf")  # the pause itself is bounded


@pytest.mark.parametrize("asked", [0.0, 3.0, 3600.0, float("inf"), float("nan")])
def test_pauses_grow_are_bounded_and_differ(asked: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def once() -> None:
        raise PassingError("busy", asked)

    monkeypatch.setattr("erl_envs.calls.sleep", sleep)
    client = Client("the server", Bounds(timeout=5, retries=9, backoff=1.0, concurrency=1))
    with pytest.raises(ServerError, match="the server failed 10 times, the last time with busy"):
        client.call(once)
    client.close()
    for number, pause in enumerate(pauses):
        least = min(max(2.0**number, asked), MAX_WAIT)
        assert least <= pause <= 1.25 * least
    assert len(set(pauses)) > 1, "jitter, so that many do not come back at once"


# Ends


def under(stop: Stop, client: Client, url: str) -> Callable[[], list[Any]]:
    def run() -> list[Any]:
        with stop.covers():
            return client.call_all([lambda: said(client, url)] * 2)

    return run


def silent(asked: threading.Semaphore, over: threading.Event) -> Talk:
    def talk(_: socket.socket) -> None:
        asked.release()
        over.wait(60)

    return talk


def test_a_stop_ends_the_calls_under_it_and_no_others() -> None:
    asked, over, stop = threading.Semaphore(0), threading.Event(), Stop()
    client = Client("the server", Bounds(timeout=60, retries=3, backoff=1, concurrency=8))
    with talking(silent(asked, over)) as url, ThreadPoolExecutor(2) as threads:
        mine = threads.submit(under(stop, client, url))
        others = threads.submit(under(Stop(), client, url))
        for _ in range(4):
            assert asked.acquire(timeout=30)
        stop.set()
        ended = mine.result(30)
        assert [str(error) for error in ended] == ["the call to the server was stopped"] * 2
        assert not others.done()
        # what comes later under it is not even begun
        assert [type(answer) for answer in under(stop, client, url)()] == [ServerError] * 2
        assert not asked.acquire(timeout=0.05)
        client.close()
        assert "was closed" in str(others.result(30)[0])
        over.set()


def test_a_call_that_nobody_waits_for_any_more_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Ctrl-C interrupts the main thread, which waits by itself."""
    begun, ended = threading.Event(), threading.Event()

    async def once() -> None:
        try:
            begun.set()
            await asyncio.sleep(600)
        finally:
            ended.set()

    def interrupted(*_: object) -> None:
        assert begun.wait(30)
        raise KeyboardInterrupt

    client = Client("the server", ONCE)
    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.call(once)
    monkeypatch.undo()
    assert ended.wait(30)
    client.close()


def test_a_bug_is_no_servers_failure() -> None:
    async def once() -> None:
        raise ZeroDivisionError

    client = Client("the server", ONCE)
    with pytest.raises(ZeroDivisionError):
        client.call(once)
    client.close()
