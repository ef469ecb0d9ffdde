"""What a policy is: it answers a batch of conversations, each with its own random stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from erl_envs.core import Message, TextEnv, Tokens, Usage
from erl_envs.secrets import redact_error
from erl_envs.thoughts import split_thoughts, strip_thoughts

Thoughts = Literal["keep", "strip"]
"""What becomes of an earlier turn's thoughts in what a model is told."""

MAX_MESSAGE = 200_000
"""Characters of a message that are kept, and that the leaderboards take."""


class PolicyError(RuntimeError):
    """A policy could not answer: its server is down, slow or refused; one line for a person.

    `erl_envs.rollout` marks the attempt invalid with this reason.
    """

    def __init__(self, reason: str) -> None:
        """A failure and its reason, in which no secret is told."""
        super().__init__(redact_error(reason))


@dataclass(frozen=True)
class Sampling:
    """How to sample. The defaults are the paper's validation setting (PAPER: Training).

    Attributes:
        temperature: 0 is greedy.
        top_p: Keep the smallest set of tokens with at least this probability; 1 keeps all.
        top_k: Keep the most likely so many tokens; 0 keeps all.
        max_tokens: Most tokens of one message.
    """

    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 20
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: A value is out of range; the message names it.
        """
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top-k must be 0 or more, got {self.top_k}")
        if self.max_tokens < 1:
            raise ValueError(f"max-tokens must be 1 or more, got {self.max_tokens}")


@dataclass(frozen=True)
class Completion:
    """One message of a policy.

    Attributes:
        text: What it wrote, without the end-of-turn token.
        token_ids: What a local policy sampled, the end-of-turn token with it; else empty.
        logprobs: Log-probability of each (nats, at its temperature); else empty.
        stop_reason: `stop` (it ended its turn), `length` (it was cut off at the token limit, or its
            context is full), `refusal`, `content_filter`, `cut` (it was longer than `MAX_MESSAGE`),
            whatever else a server says, None if unknown.
        usage: What it cost.
        reasoning: What it thought, where a server tells that apart from the text.
    """

    text: str
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    stop_reason: str | None = None
    usage: Usage = Usage()
    reasoning: str | None = None


@dataclass
class Conversation:
    """Messages that await a policy's answer, and the tokens behind them.

    Attributes:
        messages: System prompt, then user and assistant in turn.
        key: (environment, task id, sample, stage) with stage `attempt_1`, `reflection` or
            `attempt_2`.
        seed: Of this conversation's own random stream, whatever else is in the batch.
        env: The environment as it stands, for scripted policies; models read the messages.
        ids: Token ids so far, kept by the policy that samples them: all that it reads and wrote.
        sampled: For each id, whether it was sampled.
        logprobs: For each id, its log-probability where it was sampled, else 0.
        earlier: What `ids` were before the policy had to be told its prompt anew.
        past: The policy's own: what it keeps of the ids it has read.
    """

    messages: list[Message]
    key: tuple[str, str, int, str]
    seed: int
    env: TextEnv | None = None
    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    earlier: list[Tokens] = field(default_factory=list)
    past: Any = None

    def __post_init__(self) -> None:
        """Start the random stream."""
        self.rng = np.random.Generator(np.random.PCG64(self.seed))

    def tell(self, ids: Sequence[int]) -> None:
        """Append ids that the policy is told."""
        self.ids += ids
        self.sampled += [False] * len(ids)
        self.logprobs += [0.0] * len(ids)

    def add_sampled(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Append ids that the policy sampled."""
        self.ids += ids
        self.sampled += [True] * len(ids)
        self.logprobs += logprobs

    def restart(self) -> None:
        """Begin a new stretch: the whole prompt is told anew, not what comes after the last ids."""
        self.earlier.append(Tokens(self.ids, self.sampled, self.logprobs))
        self.ids, self.sampled, self.logprobs = [], [], []

    def tokens(self) -> tuple[Tokens, ...]:
        """The tokens so far, a stretch for each time the prompt was told; none if nobody keeps any.

        Each sampled id is marked as such in the one stretch in which it was sampled, after the ids
        that the policy really read.
        """
        last = [Tokens(self.ids, self.sampled, self.logprobs)] if self.ids else []
        return (*self.earlier, *last)


def without_thoughts(messages: Sequence[Message]) -> list[Message]:
    """Messages whose assistant's say only what they say after their thoughts."""
    return [
        {**m, "content": strip_thoughts(m["content"]).lstrip()} if _thinks(m) else m
        for m in messages
    ]


def _thinks(message: Message) -> bool:
    return message["role"] == "assistant" and bool(split_thoughts(message["content"])[0])


class Policy(ABC):
    """Answers conversations.

    Attributes:
        spec: The string that names it on the command line.
        revision: What exactly it is: a hash of weights, a served model's name, a version.
        remote: Whether it answers each conversation independently of the others, so that waiting
            for a whole batch would waste time.
        refused: Parameters of `Sampling` and the seed that its server refused, and so went without.
        thoughts: What becomes of earlier turns' thoughts in its prompts; None if that is not its
            own to say (a server's template decides), or it has none.
        template: What its chat template was told beside the messages.
    """

    spec: str
    revision: str
    remote: bool = False
    refused: Sequence[str] = ()
    thoughts: Thoughts | None = None
    template: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def complete(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion | PolicyError]:
        """The next message of each conversation, in order; an error in the place of one it failed.

        A local policy also appends the ids it told and sampled to each conversation. The caller
        appends the messages.
        """

    def close(self) -> None:  # noqa: B027 - most policies hold nothing
        """Let go of connections and memory."""
