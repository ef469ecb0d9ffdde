"""Servers on a free loopback port that answer as a test says."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """What was posted: where, with which headers, and the JSON."""

    path: str
    headers: dict[str, str]
    body: Any


class Reply:
    """A status, a body (JSON unless it is bytes), headers."""

    def __init__(self, body: object, status: int = 200, **headers: str) -> None:
        self.raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.headers = status, headers


def says(text: object, finish: str = "stop", **more: object) -> Reply:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Reply({"choices": [choice], **more})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # all knock at once

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is part of the test."""


@contextmanager
def serving(answer: Callable[[Request], Reply]) -> Iterator[str]:
    """The URL of a server's root.

    Args:
        answer: To each POST, in a thread of its own.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 10

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            reply = answer(Request(self.path, dict(self.headers), json.loads(raw)))
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            for name, value in reply.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(reply.raw)))
            self.end_headers()
            self.wfile.write(reply.raw)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


Talk = Callable[[socket.socket], object]

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def drips(first: bytes, piece: bytes) -> Talk:
    """Sends a piece again and again, each soon enough to keep a time-out between pieces at bay."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(first)
        for _ in range(1000):
            connection.sendall(piece)
            time.sleep(0.02)

    return talk


DRIPS = {
    "nothing": drips(b"", b""),
    "the first line": drips(b"HTTP/1.1 200 ", b"O"),
    "a header's name": drips(OK, b"X"),
    "headers": drips(OK, b"X: y\r\n"),
    "1xx answers": drips(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a chunk's size": drips(CHUNKED, b"0"),
    "a chunk's extension": drips(CHUNKED + b"1;", b"x"),
    "chunks": drips(CHUNKED, b"1\r\n \r\n"),
    "trailers": drips(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "a body": drips(OK + b"\r\n", b" "),
    "an error's body": drips(b"HTTP/1.1 400 Bad\r\n\r\n", b" "),
}
"""Servers that never stop sending, and never come to an end."""


@contextmanager
def talking(talk: Talk) -> Iterator[str]:
    """The URL of a server that reads a request and then does with the connection as told."""

    class Handler(socketserver.StreamRequestHandler):
        timeout = 60

        def handle(self) -> None:
            with suppress(OSError):
                length = 0
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode("latin-1").partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                self.rfile.read(length)
                talk(self.connection)

        def finish(self) -> None:
            with suppress(OSError):
                super().finish()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128
        allow_reuse_address = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
