"""A retriever behind Search-R1's `POST /retrieve`, for `Http` and for trainers that speak it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from erl_envs.asgi import server
from erl_envs.asgi.limits import Limits
from erl_envs.retrieval.base import Passage, RetrievalError, Retriever
from erl_envs.web import MAX_ANSWER

MAX_CONNECTIONS = 256
"""At a time. A client is waited for 30 seconds, and makes way to a new one before that."""

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Api:
    """The routes, and what they answer."""

    def __init__(
        self, retriever: Retriever, max_queries: int, max_query: int, max_top_k: int
    ) -> None:
        self.retriever, self.max_queries = retriever, max_queries
        self.max_query, self.max_top_k = max_query, max_top_k

    def app(self) -> Starlette:
        made = Starlette(
            routes=[
                Route("/retrieve", self.retrieve, methods=["POST"]),
                Route("/health", self.health),
            ],
            exception_handlers={HTTPException: _refused},
        )
        made.router.redirect_slashes = False
        return made

    async def health(self, _: Request) -> Response:
        return _reply({"status": "ok", "retriever": self.retriever.name})

    async def retrieve(self, request: Request) -> Response:
        try:
            answer = await asyncio.to_thread(self.answer, await request.body())
        except _RefusedError as error:
            return _reply({"error": str(error)}, error.status)
        return Response(answer, media_type="application/json")

    def answer(self, raw: bytes) -> bytes:
        queries, top_k, scored = self._request(raw)
        try:
            found = [self.retriever.search(query, top_k) for query in queries]
        except RetrievalError as error:
            raise _RefusedError(502, str(error)) from error
        except Exception as error:
            _log.exception("the retriever broke")
            raise _RefusedError(500, f"the retriever broke: {type(error).__name__}") from error
        answer = _json({"result": [_result(passages, scored) for passages in found]})
        if len(answer) > MAX_ANSWER:
            raise _RefusedError(
                400, f"the answer has more than {MAX_ANSWER >> 20} MiB; ask for fewer passages"
            )
        return answer

    def _request(self, raw: bytes) -> tuple[list[str], int, bool]:
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _RefusedError(400, "the body is no JSON") from error
        if not isinstance(body, dict):
            raise _RefusedError(400, "the body is no JSON object")
        queries, top_k = body.get("queries"), body.get("topk")
        if (
            not isinstance(queries, list)
            or not 1 <= len(queries) <= self.max_queries
            or not all(isinstance(query, str) for query in queries)
        ):
            raise _RefusedError(400, f"queries must be a list of 1 to {self.max_queries} strings")
        if max(map(len, queries)) > self.max_query:
            raise _RefusedError(400, f"a query has at most {self.max_query} characters")
        # type() and not isinstance(): True is an int
        if type(top_k) is not int or not 1 <= top_k <= self.max_top_k:
            raise _RefusedError(400, f"topk must be an integer from 1 to {self.max_top_k}")
        scored = body.get("return_scores", False)
        if not isinstance(scored, bool):
            raise _RefusedError(400, "return_scores must be true or false")
        return queries, top_k, scored


def make_server(
    retriever: Retriever,
    max_body: int = 1 << 20,
    max_queries: int = 64,
    max_query: int = 1_000,
    max_top_k: int = 100,
    connections: int = MAX_CONNECTIONS,
    seconds: float = server.REQUEST_SECONDS,
) -> uvicorn.Server:
    """A server of a retriever; `run(sockets=[erl_envs.asgi.server.listen(host, port)])` answers.

    `POST /retrieve` takes `{"queries": [...], "topk": k, "return_scores": true}` and answers
    `{"result": [[{"document": {...}, "score": x}, ...], ...]}`, a list for each query, in order;
    without `return_scores`, the documents alone. `GET /health` tells the retriever's name. All
    else is answered with `{"error": ...}`.

    Args:
        retriever: What it searches, in a few threads. Not closed by the server.
        max_body: Bytes that a request may have.
        max_queries: Most queries in a request.
        max_query: Characters that a query may have.
        max_top_k: Most passages a query may ask for.
        connections: Most at a time.
        seconds: For a whole request to come, and for its answer to be read.
    """
    app = _Api(retriever, max_queries, max_query, max_top_k).app()
    limited = Limits(app, max_body, seconds, key="error", chunked=False)
    return server.make_server(limited, connections, seconds, key="error")


def serve(retriever: Retriever, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Answer until interrupted.

    Args:
        retriever: What is searched.
        host: Address to listen at; others than loopback let the network in, unauthenticated.
        port: 0 takes a free one, and says which.

    Raises:
        OSError: The address cannot be listened at.
        OverflowError: No machine has such a port.
    """
    server.run(make_server(retriever), retriever.name, host, port, "/retrieve")


async def _refused(request: Request, error: Exception) -> Response:
    """What Starlette refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    reason = error.detail
    if error.status_code == 404:
        reason = "no such path; there are /retrieve, /health"
    elif error.headers is not None and "Allow" in error.headers:
        reason = f"{request.url.path} takes {error.headers['Allow']}"
    return _reply({"error": reason}, error.status_code, error.headers)


def _reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_json(body), status, headers, media_type="application/json")


def _result(passages: list[Passage], scored: bool) -> list[dict[str, Any]]:
    documents = [
        {"title": p.title, "text": p.text, "contents": f'"{p.title}"\n{p.text}'} for p in passages
    ]
    if not scored:
        return documents
    # retrievers tell an order, no scores: the reciprocal rank has that order
    return [{"document": d, "score": 1 / rank} for rank, d in enumerate(documents, start=1)]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()  # half a surrogate pair is no UTF-8
