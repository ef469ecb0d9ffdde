"""Retrievers behind a server: what bounds them all, and Search-R1's `POST /retrieve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from abc import abstractmethod
from concurrent.futures import CancelledError
from typing import Any

import httpx

from erl_envs.retrieval.base import Passage, RetrievalError, Retriever
from erl_envs.secrets import redact, redact_error
from erl_envs.web import check_server

MAX_ANSWER = 8 << 20
"""Bytes that an answer may have."""

EXAMPLE = "http://127.0.0.1:8000/retrieve"
"""Of a server's URL."""

_MAX_WAIT = 30.0
_MAX_REASON = 300


class PassingError(Exception):
    """A failure that may pass: worth another try.

    Attributes:
        wait: Seconds that the server asks to be left alone.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        """A failure and its reason."""
        super().__init__(reason)
        self.wait = wait


class Remote(Retriever):
    """A retriever that asks a server, with every search bounded in time and in tries.

    Requests run on an event loop in a thread of its own: asyncio can end a whole request at its
    deadline, whatever it waits for. The time-outs of blocking clients start anew with each piece,
    so that a server which drips its answer holds them for ever.
    """

    def __init__(
        self, where: str, timeout: float, retries: int, backoff: float, concurrency: int
    ) -> None:
        """A client; no request is made yet.

        Args:
            where: The server's name, for errors.
            timeout: Seconds that one try may take.
            retries: Tries after the first, for failures that may pass.
            backoff: Seconds before the first retry; doubled for each further one.
            concurrency: Most tries at a time; the time that others wait for their turn does not
                count as the server's.

        Raises:
            ValueError: A number makes no sense.
        """
        if not (timeout > 0 and retries >= 0 and backoff >= 0 and concurrency > 0):
            raise ValueError(
                f"timeout and concurrency must be positive, retries and backoff not negative: "
                f"{timeout}, {concurrency}, {retries}, {backoff}"
            )
        self.where, self.timeout, self.retries = where, timeout, retries
        self.backoff, self.concurrency = backoff, concurrency
        self._lock = threading.Lock()
        self._closed = False
        self._pid = 0

    @abstractmethod
    def _open(self) -> None:
        """Make the client: once in each process that searches."""

    @abstractmethod
    async def _ask(self, query: str, top_k: int) -> list[Passage]:
        """One try.

        Raises:
            PassingError: Another try may succeed.
            RetrievalError: It won't.
        """

    @abstractmethod
    async def _shut(self) -> None:
        """Close the client."""

    def search(self, query: str, top_k: int) -> list[Passage]:
        """The server's best passages, in its order.

        Raises:
            RetrievalError: It refused, or still failed after the last retry.
        """
        if top_k < 1:
            return []
        with self._lock:
            if self._closed:
                raise RetrievalError(f"the retriever for {self.where} is closed")
            if self._pid != os.getpid():  # a fork takes no threads along
                self._start()
            future = asyncio.run_coroutine_threadsafe(self._tries(query, top_k), self._loop)
        try:
            # a server may repeat what it was sent; the environment is fed what is recorded
            return [Passage(redact(p.title), redact(p.text)) for p in future.result()]
        except CancelledError as error:
            raise RetrievalError(f"the retriever for {self.where} was closed") from error

    def _start(self) -> None:
        self._open()
        self._turns = asyncio.Semaphore(self.concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._pid = os.getpid()

    async def _tries(self, query: str, top_k: int) -> list[Passage]:
        reason, pause = "", self.backoff
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(min(pause, _MAX_WAIT))
                pause = 2 * pause
            async with self._turns:
                try:
                    async with asyncio.timeout(self.timeout):
                        return await self._ask(query, top_k)
                except TimeoutError:
                    reason = f"no answer within {self.timeout:g} s"
                except PassingError as error:
                    reason, pause = str(error), max(pause, error.wait)
        raise RetrievalError(
            f"{self.where} failed {self.retries + 1} times, the last time with {reason}"
        )

    def close(self) -> None:
        """End the searches that run, with a `RetrievalError`, and close the connections."""
        with self._lock:
            if self._closed or self._pid != os.getpid():
                self._closed = True
                return
            self._closed = True
            future = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        with contextlib.suppress(TimeoutError):
            future.result(self.timeout)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self.timeout)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._shut()


class Http(Remote):
    """Asks a server of Search-R1's kind, such as `erl_envs.retrieval.server`."""

    name = "http"

    def __init__(
        self,
        url: str,
        timeout: float = 10.0,
        retries: int = 2,
        backoff: float = 0.25,
        concurrency: int = 16,
    ) -> None:
        """A client; no request is made yet.

        Args:
            url: Up to and with `/retrieve`; may carry a user and password, and a query.
            timeout: Seconds that one try may take.
            retries: Tries after the first, for failures that may pass.
            backoff: Seconds before the first retry; doubled for each further one.
            concurrency: Most requests at a time.

        Raises:
            ValueError: The URL is not one; a number makes no sense.
        """
        check_server(url, "retriever URL", EXAMPLE)
        shown = httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None)
        super().__init__(f"the retrieval server at {shown}", timeout, retries, backoff, concurrency)
        self.url = url

    def _open(self) -> None:
        self._client = httpx.AsyncClient(
            timeout=None,  # the whole try has a deadline
            limits=httpx.Limits(max_connections=self.concurrency),
        )

    async def _shut(self) -> None:
        await self._client.aclose()

    async def _ask(self, query: str, top_k: int) -> list[Passage]:
        body = {"queries": [query], "topk": top_k, "return_scores": True}
        try:
            async with self._client.stream(
                "POST",
                self.url,
                # ensure_ascii keeps lone surrogates, which a model's text may hold, encodable
                content=json.dumps(body, ensure_ascii=True),
                headers={"Content-Type": "application/json"},
            ) as response:
                status = response.status_code
                raw = await _read(response, MAX_ANSWER if status == 200 else 4 * _MAX_REASON)
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise PassingError(one_line(reason)) from error
        if status == 200:
            return self._passages(raw)[:top_k]
        reason = one_line(f"status {status}: {raw.decode(errors='replace')}")
        if status >= 500:
            raise PassingError(reason)
        raise RetrievalError(f"{self.where} refused: {reason}")

    def _passages(self, raw: bytes) -> list[Passage]:
        if len(raw) > MAX_ANSWER:
            raise RetrievalError(f"{self.where} answered with more than {MAX_ANSWER >> 20} MiB")
        try:
            reply = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise RetrievalError(
                f"{self.where} answered with no JSON: {one_line(repr(raw))[:100]}"
            ) from error
        try:
            [found] = reply["result"]
            return [passage_of(item["document"]) for item in found]
        except (LookupError, TypeError, ValueError) as error:
            shown = one_line(repr(error))
            raise RetrievalError(f"{self.where} answered in another form: {shown}") from error


async def _read(response: httpx.Response, limit: int) -> bytes:
    """The body, or its beginning, a little over the limit, where it is longer."""
    raw = bytearray()
    async for chunk in response.aiter_bytes():
        raw += chunk
        if len(raw) > limit:
            break
    return bytes(raw)


def passage_of(document: Any) -> Passage:
    r"""The passage of a document that has `title` and `text`, or `contents` (`"Title"\ntext`).

    Raises:
        TypeError: It has neither form.
    """
    if not isinstance(document, dict):
        raise TypeError("a document is no object")
    title, text = document.get("title"), document.get("text")
    if isinstance(title, str) and isinstance(text, str):
        return Passage(title, text)
    contents = document.get("contents")
    if not isinstance(contents, str):
        raise TypeError("a document has neither title and text nor contents")
    title, newline, text = contents.partition("\n")
    if not newline:
        return Passage("", contents)
    # one pair: a title such as "Heroes" has quotes of its own
    quoted = len(title) > 1 and title[0] == title[-1] == '"'
    return Passage(title[1:-1] if quoted else title, text)


def one_line(text: str) -> str:
    """A text as errors quote it: short, on one line, without secrets."""
    return " ".join(redact_error(text).split())[:_MAX_REASON]
