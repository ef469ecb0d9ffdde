"""Reading a batch's prompts: equal ones once, new ones a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from erl_envs.packing import pack
from erl_envs.policies.kv_cache import Past, gather, is_plain, take

TOKENS = 4096
"""Most tokens of new prompts that are read together, padding included: what a CPU's cache still
holds (`benchmarks/test_packs.py`), and enough to keep a GPU busy."""


class Prompts(NamedTuple):
    """Prompts that a model has read.

    Attributes:
        logits_BV: Of each prompt's next token.
        cache: Keys and values of all, rows padded on the left.
        mask_BL: 1 for each cached token, 0 for padding.
    """

    logits_BV: torch.Tensor
    cache: Any
    mask_BL: torch.Tensor


def prefill(model: Any, prompts: Sequence[Sequence[int]], pasts: Sequence[Past | None]) -> Prompts:
    """Read prompts: of each what its past does not hold, equal ones once, in packs to pad little.

    Args:
        model: A causal language model.
        prompts: Token ids; none empty.
        pasts: Keys and values of each prompt's first ids, or None.
    """
    if not is_plain(model):
        return _read(model, prompts, None)
    # what a conversation adds is short: copying what is held would cost more than it saves
    if any(pasts):
        return _read(model, prompts, pasts)
    keys = [tuple(prompt) for prompt in prompts]
    distinct = list(dict.fromkeys(keys))  # a group's attempts begin alike
    packs = pack([len(prompt) for prompt in distinct], TOKENS)
    if len(packs) == 1 and len(distinct) == len(prompts):
        return _read(model, prompts, pasts)
    logits: dict[tuple[int, ...], torch.Tensor] = {}
    read: dict[tuple[int, ...], Past] = {}
    for rows in packs:
        part = _read(model, [distinct[row] for row in rows], [None] * len(rows))
        for place, row in enumerate(rows):
            logits[distinct[row]] = part.logits_BV[place]
            read[distinct[row]] = take(part.cache, place, part.mask_BL[place].bool())
    cache, lengths = gather([read[key] for key in keys], _layers(model))
    mask_BL = _mask(lengths).to(model.device)
    return Prompts(torch.stack([logits[key] for key in keys]), cache, mask_BL)


def _read(
    model: Any, prompts: Sequence[Sequence[int]], pasts: Sequence[Past | None] | None
) -> Prompts:
    """Read prompts in one pass; without `pasts` into the model's own kind of cache."""
    cache, held = None, [0] * len(prompts)
    if pasts is not None:
        cache, held = gather(pasts, _layers(model))
    new = [list(prompt[known:]) for prompt, known in zip(prompts, held, strict=True)]
    width = max(map(len, new))
    ids_BL = torch.tensor([[0] * (width - len(ids)) + ids for ids in new])
    mask_BL = torch.cat([_mask(held), _mask([len(ids) for ids in new])], dim=1)
    ids_BL, mask_BL = ids_BL.to(model.device), mask_BL.to(model.device)
    out = model(
        input_ids=ids_BL,
        attention_mask=mask_BL,
        position_ids=(mask_BL.cumsum(1) - 1).clamp(min=0)[:, -width:],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return Prompts(out.logits[:, -1], out.past_key_values, mask_BL)


def _mask(lengths: Sequence[int]) -> torch.Tensor:
    """1 for the last so many places of each row."""
    places_L = torch.arange(max(lengths)).flip(0)
    return (places_L < torch.tensor(lengths)[:, None]).long()


def _layers(model: Any) -> int:
    return int(model.config.get_text_config().num_hidden_layers)
