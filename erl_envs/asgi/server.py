"""A server of an application, listening until it is interrupted."""

from __future__ import annotations

import contextlib
import functools
import socket
from typing import Any

import uvicorn

from erl_envs.asgi.http import PromptHTTP
from erl_envs.asgi.limits import App
from erl_envs.asgi.patience import Patience

REQUEST_SECONDS = 30.0
"""How long a whole request may take to come, and its answer to be read."""


def make_server(
    app: App,
    connections: int,
    seconds: float = REQUEST_SECONDS,
    max_message: int | None = None,
    key: str = "detail",
) -> uvicorn.Server:
    """A server; `run(sockets=[…])` answers.

    Args:
        app: What answers.
        connections: Most at a time. Those that are waited for make way to new ones, and are no
            reason for HTTP 503.
        seconds: For a whole request to come, and for an answer to be read.
        max_message: Bytes of a WebSocket's message; None takes no WebSockets.
        key: Where a refusal's JSON has the reason.
    """
    patience = Patience(seconds)
    # Any, for uvicorn asks for a class and takes whatever makes a protocol
    http: Any = functools.partial(PromptHTTP, patience=patience, most=connections, key=key)
    config = uvicorn.Config(
        app,
        http=http,
        ws=_sockets(patience) if max_message else "none",
        ws_max_size=max_message or 0,
        ws_per_message_deflate=False,  # a kilobyte would make a megabyte
        limit_concurrency=connections + 1,  # of which one is just asking
        timeout_graceful_shutdown=3,
        log_level="error",  # its warnings are of clients
    )
    return uvicorn.Server(config)


def _sockets(patience: Patience) -> Any:
    from erl_envs.asgi.sockets import PromptSocket

    return functools.partial(PromptSocket, patience=patience)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: IPv6 where the host has no IPv4 address."""
    # the port is left to bind: getaddrinfo would wrap one that no machine has
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    family, _, _, _, address = min(found, key=lambda one: one[0])
    return socket.create_server((address[0], port, *address[2:]), family=family)


def run(server: uvicorn.Server, name: str, host: str, port: int, path: str = "") -> None:
    """Answer until interrupted, and say where.

    Raises:
        OSError: The address cannot be listened at.
        OverflowError: No machine has such a port.
    """
    with listen(host, port) as listening:
        host, port = listening.getsockname()[:2]
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        print(f"{name} answers at http://{where}{path}", flush=True)  # scripts wait for it
        # uvicorn has ended by then; where interrupts are ignored it says nothing of them
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    print("stopped")
