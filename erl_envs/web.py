"""HTTP to servers that may be broken or hostile: addresses, and requests with bounded answers."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import httpx

from erl_envs import secrets
from erl_envs.calls import Bounds, Caller, FinalError, PassingError

MAX_ANSWER = 8 << 20
"""Bytes that an answer may have, unpacked."""

MAX_ERROR = 1 << 16
"""Bytes that are read of the answer that comes with an error."""

_PASSING = {408, 409, 425, 429}


@dataclass(frozen=True)
class Response:
    """A server's answer to one request.

    Attributes:
        status: HTTP's.
        body: Unpacked; of an error, its beginning.
        wait: Seconds that the server asks to be left alone.
    """

    status: int
    body: bytes
    wait: float = 0.0

    @property
    def text(self) -> str:
        """The body as text, whatever it is."""
        return self.body.decode(errors="replace")

    @property
    def error(self) -> str:
        """What comes with an error; "" where there is none."""
        return "" if self.status == httpx.codes.OK else self.text

    def json(self) -> Any:
        """What the server says.

        Raises:
            PassingError: An error that may pass.
            FinalError: Another error, or no JSON.
        """
        if self.status != httpx.codes.OK:
            reason = f"status {self.status}: {self.text}"
            if self.status in _PASSING or self.status >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise PassingError(reason, self.wait)
            raise FinalError(f"refused: {reason}")
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise FinalError(f"answered with no JSON: {self.text[:MAX_ERROR]}") from error


class Client(Caller):
    """Makes the requests to one server."""

    def __init__(
        self,
        where: str,
        bounds: Bounds,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_ANSWER,
    ) -> None:
        """A client; no request is made yet.

        Args:
            where: The server's name, for errors.
            bounds: Of the requests.
            headers: Of every request.
            limit: Bytes that an answer may have.
        """
        super().__init__(where, bounds, self._make, self._close)
        self._headers, self._limit = dict(headers or {}), limit

    def _make(self) -> None:
        self._http = open_client(
            self._limit,
            headers=self._headers,
            timeout=None,  # a whole try has a deadline
            limits=httpx.Limits(max_connections=self.bounds.concurrency),
        )

    async def _close(self) -> None:
        await self._http.aclose()

    async def send(self, method: str, url: str, body: object = None) -> Response:
        """One request, as part of a call; see `send`."""
        return await send(self._http, method, url, body)


def open_client(limit: int = MAX_ANSWER, **options: Any) -> httpx.AsyncClient:
    """A client that follows no redirects and reads no more of an answer than a limit.

    Args:
        limit: Bytes.
        options: As httpx takes them.
    """
    headers = {**options.pop("headers", {}), "Accept-Encoding": "gzip"}
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [partial(bound, limit)]}
    return httpx.AsyncClient(**options, headers=headers, event_hooks=hooks, follow_redirects=False)


async def send(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    body: object = None,
) -> Response:
    """One request; nothing is tried again.

    Args:
        client: Of `open_client`.
        method: HTTP's.
        url: Where to.
        body: JSON; None sends none.

    Raises:
        PassingError: No answer came.
        FinalError: The answer is longer than the client's limit.
    """
    content, headers = None, {}
    if body is not None:
        # ensure_ascii keeps lone surrogates, which a model's text may hold, encodable
        content = json.dumps(body, ensure_ascii=True)
        headers["Content-Type"] = "application/json"
    request = client.stream(method, url, content=content, headers=headers)
    try:
        async with request as response:
            raw = await response.aread()
    except (httpx.HTTPError, OSError) as error:
        raise PassingError(reason_of(error)) from error
    return Response(response.status_code, raw, wait_of(response))


def reason_of(error: BaseException) -> str:
    """An error's kind and what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def wait_of(response: httpx.Response) -> float:
    """Seconds that a server asks to be left alone; 0 where it does not say."""
    asked = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


async def bound(limit: int, response: httpx.Response) -> None:
    """Have an answer end at a limit; a hook of httpx, which alone unpacks whatever comes."""
    coding = response.headers.pop("Content-Encoding", "").strip().lower()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    failed = response.status_code != httpx.codes.OK
    response.stream = _Bounded(response.stream, coding, MAX_ERROR if failed else limit, failed)


class _Bounded(httpx.AsyncByteStream):
    """An answer, unpacked and bounded.

    Attributes:
        cut: Whether a longer one is cut; else it is an error.
    """

    def __init__(self, stream: httpx.AsyncByteStream, coding: str, limit: int, cut: bool) -> None:
        self._stream, self._coding, self._limit, self._cut = stream, coding, limit, cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        unpack, left = _unpacker(self._coding), self._limit
        async for chunk in self._stream:
            piece = unpack(chunk, left + 1)
            if len(piece) > left and not self._cut:
                raise FinalError(f"answered with more than {self._limit >> 20} MiB")
            yield piece[:left]
            left -= len(piece)
            if left < 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


def _unpacker(coding: str) -> Callable[[bytes, int], bytes]:
    """What unpacks the next chunk of an answer, to at most so many bytes."""
    if coding in ("", "identity"):
        return lambda chunk, most: chunk
    if coding not in ("gzip", "x-gzip"):
        raise FinalError(f"answered in the coding {coding!r}, which was not asked for")
    packed = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def unpack(chunk: bytes, most: int) -> bytes:
        try:
            return packed.decompress(chunk, most)
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from error

    return unpack


def read_url(url: str) -> httpx.URL | None:
    """An http(s) URL that a socket can open; None if it is none."""
    try:
        parts = httpx.URL(url)
        parts.host.encode("idna")  # what the socket will do
    except (httpx.InvalidURL, ValueError, TypeError):
        return None
    port = 80 if parts.port is None else parts.port
    sound = parts.scheme in ("http", "https") and parts.host and 0 < port < 1 << 16
    return parts if sound else None


def check_server(url: str, what: str, example: str) -> str:
    """A server's URL that can be asked; what it carries is a secret of this process from here on.

    Args:
        url: As it was given.
        what: It is, in words.
        example: Of such a URL.

    Raises:
        ValueError: It is no http(s) URL; one line, without a password.
    """
    if secrets.HIDDEN in url:
        raise ValueError(
            f"the {what} {url} was written down without its secrets: give it in full again"
        )
    if read_url(url) is None:
        shown = "" if "@" in url else f" {url!r}"
        raise ValueError(f"bad {what}{shown}; it looks like {example}")
    secrets.learn_url(url)
    return url


def join(url: str, path: str) -> str:
    """The URL of a path below another; a query stays behind the path, which may have its own."""
    base, mark, query = url.partition("#")[0].partition("?")
    mark = "&" if mark and "?" in path else mark
    return f"{base.rstrip('/')}/{path.lstrip('/')}{mark}{query}"
