"""Models behind an OpenAI-compatible server: `POST {base_url}/chat/completions`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from erl_envs.calls import Bounds, FinalError, ServerError
from erl_envs.core import Message, TextEnv, Usage, canonical_json
from erl_envs.policies import refusals
from erl_envs.policies.answers import completion, prompt_tokens
from erl_envs.policies.base import (
    Completion,
    Conversation,
    Policy,
    PolicyError,
    Sampling,
    Thoughts,
    without_thoughts,
)
from erl_envs.secrets import learn_key, redact_json
from erl_envs.web import Client, Response, check_server, join

DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
WITH_TOOLS = ", with tools"
"""At the end of the revision of a policy that offers tools."""

_OURS = frozenset(
    {"model", "messages", "max_completion_tokens", "tools", "stream", "n", refusals.LENGTH}
).union(refusals.SAMPLING)


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
        thoughts: Thoughts | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        """A client; no request is made yet.

        Args:
            model: Name that the server knows.
            base_url: Up to and with `/v1`; may carry a user and password, and a query.
            concurrency: Most requests at a time.
            retries: Tries after the first, for failures that may pass.
            timeout: Seconds that one try may take.
            backoff: Seconds before the first retry; doubled for each further one.
            tools: Offer the environment's tools; a call becomes the message that means the same.
            thoughts: What becomes of earlier turns' thoughts; None leaves it to the server's
                template, which is told all.
            extra_body: What else a request holds, for options that one server alone knows.

        Raises:
            ValueError: The URL is not one, no header can carry the key, or
                `extra_body` says what the policy says itself.
        """
        extra = dict(extra_body or {})
        if taken := sorted(_OURS & set(extra)):
            raise ValueError(f"an extra body cannot say {taken[0]!r}: it has an option of its own")
        self.spec = f"openai:{model}"
        self.model = model
        self.url = join(check_url(base_url), "chat/completions")
        self.revision = (
            model
            + (f", with {canonical_json(redact_json(extra))}" if extra else "")
            + (WITH_TOOLS if tools else "")
        )
        self.tools, self.extra_body = tools, extra
        self.refused = ()
        self._length = refusals.LENGTH
        self.thoughts, self.template = thoughts, extra.get("chat_template_kwargs", {})
        self._key = _key()
        self._client = Client(
            f"the server at {self.url}",
            Bounds(timeout, retries, backoff, concurrency),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )

    def complete(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion | PolicyError]:
        """Ask for the next message of each, each in a request of its own."""
        answers = self._client.call_all([self._request(c, sampling) for c in conversations])
        return [_failure(a) if isinstance(a, ServerError) else a for a in answers]

    def _request(
        self, conversation: Conversation, sampling: Sampling
    ) -> partial[Coroutine[Any, Any, Completion]]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self._history(conversation.messages),
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
        return partial(self._once, body, env)

    async def _once(self, body: Mapping[str, Any], env: TextEnv | None) -> Completion:
        """One try: a request, and those that its refusal leads to."""
        began = time.perf_counter()
        response = await self._post(body)
        if refusals.full(response.status, response.error):
            response = await self._post_shorter(body, response)
        seconds = time.perf_counter() - began
        # what a local model does as well: it says nothing more
        if refusals.full(response.status, response.error):
            return Completion("", stop_reason="length", usage=Usage(0, 0, seconds))
        if refusals.filtered(response.status, response.error):
            return Completion("", stop_reason="content_filter", usage=Usage(0, 0, seconds))
        return completion(response.json(), seconds, env)

    def _history(self, messages: list[Message]) -> list[Message]:
        return without_thoughts(messages) if self.thoughts == "strip" else messages

    async def _post(self, body: Mapping[str, Any]) -> Response:
        """The answer to a request, without what its server turns out not to take."""
        while True:
            sent = {key: value for key, value in body.items() if key not in self.refused}
            if refusals.LENGTH in sent:
                sent[self._length] = sent.pop(refusals.LENGTH)
            sent.update(self.extra_body)
            response = await self._client.send("POST", self.url, sent)
            unknown = refusals.unsupported(response.status, response.error)
            if not any(name in sent for name in unknown):
                return response
            self._learn(unknown)

    def _learn(self, unknown: Sequence[str]) -> None:
        """Ask without these from now on, and say so."""
        for name in unknown:
            if name == refusals.LENGTH and self._length == name:
                self._length = "max_completion_tokens"
                _tell(f"{self.spec} calls {name} {self._length}")
            elif name in refusals.SAMPLING and name not in self.refused:
                self.refused = (*self.refused, name)
                _tell(f"{self.spec} takes no {name}: it is asked without from now on")

    async def _post_shorter(self, body: Mapping[str, Any], refusal: Response) -> Response:
        """The answer with as many tokens as the context has left; the refusal if it has none.

        Servers refuse where prompt and `max_tokens` are longer together than the context. Few say
        how long the prompt is, but all count it in the answer to one token.
        """
        length = refusals.context_length(refusal.error)
        if length is None or body["max_tokens"] == 1:
            return refusal
        probe = await self._post({**body, "max_tokens": 1})
        try:
            prompt = prompt_tokens(probe.json())
        except FinalError:
            return refusal
        if prompt is None or prompt >= length:
            return refusal
        room = min(length - prompt, body["max_tokens"])
        return await self._post({**body, "max_tokens": room})

    def close(self) -> None:
        """End the requests that run, and close the connections."""
        self._client.close()


def _failure(error: ServerError) -> PolicyError:
    """The one place where a server's failure becomes a policy's."""
    failure = PolicyError(str(error))
    failure.__cause__ = error
    return failure


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


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
