"""uvicorn's HTTP, with a deadline for each request and a bound on connections."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from erl_envs.asgi.patience import Patience


class PromptHTTP(H11Protocol):
    """A connection that is dropped where its client is too slow, or the slowest of too many.

    uvicorn's own timer runs from an answer to the next byte alone: it waits without end for a
    client that says nothing at first, sends half a request, or does not read its answer.
    """

    def __init__(self, *args: Any, patience: Patience, most: int, key: str, **kwargs: Any) -> None:
        """Take a connection.

        Args:
            *args: uvicorn's.
            patience: The server's, with the seconds that a request may take to come, and an answer
                to be read.
            most: Connections of the server; at one more, the client that is waited for longest is
                dropped. uvicorn answers 503 where all are at work (`limit_concurrency`).
            key: Where a refusal's JSON has the reason.
            **kwargs: uvicorn's.
        """
        super().__init__(*args, **kwargs)
        self._patience, self._most, self._key = patience, most, key

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._patience.make_room()
        self._patience.start(self)

    def data_received(self, data: bytes) -> None:
        """Take what was sent: a request, or part of one."""
        whole = self._whole()
        if self._between():  # the next request's time begins
            self._patience.stop(self)
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # a WebSocket's from here on
            return
        if self.transport.is_closing() or not self._whole():
            self._patience.start(self)
        elif not whole:  # what comes after a request gives its answer no more time
            self._patience.stop(self)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._patience.start(self)

    def on_response_complete(self) -> None:
        """Wait for the next request, and for the client to read the answer."""
        self._patience.stop(self)
        super().on_response_complete()
        if self.transport.is_closing() or not self._whole():
            self._patience.start(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._patience.stop(self)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over, if it is not one too many."""
        if len(self.connections) > self._most:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections")
        else:
            self._patience.stop(self)
            super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def late(self) -> None:
        """Say that a body took too long; to who has not even sent a head, or reads nothing, naught.

        abort, for close would first wait until the client has read what was sent.
        """
        if self._between() and not self.transport.get_write_buffer_size():
            self._patience.start(self)  # uvicorn's timer is running; until then it can make way
        elif self.conn.their_state is h11.SEND_BODY and not self.flow.write_paused:
            reason = f"the body took more than {self._patience.seconds:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, reason)
        else:
            self.transport.abort()

    def _between(self) -> bool:
        """Whether an answer was given and nothing came since."""
        return self.timeout_keep_alive_task is not None

    def _whole(self) -> bool:
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer is under way
            body = json.dumps({self._key: reason}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            response = h11.Response(
                status_code=status, headers=headers, reason=status.phrase.encode()
            )
            asked = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"]
            told = h11.Data(data=b"" if asked == "HEAD" else body)
            for event in (response, told, h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._patience.start(self)
