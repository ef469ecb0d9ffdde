"""Retrievers behind a server: what bounds them all, and Search-R1's `POST /retrieve`."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import httpx

from erl_envs.calls import Bounds, Caller, FinalError, ServerError
from erl_envs.retrieval.base import Passage, RetrievalError, Retriever
from erl_envs.secrets import redact
from erl_envs.web import Client, Response, check_server

EXAMPLE = "http://127.0.0.1:8000/retrieve"
"""Of a server's URL."""


class Remote(Retriever):
    """A retriever that asks a server, with every search bounded in time, size and tries."""

    def __init__(self, caller: Caller) -> None:
        """Args: caller: makes the calls to the server."""
        self._caller = caller

    @abstractmethod
    async def _ask(self, query: str, top_k: int) -> list[Passage]:
        """One try.

        Raises:
            PassingError: Another try may succeed.
            FinalError: It won't.
        """

    def search(self, query: str, top_k: int) -> list[Passage]:
        """The server's best passages, in its order.

        Raises:
            RetrievalError: It refused, or still failed after the last retry.
        """
        if top_k < 1:
            return []
        try:
            found = self._caller.call(partial(self._ask, query, top_k))
        except ServerError as error:
            raise RetrievalError(str(error)) from error
        # a server may repeat what it was sent; the environment is fed what is recorded
        return [Passage(redact(p.title), redact(p.text)) for p in found]

    def close(self) -> None:
        """End the searches that run, with a `RetrievalError`, and close the connections."""
        self._caller.close()


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
        where = f"the retrieval server at {shown}"
        self._client = Client(where, Bounds(timeout, retries, backoff, concurrency))
        super().__init__(self._client)
        self.url = url

    async def _ask(self, query: str, top_k: int) -> list[Passage]:
        body = {"queries": [query], "topk": top_k, "return_scores": True}
        return passages_of(await self._client.send("POST", self.url, body))[:top_k]


def passages_of(response: Response) -> list[Passage]:
    """The passages of an answer to one query.

    Raises:
        PassingError: It is an error that may pass.
        FinalError: It is another error, or has another form.
    """
    reply = response.json()
    try:
        [found] = reply["result"]
        return [passage_of(item["document"]) for item in found]
    except (LookupError, TypeError, ValueError) as error:
        raise FinalError(f"answered in another form: {error!r}") from error


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
