"""Our own servers on a free loopback port, and clients that speak bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from erl_envs.asgi.server import listen

PATIENCE = 60.0
"""Seconds after which something that must happen has not: many times what a slow machine takes."""


@contextmanager
def answering(server: uvicorn.Server, buffer: int | None = None) -> Iterator[str]:
    """The URL of a server's root, while it runs in a thread; its sockets buffer so many bytes."""
    with listen("127.0.0.1", 0) as listening:
        if buffer is not None:  # what it accepts has the same
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


def connected(url: str, buffer: int | None = None) -> socket.socket:
    """A connection to a server, which buffers so many bytes of what comes."""
    host, port = url.removeprefix("http://").split(":")
    one = socket.socket()
    if buffer is not None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    one.settimeout(PATIENCE)
    one.connect((host, int(port)))
    return one


def read_all(one: socket.socket) -> bytes:
    """What comes until the other side closes."""
    told = b""
    while piece := one.recv(1 << 16):
        told += piece
    return told


def ended(one: socket.socket) -> bool:
    """Whether the other side has closed; drops what it said. The connection must not block."""
    try:
        return not one.recv(1 << 16)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def eventually(happens: Callable[[], bool]) -> bool:
    """Whether something happens in time."""
    until = time.monotonic() + PATIENCE
    while not (there := happens()) and time.monotonic() < until:
        time.sleep(0.02)
    return there
