"""What samplers have in common, the plainest of them, and the check that one is up to date."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

import torch
import torch.nn.functional as F

from erl_envs import registry
from erl_envs.core import Message
from erl_envs.policies.base import Conversation, PolicyError, Sampling, Thoughts
from erl_envs.policies.local import Local
from erl_envs.policies.transformers import Transformers
from erl_trainer.processes import failing_together
from erl_trainer.shards import is_sharded
from erl_trainer.types import NotFinite

PROMPT, ANSWER = 320, 16
"""Tokens of the fixed prompt and of its answer. A prompt of more than two blocks of vLLM's prefix
cache (16 tokens each, 128 on a CPU) makes keys and values of old weights show in the answer."""

TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.05}
"""Greatest mean absolute difference of log-probabilities (nats a token) that is rounding.

In float32, vLLM and transformers differ by about 1e-6, and even one missed AdamW step at a learning
rate of 1e-6 moves nano by 0.002. A bfloat16 keeps 8 bits, so a logit between 8 and 16 is rounded
to a sixteenth: the two differ by 0.004 to 0.012 on nano and on 135 M parameters, where a missed
step at 1e-5 makes 0.007 and 0.2. Less than that cannot be told from rounding and does no more
harm than rounding; over steps it adds up, and is then seen."""

Score = Callable[[Sequence[int]], list[float]]
"""Ids to the log-probability (nats) of each but the first, after those before."""


class ChatOptions(TypedDict, total=False):
    """What a policy's chat template does, as `erl_envs.policies.load` takes it."""

    thoughts: Thoughts | None
    template: Mapping[str, Any]


_KEY = ("sync", "fixed prompt", 0, "attempt_1")


class StaleSampler(RuntimeError):
    """The sampler does not sample from the trainer's weights."""


class Sampler(ABC):
    """What samples for the training loop.

    Attributes:
        policy: To roll out with; it keeps token ids and their log-probabilities.
        dtype: It computes in.
        prompt: Ids that `verify` compares.
    """

    def __init__(self, policy: Local, dtype: torch.dtype) -> None:
        """Args: policy: what samples; dtype: it computes in."""
        self.policy, self.dtype = policy, dtype
        self.prompt = _fixed_prompt(policy)

    @abstractmethod
    def sync(self, model: Any) -> None:
        """Give it the model's weights as they are now, and forget what old ones computed.

        Where the trainer is several processes, all of them must call this.

        Raises:
            StaleSampler: It keeps what old ones computed.
            PolicyError: It does not answer.
        """

    @abstractmethod
    def score(self, ids: Sequence[int]) -> list[float]:
        """Its log-probability (nats) of each id but the first, after those before."""


class Shared(Sampler):
    """The policy samples from the trained model itself, so there is nothing to copy."""

    def __init__(self, name: str, model: Any, tokenizer: Any, **chat: Unpack[ChatOptions]) -> None:
        """Args: name: of the model; model: what is trained; tokenizer: its own; chat: template.

        Raises:
            ValueError: Its weights are sharded over processes, or it is no chat model.
        """
        if any(map(is_sharded, model.parameters())):
            # each process samples until its own answers end, but a sharded model computes only
            # when all processes do
            raise ValueError(
                "a model sharded over processes cannot sample; take backend vllm or vllm-server"
            )
        policy = Transformers(name, model, tokenizer, **chat)
        super().__init__(policy, model.dtype)
        self._model = policy.model

    def sync(self, model: Any) -> None:
        """Leave training mode, in which gradient checkpointing would switch off the cache."""
        model.eval()

    def score(self, ids: Sequence[int]) -> list[float]:
        """Its log-probability (nats) of each id but the first, after those before."""
        return log_probs(self._model, ids)


def verify(sampler: Sampler, model: Any, score: Score | None = None) -> float:
    """Check that the sampler holds the model's weights.

    Where the trainer is several processes, all of them must call this.

    Args:
        sampler: Who samples.
        model: What is trained.
        score: Its log-probabilities; None asks the model itself, which cannot tell while it is
            sharded as a part of another module.

    Returns:
        How far the log-probabilities of sampler and model lie apart: the mean absolute difference
        (nats a token) over the fixed prompt or over the answer, whichever is greater. The answer
        is what shows a prefix cache of old weights: vLLM scores a prompt without the cache.

    Raises:
        StaleSampler: By more than rounding, on any process; the message tells both mean
            log-probabilities.
        NotFinite: The model's are infinite or not numbers.
        PolicyError: The sampler does not answer.
    """
    prompt = sampler.prompt
    conversation = Conversation([], _KEY, seed=0, ids=list(prompt))
    greedy = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=ANSWER)
    with failing_together(PolicyError):
        [answer] = sampler.policy.generate([conversation], greedy)
        theirs = [*sampler.score(prompt), *answer.logprobs]
    ids = [*prompt, *answer.ids]
    ours = score(ids) if score else log_probs(model, ids)
    with failing_together(NotFinite, StaleSampler):
        return _gap(sampler, model, ours, theirs)


def _gap(sampler: Sampler, model: Any, ours: list[float], theirs: list[float]) -> float:
    """What `verify` gives, of the trainer's log-probabilities and the sampler's."""
    ours_T, theirs_T = torch.tensor(ours), torch.tensor(theirs)
    if not ours_T.isfinite().all():
        raise NotFinite("the trained model's log-probabilities are not finite")
    apart_T = (theirs_T - ours_T).abs()
    begin = len(sampler.prompt) - 1
    gap = float(torch.maximum(apart_T[:begin].mean(), apart_T[begin:].mean()))
    tolerance = max(TOLERANCE[sampler.dtype], TOLERANCE[model.dtype])
    if not gap <= tolerance:  # a NaN is no pass
        raise StaleSampler(
            "the sampler does not have the trainer's weights: the mean log-probability of a fixed "
            f"prompt and its answer is {theirs_T.mean():.4f} by the sampler and "
            f"{ours_T.mean():.4f} by the trainer; a token's lie {gap:.2g} apart, at most "
            f"{tolerance:g} is rounding"
        )
    return gap


def log_probs(model: Any, ids: Sequence[int]) -> list[float]:
    """A transformers model's log-probability (nats) of each id but the first."""
    was_training = model.training
    model.eval()
    ids_T = torch.tensor(ids, device=model.device)
    with torch.no_grad():
        logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
    model.train(was_training)
    if hasattr(model, "reshard"):
        # FSDP leaves the root's weights whole after a forward pass that no backward pass follows;
        # an optimizer or a checkpoint would take these copies for the weights
        model.reshard()
    losses_T = F.cross_entropy(logits_TV.float(), ids_T[1:], reduction="none")
    return [-loss for loss in losses_T.tolist()]


def _fixed_prompt(policy: Local) -> list[int]:
    """A first prompt of FrozenLake, again and again up to `PROMPT` tokens."""
    env = registry.make("frozenlake", rules="shown", prompt_style="compact")
    observation, _ = env.reset(seed=0)
    messages: list[Message] = [
        {"role": "system", "content": env.system_prompt},
        {"role": "user", "content": observation},
    ]
    ids = policy.chat.new_ids(Conversation(messages, _KEY, seed=0))
    length = min(PROMPT, policy.context // 2)
    return (ids * length)[:length]
