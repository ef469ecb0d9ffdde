"""The search as a tool, for policies that speak tool calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LAST_TURN = "This is the last turn: box your answer now."

MAX_TOP_K = 20
"""Passages of a search."""

TOOLS: Sequence[Mapping[str, Any]] = (
    {
        "type": "function",
        "function": {
            "name": "local_search",
            "description": "Search the passages.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "What to look for."},
                    "top_k": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
                },
                "required": ["query"],
            },
        },
    },
)


def as_message(name: str, arguments: Mapping[str, Any]) -> str:
    """A call of the tool as the message that means the same.

    Raises:
        ValueError: There is no such tool, or the arguments do not fit it.
    """
    if name != "local_search":
        raise ValueError(f"hotpotqa has no tool {name!r}")
    query, top_k = arguments.get("query"), arguments.get("top_k")
    if not isinstance(query, str):
        raise ValueError(f"local_search needs a query, got {arguments}")
    attribute = f' top_k="{top_k}"' if type(top_k) is int and top_k > 0 else ""
    return f"<search{attribute}>{query}</search>"
