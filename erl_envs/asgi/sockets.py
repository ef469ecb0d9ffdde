"""uvicorn's WebSockets, which hold no more memory for a client that does not read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from erl_envs.asgi.patience import Patience


class PromptSocket(WebSocketsSansIOProtocol):
    """A socket that hears nothing until what it said is read, and is dropped if that takes long.

    uvicorn answers every ping at once, read or not, and waits without end to close.
    """

    def __init__(self, *args: Any, patience: Patience, **kwargs: Any) -> None:
        """Take a connection.

        Args:
            *args: uvicorn's.
            patience: The server's, with the seconds that a client may not read.
            **kwargs: uvicorn's.
        """
        super().__init__(*args, **kwargs)
        self._patience = patience

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self.transport.pause_reading()
        self._patience.start(self)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()
        self._patience.stop(self)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Wait for the client to close."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._patience.start(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._patience.stop(self)
        super().connection_lost(exc)

    def late(self) -> None:
        """Drop the connection; to close it would be to wait on."""
        self.transport.abort()
