"""Policies: how a conversation becomes the next message; `load("random")`, `load("vllm:PATH")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from erl_envs.policies import scripted
from erl_envs.policies.base import Completion, Conversation, Policy, PolicyError, Sampling, Thoughts
from erl_envs.policies.nano import Nano
from erl_envs.policies.openai import DEFAULT_URL, OpenAI

__all__ = ["Completion", "Conversation", "Policy", "PolicyError", "Sampling", "Thoughts", "load"]

_PLAIN: dict[str, Callable[[], Policy]] = {
    "nano": Nano,
    "random": scripted.Random,
    "oracle": scripted.Oracle,
    "human": scripted.Human,
}
_NAMED = {"transformers": "PATH_OR_ID", "vllm": "PATH_OR_ID", "openai": "MODEL", "replay": "RUN"}

CHATS = frozenset({"transformers", "vllm", "openai"})
"""Kinds of policies with a chat template."""

FORMS = (*_PLAIN, *(f"{kind}:{name}" for kind, name in _NAMED.items()))
"""The policy strings, as they are told to a person."""


def check_form(spec: str) -> None:
    """See that a policy string is one of `FORMS`; nothing is loaded.

    Raises:
        ValueError: It is none.
    """
    kind, _, name = spec.partition(":")
    if spec not in _PLAIN and not (name and kind in _NAMED):
        raise ValueError(f"no policy {spec!r}; valid: {', '.join(FORMS)}")


def load(
    spec: str,
    base_url: str = DEFAULT_URL,
    concurrency: int = 16,
    tools: bool = False,
    extra_body: Mapping[str, Any] | None = None,
    thoughts: Thoughts | None = None,
    template: Mapping[str, Any] = MappingProxyType({}),
) -> Policy:
    """The policy of a command-line string.

    Args:
        spec: One of `FORMS`.
        base_url: Server of `openai:` policies.
        concurrency: Their most requests at a time.
        tools: Whether they offer the environment's tools.
        extra_body: What else their requests hold.
        thoughts: What becomes of earlier turns' thoughts in a model's prompts; None for what its
            chat template does.
        template: What its chat template is told beside the messages.

    Raises:
        ValueError: No such policy, or it cannot be loaded; one line that says why.
    """
    check_form(spec)
    kind, _, name = spec.partition(":")
    if (thoughts or template) and kind not in CHATS:
        raise ValueError(f"{spec} has no chat template and no thoughts to keep or strip")
    if spec in _PLAIN:
        return _PLAIN[spec]()
    if kind == "transformers":
        from erl_envs.policies.transformers import Transformers

        return Transformers(name, thoughts=thoughts, template=template)
    if kind == "vllm":
        from erl_envs.policies.vllm import Vllm

        return Vllm(name, thoughts, template)
    if kind == "openai":
        body = dict(extra_body or {})
        if template:
            body["chat_template_kwargs"] = {**body.get("chat_template_kwargs", {}), **template}
        return OpenAI(name, base_url, concurrency, tools=tools, thoughts=thoughts, extra_body=body)
    return scripted.Replay.of_run(spec, Path(name))
