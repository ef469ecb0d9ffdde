"""Batched sampling with a transformers model: own random stream a row, exact log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from erl_envs.policies.base import Sampling
from erl_envs.policies.kv_cache import Past, is_plain, take
from erl_envs.policies.local import context_length
from erl_envs.policies.prefill import prefill


class Sampled(NamedTuple):
    """What was sampled for one prompt.

    Attributes:
        ids: Token ids; a stop id that came is the last.
        logprobs: Of each id (nats), at the temperature of its sampling (1 where that is 0), before
            any cut.
        stopped: Whether a stop id came.
        past: Keys and values of all ids but the last; None if the model's cannot be kept.
    """

    ids: list[int]
    logprobs: list[float]
    stopped: bool = False
    past: Past | None = None


@torch.inference_mode()  # type: ignore[untyped-decorator]
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    rngs: Sequence[np.random.Generator],
    sampling: Sampling,
    stop_ids: Sequence[int],
    pasts: Sequence[Past | None] | None = None,
) -> list[Sampled]:
    """Continue each prompt until a stop id, `max_tokens`, or the model's context is full.

    Rows that have ended leave the batch. Each row draws from its own generator, so what it samples
    depends on its batch through rounding alone.

    Args:
        model: A causal language model.
        prompts: Token ids; none empty.
        rngs: One generator a prompt.
        sampling: How to sample.
        stop_ids: Ids that end a row.
        pasts: Keys and values of each prompt's first ids, from an earlier call; only the rest is
            read. None for none.

    Returns:
        A result for each prompt.
    """
    device, plain = model.device, is_plain(model)
    logits_BV, cache, mask_BL = prefill(model, prompts, pasts or [None] * len(prompts))
    position_B = mask_BL.sum(1) - 1
    results = [Sampled([], []) for _ in prompts]
    alive = list(range(len(prompts)))
    context = context_length(model)
    for step in range(sampling.max_tokens):
        logp_BV = logits_BV.float().log_softmax(-1)
        draws_B = torch.tensor([rngs[row].random() for row in alive], device=device)
        next_B = pick(logp_BV, draws_B, sampling)
        if sampling.temperature not in (0, 1):
            logp_BV = (logp_BV / sampling.temperature).log_softmax(-1)
        next_logp_B = logp_BV.gather(1, next_B[:, None])[:, 0]
        going = []
        for place, (row, token, logp) in enumerate(
            zip(alive, next_B.tolist(), next_logp_B.tolist(), strict=True)
        ):
            ids, logprobs, *_ = results[row]
            ids.append(token)
            logprobs.append(logp)
            stopped = token in stop_ids
            full = len(prompts[row]) + len(ids) >= context
            if stopped or full or step + 1 == sampling.max_tokens:
                past = take(cache, place, mask_BL[place].bool()) if plain else None
                results[row] = Sampled(ids, logprobs, stopped, past)
            else:
                going.append(place)
        if not going:
            break
        position_B = position_B + 1
        mask_BL = torch.cat([mask_BL, mask_BL.new_ones(len(mask_BL), 1)], dim=1)
        if len(going) < len(alive):
            keep = torch.tensor(going, device=device)
            alive = [alive[place] for place in going]
            next_B, position_B, mask_BL = next_B[keep], position_B[keep], mask_BL[keep]
            cache.batch_select_indices(keep)
        out = model(
            input_ids=next_B[:, None],
            attention_mask=mask_BL,
            position_ids=position_B[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        logits_BV, cache = out.logits[:, -1], out.past_key_values
    return results


def pick(logp_BV: torch.Tensor, draws_B: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Tokens by inverse CDF: temperature, then top-k, then top-p, then one uniform draw a row.

    Args:
        logp_BV: Log-probabilities or logits.
        draws_B: Uniform in [0, 1).
        sampling: How to sample.

    Returns:
        Token ids, shape B.
    """
    if sampling.temperature == 0:
        return logp_BV.argmax(-1)
    scaled_BV = logp_BV / sampling.temperature
    order_BK = None
    if sampling.top_k:
        scaled_BV, order_BK = scaled_BV.topk(min(sampling.top_k, scaled_BV.shape[1]), dim=-1)
    elif sampling.top_p < 1:
        scaled_BV, order_BK = scaled_BV.sort(dim=-1, descending=True)
    probs_BK = scaled_BV.softmax(-1)
    if sampling.top_p < 1:
        before_BK = probs_BK.cumsum(-1) - probs_BK
        probs_BK = probs_BK.masked_fill(before_BK >= sampling.top_p, 0.0)
    cdf_BK = probs_BK.cumsum(-1)
    # scaling the draw by the last sum normalises; `clamp` guards the rounding at its very end
    index_B = (cdf_BK <= draws_B[:, None] * cdf_BK[:, -1:]).sum(-1)
    last_B = (probs_BK > 0).long().cumsum(-1).argmax(-1)
    index_B = torch.minimum(index_B, last_B)
    return index_B if order_BK is None else order_BK.gather(1, index_B[:, None])[:, 0]
