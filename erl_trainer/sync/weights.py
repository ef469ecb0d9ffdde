"""The trainer's weights as a plain checkpoint has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from erl_trainer.forward import bare
from erl_trainer.shards import whole

UNTIED = {"tie_word_embeddings": False}
"""What vLLM's configuration of a model needs on a CPU. Its kernels there keep a packed copy of the
output layer, and no reload renews that copy while the layer is tied to the embeddings."""


@torch.no_grad()  # type: ignore[untyped-decorator]
def weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors as a plain checkpoint of the model has them, one whole tensor at a time.

    LoRA is merged into what it adapts, in a copy; shards of other processes are gathered, so all
    processes must iterate. A tied tensor comes under each of its names.
    """
    base = bare(model)
    for name, parameter in base.named_parameters(remove_duplicate=False):
        if ".lora_" in name:
            continue
        tensor = whole(parameter)
        layer, adapted, rest = name.partition(".base_layer.")
        if adapted and rest == "weight":
            module = base.get_submodule(layer)
            for adapter in module.active_adapters:
                delta = whole(module.get_delta_weight(adapter))
                tensor = (tensor + delta).to(tensor.dtype)
        yield (f"{layer}.{rest}" if adapted else name), tensor
