"""The model as the learner needs it: numbers of learnt tokens, their logits a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from erl_trainer.losses import divergence

Read = Callable[..., tuple[torch.Tensor, ...]]
"""What a chunk's hidden states say: read(head, hidden_ND, *more of each token) -> one or more
values of each token."""


class Scorer(nn.Module):  # type: ignore[misc]
    """A language model's body and head in one module, so that hooks of DDP and FSDP see all of it.

    Attributes:
        body: Ids to hidden states.
        head: Hidden states to logits.
        chunk: Most tokens whose logits exist at a time.
    """

    def __init__(self, model: Any, chunk: int) -> None:
        """Find body and head, and try on a few ids that together they are the model.

        Args:
            model: A causal language model, perhaps with PEFT's adapters.
            chunk: Most tokens whose logits exist at a time.

        Raises:
            ValueError: The model's logits are not those of its head, so that they cannot be had in
                chunks; some models scale or cap them.
        """
        super().__init__()
        inner = bare(model)
        self.body = inner.base_model
        self.head = inner.get_output_embeddings()
        self.chunk = chunk
        # what accelerate's FSDP shards layer by layer
        self._no_split_modules = getattr(inner, "_no_split_modules", None)
        if self.head is None or self.body is inner or not self._is(inner):
            raise ValueError(
                f"cannot train {type(inner).__name__}: its logits are not lm_head(hidden states); "
                "models that scale or cap their logits are not supported"
            )

    def forward(
        self,
        ids_BT: torch.Tensor,
        at_N: torch.Tensor,
        read: Read,
        *more_N: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Read the hidden states of some places, `chunk` of them at a time.

        A chunk's logits are computed again for its gradient (checkpointing), so those of all
        places never exist together.

        Args:
            ids_BT: Token ids, padded on the right: attention is causal, so that no token sees
                padding, and without a mask it costs half.
            at_N: Places to read, indices into B * T.
            read: How.
            *more_N: What else `read` needs of each place.

        Returns:
            The values that `read` gives, of all places.
        """
        out = self.body(input_ids=ids_BT, use_cache=False)
        hidden_ND = out.last_hidden_state.flatten(0, 1)[at_N]
        chunks = [
            checkpoint(
                read,
                self.head,
                *(each[start : start + self.chunk] for each in (hidden_ND, *more_N)),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            # none to read is one empty chunk: every weight gets a gradient, if of zero
            for start in range(0, max(len(at_N), 1), self.chunk)
        ]
        return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _is(self, model: Any) -> bool:
        """Whether head(body(ids)) are the model's logits."""
        ids_BT = torch.arange(4, device=self.head.weight.device)[None] % self.head.weight.shape[0]
        theirs = model(input_ids=ids_BT, use_cache=False).logits
        ours = self.head(self.body(input_ids=ids_BT, use_cache=False).last_hidden_state)
        rounding = max(1e-5, 2 * torch.finfo(theirs.dtype).eps) * theirs.abs().max()
        return bool((ours - theirs).abs().max() <= rounding)


def bare(model: Any) -> Any:
    """The model itself where PEFT has wrapped it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def logprobs(
    head: nn.Module,
    hidden_ND: torch.Tensor,
    target_N: torch.Tensor,
    temperature_N: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Log-probabilities (nats) of the targets, each at its temperature; None is 1 for all."""
    logits_NV = wide(head(hidden_ND))
    if temperature_N is not None:
        logits_NV = logits_NV / temperature_N[:, None]
    return (logits_NV.gather(1, target_N[:, None])[:, 0] - logits_NV.logsumexp(-1),)


def hidden(head: nn.Module, hidden_ND: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The hidden states themselves."""
    return (hidden_ND,)


def divergences(
    head: nn.Module, hidden_ND: torch.Tensor, teacher_ND: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """KL(teacher ‖ student) of each token (nats), from the hidden states of both."""
    with torch.no_grad():
        teacher_NV = wide(head(teacher_ND))
    return (divergence(teacher_NV, wide(head(hidden_ND))),)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: sums over a vocabulary lose too much below."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
