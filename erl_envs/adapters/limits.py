"""Bounds that a server of sessions has to keep: a request's size, and a client's silence.

`PromptHTTP` bounds the wait for a request's head, `Limits` what follows it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class PromptHTTP(H11Protocol):
    """uvicorn's HTTP; a connection is closed unless a request's head comes in time.

    uvicorn's own timer runs from an answer to the next byte alone: a connection that says nothing
    at first, or half a head, would be waited for without end.
    """

    def __init__(self, *args: Any, idle: float, **kwargs: Any) -> None:
        """Take a connection.

        Args:
            *args: uvicorn's.
            idle: Seconds that a request's head may take.
            **kwargs: uvicorn's.
        """
        super().__init__(*args, **kwargs)
        self._idle = idle
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what was sent: a head, part of one, or a body."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # the head is whole, or the connection done with
            self._forget()
        elif self._deadline is None:
            # abort, for close would first wait until the client has read an earlier answer
            self._deadline = self.loop.call_later(self._idle, self.transport.abort)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Limits:
    """ASGI middleware: refuses long or slow HTTP bodies, and hangs up on silent WebSockets.

    It sees a connection once a request's head is in. The size of a socket's messages is the
    server's to bound (uvicorn: `ws_max_size`).
    """

    def __init__(self, app: App, max_body: int, idle: float) -> None:
        """Wrap an application.

        Args:
            app: What answers.
            max_body: Most bytes of an HTTP request's body.
            idle: Seconds that a socket may say nothing, and that an HTTP body may take.
        """
        self.app, self.max_body, self.idle = app, max_body, idle

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request within the limits."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.idle):
                body = await self._body(receive)
        except TimeoutError:
            return await _refuse(send, 408, f"the body took more than {self.idle:g} s")
        if len(body) > self.max_body:
            return await _refuse(send, 413, f"the body has more than {self.max_body} bytes")
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, again, send)

    async def _body(self, receive: Receive) -> bytes:
        """The body; of one that is too long, too much of it.

        The rest is read and dropped, as far as is decent: a connection that is closed with bytes
        unread is reset, and the client may never see why.
        """
        body = bytearray()
        read, more = 0, True
        while more and read <= 16 * self.max_body:
            message = await receive()
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            read += len(piece)
            if len(body) <= self.max_body:
                body += piece
        return bytes(body)

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


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
