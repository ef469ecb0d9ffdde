"""Calls to servers: bounded in time, in tries and in number, and ended when nobody waits for them.

A call is a coroutine on an event loop in a thread of its own. asyncio can end it at its deadline,
or because a person interrupts, whatever it waits for; the time-outs of blocking clients start anew
with each piece, so that a server which drips its answer holds them for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
from asyncio import sleep
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from erl_envs.secrets import redact_error

T = TypeVar("T")

MAX_WAIT = 30.0
"""Seconds between two tries at most, whatever the server asks for; a quarter more with jitter."""

_MAX_REASON = 300
_CLOSING = 2.0


class ServerError(RuntimeError):
    """A server refused, or failed in every try; one line for a person."""


class PassingError(Exception):
    """A failure of one try that may pass: worth another.

    Attributes:
        wait: Seconds that the server asks to be left alone.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        """A failure and its reason."""
        super().__init__(reason)
        self.wait = wait


class FinalError(Exception):
    """A failure of one try that would be the same in the next."""


@dataclass(frozen=True)
class Bounds:
    """What bounds the calls to one server.

    Attributes:
        timeout: Seconds that one try may take, from its first byte sent to its last received.
        retries: Tries after the first, for failures that may pass.
        backoff: Seconds before the first retry; doubled for each further one.
        concurrency: Most tries at a time; the time that others wait for their turn does not count
            as the server's.
    """

    timeout: float
    retries: int
    backoff: float
    concurrency: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One makes no sense.
        """
        if not (
            self.timeout > 0 and self.retries >= 0 and self.backoff >= 0 and self.concurrency > 0
        ):
            raise ValueError(
                f"timeout and concurrency must be positive, retries and backoff not negative: "
                f"{self.timeout}, {self.concurrency}, {self.retries}, {self.backoff}"
            )


class Stop:
    """Ends all calls that are made under it, those under way and those to come, at once."""

    def __init__(self) -> None:
        """A stop that is not set."""
        self._lock = threading.Lock()
        self._set = False
        self._waiting: set[Future[Any]] = set()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def set(self) -> None:
        """End the calls; whoever waits for one goes on with a `ServerError`."""
        with self._lock:
            self._set = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    @contextlib.contextmanager
    def covers(self) -> Iterator[None]:
        """Make the calls of this thread, as long as the context lasts, under this stop."""
        before = _stop.set(self)
        try:
            yield
        finally:
            _stop.reset(before)

    @contextlib.contextmanager
    def ends(self, future: Future[Any]) -> Iterator[None]:
        """Cancel a future if this is set while the context lasts."""
        with self._lock:
            self._waiting.add(future)
            stopped = self._set
        if stopped:
            future.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(future)


_stop: ContextVar[Stop | None] = ContextVar("stop", default=None)


class Caller:
    """Makes the calls to one server."""

    def __init__(
        self,
        where: str,
        bounds: Bounds,
        start: Callable[[], None],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        """A caller; nothing is called yet.

        Args:
            where: The server's name, for errors.
            bounds: Of the calls.
            start: Makes what the calls use: once in each process that calls.
            end: Closes it.
        """
        self.where, self.bounds = redact_error(where), bounds
        self._open, self._shut = start, end
        self._lock = threading.Lock()
        self._closed = False
        self._pid = 0

    def call(self, once: Callable[[], Awaitable[T]]) -> T:
        """What one call gives.

        Args:
            once: One try. Raises `PassingError` where another may succeed, `FinalError` where not.

        Raises:
            ServerError: It refused, still failed after the last retry, or the call was ended.
        """
        [answer] = self.call_all([once])
        if isinstance(answer, ServerError):
            raise answer
        return answer

    def call_all(self, onces: Sequence[Callable[[], Awaitable[T]]]) -> list[T | ServerError]:
        """What each of some calls gives, in order; an error in the place of one that failed."""
        with self._lock:
            if self._closed:
                return [ServerError(f"{self.where} is closed here") for _ in onces]
            if self._pid != os.getpid():  # a fork takes no threads along
                self._start()
            future = asyncio.run_coroutine_threadsafe(self._gather(onces), self._loop)
        try:
            with (_stop.get() or Stop()).ends(future):
                return future.result()
        except CancelledError:
            why = "was closed" if self._closed else "was stopped"
            return [ServerError(f"the call to {self.where} {why}") for _ in onces]
        finally:
            future.cancel()  # where a person interrupted the wait

    def _start(self) -> None:
        self._open()
        self._turns = asyncio.Semaphore(self.bounds.concurrency)
        self._rng = random.Random()  # of pauses alone: many processes must not come back at once
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._pid = os.getpid()

    async def _gather(self, onces: Sequence[Callable[[], Awaitable[T]]]) -> list[T | ServerError]:
        answers = await asyncio.gather(*map(self._tries, onces), return_exceptions=True)
        found: list[T | ServerError] = []
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ServerError):
                raise answer
            found.append(answer)
        return found

    async def _tries(self, once: Callable[[], Awaitable[T]]) -> T:
        bounds, failure = self.bounds, PassingError("")
        for number in range(bounds.retries + 1):
            if number:
                pause = min(max(bounds.backoff * 2 ** (number - 1), failure.wait), MAX_WAIT)
                await sleep(pause * (1 + self._rng.random() / 4))
            async with self._turns:
                try:
                    async with asyncio.timeout(bounds.timeout):
                        return await once()
                except TimeoutError:
                    failure = PassingError(f"no answer within {bounds.timeout:g} s")
                except PassingError as error:
                    failure = error
                except FinalError as error:
                    raise ServerError(f"{self.where} {self._quoted(error)}") from error
        raise ServerError(
            f"{self.where} failed {bounds.retries + 1} times, the last time with "
            f"{self._quoted(failure)}"
        ) from failure

    def _quoted(self, error: Exception) -> str:
        """Why a try failed, short, on one line, without secrets: only here a server is quoted."""
        line = " ".join(redact_error(str(error)).split())[:_MAX_REASON]
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)

    def close(self) -> None:
        """End the calls that run, with a `ServerError`, and close what they use."""
        with self._lock:
            running = self._pid == os.getpid() and not self._closed
            self._closed = True
        if not running:
            return
        future = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        with contextlib.suppress(TimeoutError):
            future.result(_CLOSING)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSING)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._shut()


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that looks names up in threads for which the interpreter does not wait.

    Those of asyncio are waited for when it ends, and a name server may be silent for long.
    """

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        found: Future[Any] = Future()

        def look_up() -> None:
            found.set_running_or_notify_cancel()
            try:
                found.set_result(socket.getaddrinfo(host, port, **hints))
            except (OSError, UnicodeError) as error:
                found.set_exception(error)

        threading.Thread(target=look_up, daemon=True).start()
        return await asyncio.wrap_future(found, loop=self)
