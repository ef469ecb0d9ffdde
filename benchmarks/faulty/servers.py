"""Servers that answer wrongly, and what each client must make of that: an answer, or one line.

They listen on loopback, a trial each. A client asks with short bounds, so that whatever a server
does, it has ended when `PATIENCE` is over.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from erl_envs.policies.base import Conversation, PolicyError, Sampling
from erl_envs.policies.openai import KEY_VARIABLE, OpenAI
from erl_envs.retrieval.base import RetrievalError
from erl_envs.retrieval.http import Http
from faulty.commands import Fault
from faulty.row import Row

PATIENCE = 60.0
"""Seconds; the longest that a client may wait before a second try is 30."""
KEY = "sk-faults-0123456789abcdefghijklmnop"

Class = Literal["answered", "invalid", "either"]
Part = bytes | float | None
"""What a server does next: send, wait so many seconds, or reset the connection."""
Script = Callable[[int], Iterable[Part]]
"""From the number of the request, counted from 0."""


def http(body: bytes | str, status: int = 200, **headers: str) -> bytes:
    """A whole answer; a header that is given replaces its usual value."""
    raw = body.encode() if isinstance(body, str) else body
    usual = {"content_type": "application/json", "content_length": str(len(raw))}
    told = "".join(
        f"{name.replace('_', '-')}: {value}\r\n" for name, value in {**usual, **headers}.items()
    )
    return f"HTTP/1.1 {status} Something\r\n{told}connection: close\r\n\r\n".encode() + raw


def chat(content: Any = "```Right```", finish: Any = "stop", **more: Any) -> str:
    """A chat completion."""
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more})


FOUND = json.dumps({"result": [[{"document": {"title": "Oslo", "text": "A city."}}]]})


def transport(good: str) -> dict[str, tuple[Class, Script]]:
    """What goes wrong whatever is said; `good` is what would be right."""
    whole, raw = http(good), good.encode()

    def always(*parts: Part) -> Script:
        return lambda number: parts

    def then_well(*parts: Part) -> Script:
        return lambda number: parts if number == 0 else [whole]

    def forever(first: bytes, piece: bytes) -> Script:
        def drip(number: int) -> Iterator[Part]:
            yield first
            while True:
                yield 0.2
                yield piece

        return drip

    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    chunked = head + b"transfer-encoding: chunked\r\n\r\n"
    statuses = {204: b"", **dict.fromkeys((400, 401, 403, 404, 405, 413, 422, 429), b"no")}
    statuses |= dict.fromkeys((500, 502, 503, 504, 520, 529, 599, 999), b"no")
    found: dict[str, tuple[Class, Script]] = {
        "all well": ("answered", always(whole)),
        **{f"status {n}": ("invalid", always(http(b, n))) for n, b in statuses.items()},
        **{
            f"status {n} once": ("answered", then_well(http("no", n)))
            for n in (429, 500, 502, 503, 520, 529)
        },
        "429, come back in 30 years": ("invalid", always(http("no", 429, retry_after="1e9"))),
        "301 to itself": ("invalid", always(http("", 301, location="/"))),
        "302 to another host": ("invalid", always(http("", 302, location="http://[::1]:9/"))),
        "an empty body": ("invalid", always(http(""))),
        "no JSON": ("invalid", always(http("<html>busy</html>"))),
        "half of the JSON": ("invalid", always(http(good[: len(good) // 2]))),
        "no UTF-8": ("invalid", always(http(b'"\xff\xfe"'))),
        "a list": ("invalid", always(http("[]"))),
        "null": ("invalid", always(http("null"))),
        "a number of 10,000 digits": ("invalid", always(http("1" * 10_000))),
        "nested 100,000 deep": ("invalid", always(http("[" * 100_000 + "]" * 100_000))),
        "an error in a 200": ("invalid", always(http('{"error": {"message": "overloaded"}}'))),
        "64 MiB": ("invalid", always(http(b" " * (64 << 20) + raw))),
        "gzip": ("answered", always(http(gzip.compress(raw), content_encoding="gzip"))),
        "a gzip bomb": (
            "invalid",
            always(http(gzip.compress(b" " * (256 << 20)), content_encoding="gzip")),
        ),
        "broken gzip": ("invalid", always(http(b"\x1f\x8bno", content_encoding="gzip"))),
        "an unknown encoding": ("either", always(http(raw, content_encoding="fancy"))),
        "a length too long": ("invalid", always(http(raw, content_length=str(len(raw) + 9)))),
        "a length too short": ("invalid", always(http(raw, content_length=str(len(raw) - 9)))),
        "a length that is none": ("invalid", always(http(raw, content_length="many"))),
        "two lengths": ("either", always(http(raw, content_length="3\r\ncontent-length: 99"))),
        "chunks": ("answered", always(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(raw), raw))),
        "a chunk size that is none": ("invalid", always(chunked + b"many\r\n" + raw)),
        "chunks that break off": ("invalid", always(chunked + b"ff\r\n" + raw[:20])),
        "no HTTP": ("invalid", always(b"220 mail.example ESMTP\r\n")),
        "HTTP/9.9": ("either", always(whole.replace(b"HTTP/1.1", b"HTTP/9.9"))),
        "a header of 1 MiB": ("either", always(head + b"x: " + b"y" * (1 << 20) + b"\r\n\r\n")),
        "100,000 headers": ("either", always(head + b"x: y\r\n" * 100_000 + b"\r\n")),
        "a header with a NUL": ("either", always(whole.replace(b"Something", b"\0"))),
        "closes at once": ("invalid", always()),
        "resets": ("invalid", always(None)),
        "resets within the body": ("invalid", always(whole[:-10], None)),
        "resets once": ("answered", then_well(None)),
        "is silent": ("invalid", always(PATIENCE)),
        "is silent within the body": ("invalid", always(whole[:-10], PATIENCE)),
        "drips its status": ("invalid", forever(b"", b"H")),
        "drips headers": ("invalid", forever(head, b"x: y\r\n")),
        "drips 1xx answers": ("invalid", forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
        "drips its body": ("invalid", forever(http("[", content_length="1000000"), b" ")),
        "drips a chunk size": ("invalid", forever(chunked, b"0")),
        "drips chunks": ("invalid", forever(chunked, b"1\r\n \r\n")),
        "an error of many lines": ("invalid", always(http("no\n\r\x1b[31m" * 50_000, 500))),
    }
    return found


def says(body: str) -> Script:
    """A whole answer."""
    return lambda number: [http(body)]


_LONG = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
_FULL = json.dumps({"error": {"message": _LONG, "code": "context_length_exceeded"}})

CHAT: Mapping[str, tuple[Class, Script]] = {
    **transport(chat()),
    "more fields": ("answered", says(chat(usage={"x": 1}, future=[{}], message={"audio": None}))),
    "an error that repeats the key": ("invalid", lambda number: [http(f"bad key {KEY}", 401)]),
    "a refusal": ("answered", says(chat(None, message={"refusal": "I must not."}))),
    "a content filter": ("answered", says(chat("", "content_filter"))),
    "the longest message": ("answered", says(chat("no", "length"))),
    "finish_reason error": ("invalid", says(chat("", "error"))),
    "finish_reason abort": ("invalid", says(chat("", "abort"))),
    "an empty message": (
        "invalid",
        says('{"choices": [{"message": {}, "finish_reason": "stop"}]}'),
    ),
    "no message": ("invalid", says('{"choices": [{"finish_reason": "stop"}]}')),
    "no choices": ("invalid", says('{"choices": []}')),
    "choices that are none": ("invalid", says('{"choices": 3}')),
    "content that is a number": ("invalid", says(chat(7))),
    "content in parts": ("either", says(chat([{"type": "text", "text": "```Right```"}]))),
    "counts that are none": (
        "either",
        says(chat(usage={"prompt_tokens": "x", "completion_tokens": -3})),
    ),
    "counts of 4,000 digits": (
        "either",
        says(chat().replace("{", '{"usage": ' + "1" * 4000 + ",", 1)),
    ),
    "NaN": ("either", says(chat(usage={"prompt_tokens": float("nan")}))),
    "a lone surrogate": ("answered", says(chat("\ud800 ```Right```"))),
    "control characters": ("answered", says(chat("\x00\x1b[2J ```Right```"))),
    "a message of 4 MiB": ("answered", says(chat("x" * (4 << 20)))),
    "a full context": ("answered", lambda number: [http(_FULL, 400)]),
}

SEARCH: Mapping[str, tuple[Class, Script]] = {
    **transport(FOUND),
    "more fields": ("answered", says(FOUND.replace("{", '{"took": 3, ', 1))),
    "nothing found": ("answered", says('{"result": [[]]}')),
    "no result": ("invalid", says('{"result": []}')),
    "two results": ("invalid", says('{"result": [[], []]}')),
    "a result that is none": ("invalid", says('{"result": 3}')),
    "no document": ("invalid", says('{"result": [[{}]]}')),
    "a document without text": ("invalid", says('{"result": [[{"document": {"title": "x"}}]]}')),
    "a title that is a number": (
        "invalid",
        says('{"result": [[{"document": {"title": 1, "text": "x"}}]]}'),
    ),
    "a lone surrogate": ("answered", says(FOUND.replace("Oslo", "\\ud800"))),
}


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """The address of a server that follows a script, a thread for each connection."""
    stopped, numbers, lock = threading.Event(), iter(range(10**9)), threading.Lock()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(PATIENCE)
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(1 << 16) or b"\r\n\r\n"
            head, _, body = received.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(maxsplit=1)[0])
            while len(body) < length:
                body += connection.recv(1 << 16) or b" " * length
            with lock:
                number = next(numbers)
            for part in script(number):
                if stopped.is_set():
                    return
                if part is None:  # a reset: nothing lingers
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                elif isinstance(part, bytes):
                    connection.sendall(part)
                else:
                    stopped.wait(part)

    def listen() -> None:
        with suppress(OSError):
            while not stopped.is_set():
                connection, _ = listening.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        threading.Thread(target=listen, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            stopped.set()
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


class Answers(Row):
    """Broken answers to one client."""

    how = "answered, or one line"

    def __init__(self, name: str, answers: Mapping[str, tuple[Class, Script]], ask: Ask) -> None:
        """Args: answers: what the server does, and what must come of it; ask: asks it once."""
        self.name = f"broken server, {len(answers)} answers: {name}"
        self._answers, self._ask = answers, ask

    def trials(self) -> Sequence[str]:
        """Each answer."""
        return list(self._answers)

    def run(self, trial: str) -> str:
        """Ask, once, within bounds."""
        expected, script = self._answers[trial]
        found: list[str | None] = []
        began = time.monotonic()

        def ask() -> None:
            try:
                found.append(self._ask(url))
            except Exception as error:  # noqa: BLE001 - any is what must not come of an answer
                found.append(f"raised {error!r:.300}")

        with serving(script) as url:
            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            asking.join(PATIENCE)
        if not found:
            raise Fault(f"{trial}: no end after {time.monotonic() - began:.0f} s")
        [reason] = found
        got = "answered" if reason is None else "invalid"
        if expected not in ("either", got) or (reason or "").startswith("raised "):
            raise Fault(f"{trial}: {got}, not {expected}: {reason}")
        if reason is not None and (len(reason) > 1000 or not reason.isprintable()):
            raise Fault(f"{trial}: not a short line: {reason[:200]!r}")
        if KEY in (reason or ""):
            raise Fault(f"{trial}: the key is told")
        return ""


Ask = Callable[[str], str | None]
"""Asks the server of an address; None if it answered, else why it did not."""


def ask_model(url: str) -> str | None:
    """Ask for a message."""
    before = os.environ.get(KEY_VARIABLE)
    os.environ[KEY_VARIABLE] = KEY
    try:
        policy = OpenAI("m", f"{url}/v1", 2, retries=1, timeout=2.0, backoff=0.05)
    finally:
        if before is None:
            del os.environ[KEY_VARIABLE]
        else:
            os.environ[KEY_VARIABLE] = before
    messages: Any = [{"role": "user", "content": "Which way?"}]
    try:
        [answer] = policy.complete(
            [Conversation(messages, ("frozenlake", "t", 0, "attempt_1"), 0)], Sampling()
        )
    finally:
        policy.close()
    return str(answer) if isinstance(answer, PolicyError) else None


def ask_retriever(url: str) -> str | None:
    """Search."""
    retriever = Http(f"{url}/retrieve", timeout=2.0, retries=1, backoff=0.05)
    try:
        retriever.search("Where is Oslo?", 3)
    except RetrievalError as error:
        return str(error)
    finally:
        retriever.close()
    return None


def server_rows() -> list[Row]:
    """One for each client."""
    return [
        Answers("openai:", CHAT, ask_model),
        Answers("retriever=http", SEARCH, ask_retriever),
    ]
