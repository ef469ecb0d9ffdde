"""Attention keys and values that outlive a call: a growing conversation is read only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache, DynamicLayer

SPARE = 4
"""Room for a fourth of what is held: copying it all is seldom, and little memory lies idle."""

Past = list[tuple[torch.Tensor, torch.Tensor]]
"""Of one conversation: for each layer keys and values, each of shape (heads, tokens, head size)."""


class Read(NamedTuple):
    """What a conversation's model has read: ids, and their keys and values."""

    ids: Sequence[int]
    past: Past

    def of(self, ids: Sequence[int]) -> Past | None:
        """Of the ids that another prompt begins with too, but for its last; None if of none.

        A prompt that is told anew shares only its beginning with what was read.
        """
        pairs = zip(self.ids, ids[:-1], strict=False)
        shared = next(
            (place for place, (one, two) in enumerate(pairs) if one != two),
            min(len(self.ids), len(ids) - 1),
        )
        if not shared:
            return None
        return [(keys[:, :shared], values[:, :shared]) for keys, values in self.past]


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that writes into spare room instead of copying all it holds at every token."""

    keys: torch.Tensor
    values: torch.Tensor
    _keys: torch.Tensor
    _values: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states (batch, heads, tokens, head size); returns all."""
        if not self.is_initialized:
            self.hold(key_states, value_states, key_states.shape[2])
            return self.keys, self.values
        held = self.keys.shape[2]
        total = held + key_states.shape[2]
        if total > self._keys.shape[2]:
            room = total - held + total // SPARE
            self._keys, self._values = (
                torch.cat([all_, all_.new_empty(*all_.shape[:2], room, all_.shape[3])], dim=2)
                for all_ in (self.keys, self.values)
            )
        self._keys[:, :, held:total] = key_states
        self._values[:, :, held:total] = value_states
        self.keys, self.values = self._keys[:, :, :total], self._values[:, :, :total]
        return self.keys, self.values

    def hold(self, keys: torch.Tensor, values: torch.Tensor, held: int) -> None:
        """Begin with states whose first `held` tokens are there; the rest is spare room."""
        self.lazy_initialization(keys, values)
        self._keys, self._values = keys, values
        self.keys, self.values = keys[:, :, :held], values[:, :, :held]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows of the batch."""
        held = self.keys.shape[2]
        # several times as fast as by brackets, on a CPU
        self._keys, self._values = (
            states.index_select(0, indices) for states in (self._keys, self._values)
        )
        self.keys, self.values = self._keys[:, :, :held], self._values[:, :, :held]


def gather(pasts: Sequence[Past | None], layers: int) -> tuple[Any, list[int]]:
    """A batch's cache, rows padded on the left with zeros, and the tokens that each row holds."""
    lengths = [past[0][0].shape[1] if past else 0 for past in pasts]
    held = max(lengths)
    cache = Cache(layers=[GrowingLayer() for _ in range(layers)])
    some = next((past for past in pasts if past), None)
    if some is None:
        return cache, lengths
    for number, layer in enumerate(cache.layers):
        both = []
        for kind in (0, 1):  # keys, values
            heads, _, size = some[number][kind].shape
            states = some[number][kind].new_empty(len(pasts), heads, held + held // SPARE, size)
            for row, (past, length) in enumerate(zip(pasts, lengths, strict=True)):
                # masked, but what is not a number would stay one
                states[row, :, : held - length] = 0
                if past:
                    states[row, :, held - length : held] = past[number][kind]
            both.append(states)
        layer.hold(both[0], both[1], held)
    return cache, lengths


def take(cache: Any, row: int, mask_L: torch.Tensor) -> Past:
    """What a cache holds for a row, without its padding.

    Args:
        cache: Of a batch.
        row: Place in the batch.
        mask_L: True for each cached token that is no padding.
    """
    kept = mask_L.nonzero()[:, 0]
    return [
        (layer.keys[row].index_select(1, kept), layer.values[row].index_select(1, kept))
        for layer in cache.layers
    ]


def is_plain(model: Any) -> bool:
    """Whether every layer attends to all that came before, so that `Past` holds it all."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"} and not getattr(config, "sliding_window", None)
