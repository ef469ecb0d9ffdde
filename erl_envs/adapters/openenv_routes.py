"""Which of OpenEnv's routes are served."""

from __future__ import annotations

import contextlib
from typing import Any

from fastapi import FastAPI, Request
from openenv.core.env_server.mcp_types import JsonRpcErrorCode, JsonRpcRequest, JsonRpcResponse

MCP = "/mcp"


def refuse_mcp(app: FastAPI) -> None:
    """Take the routes away by which a client could hold sessions and do nothing with them.

    There, a POST makes a session that has no socket, and waits for calls of tools; no environment
    has any. OpenEnv's clients and its validator expect the route, so it stays and says so.
    """
    app.router.routes[:] = [r for r in app.router.routes if getattr(r, "path", None) != MCP]
    app.post(MCP)(_no_tools)


async def _no_tools(request: Request) -> dict[str, Any]:
    """What JSON-RPC answers where there is no such method."""
    number = None
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        number = JsonRpcRequest(**await request.json()).id
    refusal: dict[str, Any] = JsonRpcResponse.error_response(
        JsonRpcErrorCode.METHOD_NOT_FOUND, "there are no MCP tools here", request_id=number
    ).model_dump()
    return refusal
