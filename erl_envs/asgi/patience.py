"""For which clients a server waits, and how long."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Slow(Protocol):
    """A connection that can be ended."""

    transport: asyncio.Transport

    def late(self) -> None:
        """End, for the time is up."""


class Patience:
    """The connections of a server that wait for their clients, the longest first.

    A client is waited for while its request is not whole, or its answer not read.
    """

    def __init__(self, seconds: float) -> None:
        """Wait for nobody yet; for each client at most so many seconds."""
        self.seconds = seconds
        self._waiting: dict[Slow, asyncio.TimerHandle] = {}

    def start(self, connection: Slow) -> None:
        """Wait for a client; nothing changes where it is waited for already."""
        if connection not in self._waiting:
            loop = asyncio.get_running_loop()
            self._waiting[connection] = loop.call_later(self.seconds, self._end, connection)

    def stop(self, connection: Slow) -> None:
        """Wait for a client no more."""
        if connection in self._waiting:
            self._waiting.pop(connection).cancel()

    def make_room(self) -> None:
        """Drop the connection that has waited longest; none where all are at work."""
        for connection in self._waiting:
            self.stop(connection)
            connection.transport.abort()
            return

    def _end(self, connection: Slow) -> None:
        self.stop(connection)
        connection.late()
