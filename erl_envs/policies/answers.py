"""What the answers of OpenAI-compatible servers mean: a message, or a failure in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from erl_envs.calls import FinalError, PassingError
from erl_envs.core import TextEnv, Usage
from erl_envs.policies.base import MAX_MESSAGE, Completion
from erl_envs.secrets import redact

_FAILED = frozenset(
    {"error", "abort", "aborted", "cancelled", "network_error", "insufficient_system_resource"}
)
"""How a `finish_reason` tells a provider's failure, in an answer with status 200."""

_SPOKEN = ("content", "refusal", "tool_calls", "reasoning_content", "reasoning")
"""Fields of a message that a model fills."""

_ODD = (LookupError, TypeError, AttributeError, ValueError, OverflowError)
"""What JSON of another form than that of a chat completion raises where it is read."""

_MAX_QUOTED = 10_000


def completion(reply: Any, seconds: float, env: TextEnv | None = None) -> Completion:
    """The message of a chat completion: the one place where a server's answer becomes a policy's.

    Args:
        reply: The server's JSON.
        seconds: Until it was there.
        env: Whose tools were offered; None where none were.

    Raises:
        PassingError: The provider behind the server failed.
        FinalError: It is no chat completion.
    """
    try:
        _check_failure(reply)
        choice = reply["choices"][0]
        message, stop = choice["message"], choice.get("finish_reason")
        text = message.get("content") or ""
        if not text and message.get("refusal"):
            text, stop = message["refusal"], "refusal"
        if env is not None:
            text = "\n".join([*([text] if text else []), *_calls(message, env)])
        if not isinstance(text, str) or not isinstance(stop, str | None):
            raise TypeError("content or finish_reason is no string")
        # here, before anyone reads it: an environment that is fed what is recorded can replay it
        text, stop = redact(text), stop and redact(stop)
        if len(text) > MAX_MESSAGE:
            text, stop = text[:MAX_MESSAGE], "cut"
        used = reply.get("usage") or {}
        usage = Usage(_count(used, "prompt_tokens"), _count(used, "completion_tokens"), seconds)
        return Completion(text, stop_reason=stop, usage=usage, reasoning=_reasoning(message))
    except _ODD as error:
        raise FinalError(f"answered with no chat completion: {error!r}: {_short(reply)}") from error


def prompt_tokens(reply: Any) -> int | None:
    """How long a chat completion says that its prompt was.

    Raises:
        FinalError: It is no chat completion.
    """
    try:
        return _count(reply.get("usage") or {}, "prompt_tokens")
    except _ODD as error:
        raise FinalError(f"answered with no chat completion: {error!r}: {_short(reply)}") from error


def _check_failure(reply: Any) -> None:
    """Find what failed behind the server; a refusal or a filter is the model's answer, not this.

    Raises:
        PassingError: Something did.
        Exception: One of `_ODD`, where it is no chat completion.
    """
    if not reply.get("choices") and reply.get("error"):
        raise PassingError(f"an error in its answer: {_short(reply['error'])}")
    choice = reply["choices"][0]
    message, stop = choice["message"], choice.get("finish_reason")
    if choice.get("error") or stop in _FAILED:
        why = _short(choice.get("error") or reply.get("error") or "it does not say why")
        raise PassingError(f"a failure of its provider (finish_reason {stop!r}): {why}")
    silent = all(message.get(name) is None for name in _SPOKEN)
    # a model that was cut off as it thought may have no content; one that ended its turn has
    if silent and (not message or ("content" not in message and stop in (None, "stop"))):
        raise PassingError("an answer without a message")


def _calls(message: Mapping[str, Any], env: TextEnv) -> Iterator[str]:
    """Tool calls as the messages that mean the same; one that fits no tool as it stands."""
    for call in message.get("tool_calls") or ():
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        try:
            yield env.tool_message(name, json.loads(arguments))
        except (ValueError, TypeError, AttributeError, RecursionError):
            yield f"{name}({arguments})"


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    """A number of tokens, None where the server does not say.

    Raises:
        Exception: One of `_ODD`, where it is none.
    """
    count = None if usage.get(name) is None else int(usage[name])
    if count is not None and count < 0:
        raise ValueError(f"{name} below zero")
    return count


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """What the model thought, by either of the usual names."""
    found = message.get("reasoning_content") or message.get("reasoning")
    return redact(found)[:MAX_MESSAGE] if isinstance(found, str) else None


def _short(value: object) -> str:
    """A JSON value for an error, of which no more than the beginning is quoted."""
    return (value if isinstance(value, str) else repr(value))[:_MAX_QUOTED]
