"""Tensors of which each process may hold a shard (FSDP's DTensor), whole and back."""

from __future__ import annotations

from typing import Any

import torch

from erl_trainer.processes import is_first


def is_sharded(tensor: Any) -> bool:
    """Whether each process holds a part of it."""
    return hasattr(tensor, "full_tensor")


@torch.no_grad()  # type: ignore[untyped-decorator]
def whole(tensor: Any) -> torch.Tensor:
    """All of it; every process must ask."""
    found: torch.Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return found.detach()


def whole_for_first(tensor: Any) -> torch.Tensor:
    """All of it, for the first process to write; the others, who must ask too, get nothing.

    What was sharded comes in the CPU's memory: a device that holds a shard has no room for all.
    """
    found = whole(tensor)
    if not is_sharded(tensor):
        return found
    return found.cpu() if is_first() else found.new_empty(0, device="cpu")


def like(tensor: Any, found: torch.Tensor) -> torch.Tensor:
    """A whole tensor, divided as `tensor` is; every process gives the same one."""
    if not is_sharded(tensor):
        return found
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(found.to(tensor.device), tensor.device_mesh, tensor.placements)
