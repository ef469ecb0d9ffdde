"""Models behind an OpenAI-compatible server: `POST {base_url}/chat/completions`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from erl_envs.core import TextEnv, Usage
from erl_envs.policies.base import Completion, Conversation, Policy, PolicyError, Sampling
from erl_envs.secrets import learn_key, redact, redact_error
from erl_envs.web import check_server, join

DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
WITH_TOOLS = ", with tools"
"""At the end of the revision of a policy that offers tools."""
_RETRY_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_MAX_WAIT = 30.0


class OpenAI(Policy):
    """Asks a server, at most `concurrency` requests at a time, with bounded retries.

    The key comes from the environment variable OPENAI_API_KEY; a user and password in the URL take
    its place. Either goes into the request's header, and into nothing that comes back from here.
    """

    remote = True

    def __init__(
        self,
        model: str,
        base_url: str = DEFAULT_URL,
        concurrency: int = 16,
        retries: int = 4,
        timeout: float = 120.0,
        backoff: float = 0.5,
        tools: bool = False,
    ) -> None:
        """A client; no request is made yet.

        Args:
            model: Name that the server knows.
            base_url: Up to and with `/v1`; may carry a user and password, and a query.
            concurrency: Most requests at a time.
            retries: Tries after the first, for failures that may pass.
            timeout: Seconds to wait for an answer.
            backoff: Seconds before the first retry; doubled for each further one.
            tools: Offer the environment's tools; a call becomes the message that means the same.

        Raises:
            ValueError: The URL is not one; no header can carry the key.
        """
        self.spec = f"openai:{model}"
        self.model = model
        self.url = join(check_url(base_url), "chat/completions")
        self.revision = model + WITH_TOOLS if tools else model
        self.concurrency, self.retries, self.backoff = concurrency, retries, backoff
        self.timeout, self.tools = timeout, tools
        self._key = _key()
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            limits=httpx.Limits(max_connections=concurrency),
        )

    def complete(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion | PolicyError]:
        """Ask for the next message of each, each in a request of its own."""
        if len(conversations) == 1:
            return [self._ask(conversations[0], sampling)]
        with ThreadPoolExecutor(self.concurrency) as threads:
            return list(threads.map(lambda c: self._ask(c, sampling), conversations))

    def _ask(self, conversation: Conversation, sampling: Sampling) -> Completion | PolicyError:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": conversation.messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": int(conversation.rng.integers(1 << 31)),
        }
        if sampling.top_k:  # not in OpenAI's own interface, known to vLLM and its peers
            body["top_k"] = sampling.top_k
        # a reflection is text: a tool call instead would leave no rulebook
        offered = self.tools and conversation.key[-1] != "reflection"
        env = conversation.env if offered else None
        if env is not None and env.tools:
            body["tools"] = list(env.tools)
        began = time.perf_counter()
        try:
            reply = self._post(body)
        except PolicyError as error:
            return error
        return self._completion(reply, time.perf_counter() - began, env)

    def _post(self, body: dict[str, Any]) -> Any:
        """The server's reply.

        Raises:
            PolicyError: It refused, or still failed after the last retry.
        """
        reason, pause = "", self.backoff
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(pause, _MAX_WAIT))
                pause = 2 * pause
            try:
                # ensure_ascii keeps lone surrogates, which a model's text may hold, encodable
                response = self._send(json.dumps(body, ensure_ascii=True))
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                continue
            if response.status_code == 200:
                return self._json(response.content)
            text = " ".join(self._hide_key(response.text).split())
            reason = f"status {response.status_code}: {text[:300]}"
            if response.status_code not in _RETRY_STATUS:
                raise PolicyError(f"the server at {self.url} refused: {reason}")
            pause = max(pause, _retry_after(response))
        raise PolicyError(
            f"the server at {self.url} failed {self.retries + 1} times, the last time with {reason}"
        )

    def _send(self, body: str) -> httpx.Response:
        """One request, its answer read whole.

        Raises:
            httpx.HTTPError: It failed or took too long: httpx's own time-out starts anew with each
                piece, so a server that drips its answer would never meet it.
        """
        deadline = time.monotonic() + self.timeout
        headers = {"Content-Type": "application/json"}
        with self._client.stream("POST", self.url, content=body, headers=headers) as response:
            pieces = []
            for piece in response.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"the answer took more than {self.timeout:g} s")
        return httpx.Response(
            response.status_code,
            headers={"retry-after": response.headers.get("retry-after", "0")},
            content=b"".join(pieces),
        )

    def _json(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            shown = self._hide_key(repr(content))[:100]
            raise PolicyError(f"the server answered with no JSON: {shown}") from error

    def _completion(
        self, reply: Any, seconds: float, env: TextEnv | None = None
    ) -> Completion | PolicyError:
        try:
            choice = reply["choices"][0]
            text, stop = choice["message"].get("content") or "", choice.get("finish_reason")
            calls = choice["message"].get("tool_calls") if env is not None else None
            for call in calls or ():
                text = f"{text}\n{_as_message(call['function'], env)}".lstrip("\n")
            usage = reply.get("usage") or {}
            told, said = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
            cost = Usage(int(told), int(said), seconds)
            if not isinstance(text, str) or not isinstance(stop, str | None):
                raise TypeError("content or finish_reason is no string")
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            shown = self._hide_key(f"{error!r}: {reply!r}")[:200]
            return PolicyError(f"the server's answer is no chat completion: {shown}")
        # here, before anyone reads it: an environment that is fed what is recorded can replay it
        return Completion(redact(text), stop_reason=stop and redact(stop), usage=cost)

    def _hide_key(self, text: str) -> str:
        """For errors, before they are cut: some servers repeat the key they were sent."""
        return redact_error(text)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _as_message(call: Mapping[str, Any], env: TextEnv | None) -> str:
    """A tool call as the message that means the same; one that fits no tool as it stands."""
    try:
        assert env is not None
        return env.tool_message(call["name"], json.loads(call["arguments"]))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return f"{call['name']}({call['arguments']})"


def check_url(url: str) -> str:
    """A base URL without its trailing slash; what it carries is a secret from here on.

    Raises:
        ValueError: It is no http(s) URL.
    """
    return check_server(url, "base URL", "http://localhost:8000/v1").rstrip("/")


def _key() -> str:
    """The key, without the white space that files leave around it; "" if there is none.

    Raises:
        ValueError: No header can carry it; the message does not tell it.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(f"{KEY_VARIABLE} holds characters that no key has")
    learn_key(KEY_VARIABLE, key)
    return key


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:  # an HTTP date; the backoff will do
        return 0.0
