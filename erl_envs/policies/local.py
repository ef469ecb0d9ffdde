"""What local models share: a conversation grows by ids, and those that were sampled stay."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from erl_envs.core import Usage
from erl_envs.policies.base import Completion, Conversation, Policy, PolicyError, Sampling
from erl_envs.policies.chat import ChatTokens


class Generated(NamedTuple):
    """What a model sampled for one conversation.

    Attributes:
        ids: Token ids, the end of the turn with them if it came.
        logprobs: Of each id (nats), at the temperature of its sampling (1 where that is 0).
        stopped: Whether the end of the turn came; else the answer was cut off.
    """

    ids: list[int]
    logprobs: list[float]
    stopped: bool


class Local(Policy):
    """Answers all live conversations in one batch, keeping the ids it samples.

    Attributes:
        tokenizer: The model's.
        chat: Its chat template.
        context: Most tokens it can read.
    """

    tokenizer: Any
    chat: ChatTokens
    context: int

    def take_chat(self, chat: ChatTokens) -> None:
        """Speak by a chat template, and say what it does."""
        self.chat, self.tokenizer = chat, chat.tokenizer
        self.thoughts, self.template = chat.thoughts, chat.options

    @abstractmethod
    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        """Continue the ids of every conversation, each from its own random stream."""

    def complete(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion | PolicyError]:
        """Sample the next message of every conversation.

        Where the context is full before a word is said, the message is empty.
        """
        began = time.perf_counter()
        for conversation in conversations:
            self.chat.tell(conversation)
        fits = [c for c in conversations if len(c.ids) < self.context]
        generated = self.generate(fits, sampling) if fits else []
        share = (time.perf_counter() - began) / len(conversations)
        found = {id(c): result for c, result in zip(fits, generated, strict=True)}
        silent = Generated([], [], False)
        return [self._completion(c, found.get(id(c), silent), share) for c in conversations]

    def _completion(
        self, conversation: Conversation, generated: Generated, seconds: float
    ) -> Completion:
        ids, logprobs, stopped = generated
        usage = Usage(len(conversation.ids), len(ids), seconds)
        conversation.add_sampled(ids, logprobs)
        return Completion(
            text=self.chat.message(ids[:-1] if stopped else ids),
            token_ids=ids,
            logprobs=logprobs,
            stop_reason="stop" if stopped else "length",
            usage=usage,
        )


def context_length(model: Any) -> int:
    """Most tokens that a model can read; very many if it does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
