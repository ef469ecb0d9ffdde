"""AdamW over float32 weights, whatever the model's own are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from erl_trainer.forward import wide
from erl_trainer.shards import like, whole, whole_for_first


class MasterAdamW:
    """AdamW that steps float32 copies of weights narrower than that, and the weights after them.

    A step of 1e-6 is less than half a unit in the last place of most bfloat16 weights: without
    copies it is rounded away. Weights of float32 or more are their own copies.

    Attributes:
        masters: What is stepped, by name.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], weight_decay: float) -> None:
        """Args: weights: what to train, by name; weight_decay: AdamW's."""
        self.masters = {name: wide(weight.detach()) for name, weight in weights.items()}
        self.masters |= {n: w for n, w in weights.items() if w.dtype == self.masters[n].dtype}
        self._weights = dict(weights)
        self._adamw = torch.optim.AdamW(self.masters.values(), weight_decay=weight_decay)

    def gather(self) -> float:
        """Add a backward pass's gradients to the masters', where weights have them apart.

        Returns:
            The norm of all gradients since `clear`.
        """
        for weight, master in self._apart():
            if weight.grad is not None:
                grad = wide(weight.grad)
                master.grad = grad if master.grad is None else master.grad + grad
                weight.grad = None
        norm = get_total_norm([m.grad for m in self.masters.values() if m.grad is not None])
        return float(whole(norm))

    def step(self, lr: float, norm: float, greatest: float) -> None:
        """Step by the gathered gradients, their norm cut from `norm` to `greatest`; clear them."""
        clip_grads_with_norm_(self.masters.values(), greatest, torch.tensor(norm))
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        self._publish()
        self.clear()

    def clear(self) -> None:
        """Forget all gradients."""
        for tensor in (*self.masters.values(), *self._weights.values()):
            tensor.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Masters and AdamW's state; live tensors, as torch's.

        Where weights are sharded every process must ask, and the first gets whole tensors.
        """
        masters = {name: whole_for_first(master) for name, master in self.masters.items()}
        adamw = self._adamw.state_dict()
        state = {
            number: {name: whole_for_first(value) for name, value in values.items()}
            for number, values in adamw["state"].items()
        }
        return {"masters": masters, "adamw": {**adamw, "state": state}}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: It is of other weights.
        """
        if state["masters"].keys() != self.masters.keys():
            raise ValueError("the checkpoint's weights are not those that this model trains")
        for name, master in self.masters.items():
            master.copy_(like(master, state["masters"][name]))
        self._publish()
        # AdamW numbers its weights in the masters' order
        adamw = {
            number: {
                name: like(master, value) if value.shape == master.shape else value
                for name, value in state["adamw"]["state"][number].items()
            }
            for number, master in enumerate(self.masters.values())
            if number in state["adamw"]["state"]
        }
        self._adamw.load_state_dict({**state["adamw"], "state": adamw})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _publish(self) -> None:
        for weight, master in self._apart():
            weight.copy_(master)

    def _apart(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        pairs = ((weight, self.masters[name]) for name, weight in self._weights.items())
        return [(weight, master) for weight, master in pairs if weight is not master]
