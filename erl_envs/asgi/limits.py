"""Bounds on what a client sends an application: a request's size, and a socket's silence.

They hold under any server; `erl_envs.asgi.server` adds those on connections.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Limits:
    """ASGI middleware: refuses long or slow HTTP bodies, and hangs up on silent WebSockets.

    It sees a connection once a request's head is in. The size of a socket's messages is the
    server's to bound (uvicorn: `ws_max_size`).
    """

    def __init__(
        self, app: App, max_body: int, idle: float, key: str = "detail", chunked: bool = True
    ) -> None:
        """Wrap an application.

        Args:
            app: What answers.
            max_body: Most bytes of an HTTP request's body.
            idle: Seconds that a socket may say nothing, and that an HTTP body may take.
            key: Where a refusal's JSON has the reason.
            chunked: Whether a body may come without its length.
        """
        self.app, self.max_body, self.idle = app, max_body, idle
        self.key, self.chunked = key, chunked

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request within the limits."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers and not self.chunked:
            return await self._refuse(send, 400, "the body needs a Content-Length")
        too_long = f"the body has more than {self.max_body} bytes"
        if int(headers.get(b"content-length", 0)) > self._decent:
            return await self._refuse(send, 413, too_long)
        try:
            async with asyncio.timeout(self.idle):
                body = await self._body(receive)
        except TimeoutError:
            return await self._refuse(send, 408, f"the body took more than {self.idle:g} s")
        if body is None:
            return None
        if len(body) > self.max_body:
            return await self._refuse(send, 413, too_long)
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, again, send)

    @property
    def _decent(self) -> int:
        """Bytes up to which a body that is too long is read and dropped.

        A connection that is closed with bytes unread is reset, and the client may never see why.
        """
        return 16 * self.max_body

    async def _body(self, receive: Receive) -> bytes | None:
        """The body; of one that is too long, too much of it; None if the client has left."""
        body = bytearray()
        read, more = 0, True
        while more and read <= self._decent:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            read += len(piece)
            if len(body) <= self.max_body:
                body += piece
        return bytes(body)

    async def _refuse(self, send: Send, status: int, reason: str) -> None:
        body = json.dumps({self.key: reason}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _socket(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        late = False

        async def heard() -> Message:
            nonlocal late
            try:
                async with asyncio.timeout(self.idle):
                    return await receive()
            except TimeoutError:
                late = True
                return {"type": "websocket.disconnect", "code": 1001}

        async def said(message: Message) -> None:
            if late and message["type"] == "websocket.close":
                reason = f"nothing was said for {self.idle:g} s"
                message = {**message, "code": 1001, "reason": reason}
            await send(message)

        await self.app(scope, heard, said)
