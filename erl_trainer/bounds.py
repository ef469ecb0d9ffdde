"""What the numbers of a configuration must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BOUNDS: Sequence[tuple[str, Callable[[float], bool], Sequence[str]]] = (
    (
        "1 or more",
        lambda value: value >= 1,
        (
            *("steps", "tasks_per_step", "group_size", "eval_samples", "min_group", "minibatches"),
            *("max_tokens", "reflect_max_tokens", "token_budget", "logit_chunk", "concurrency"),
            *("constant", "checkpoint_every", "dual_clip"),
        ),
    ),
    (
        "0 or more",
        lambda value: value >= 0,
        (
            *("eval_tasks", "eval_every", "sample_every", "warmup", "lora_rank", "max_failures"),
            *("lr", "weight_decay", "grad_clip", "kl_weight", "distill_weight"),
            *("top_p", "reflect_top_p", "clip_low", "clip_high", "seed"),
        ),
    ),
    (
        "1 or less",
        lambda value: value <= 1,
        ("max_failures", "top_p", "reflect_top_p", "clip_low"),
    ),
    (
        "above 0",
        lambda value: value > 0,
        ("temperature", "reflect_temperature", "importance_cap"),
    ),
)
"""What numbers must be, where they are not None, and which."""


def check_numbers(fields: Mapping[str, Any]) -> None:
    """See that numbers are finite and within their bounds.

    Raises:
        ValueError: One is not; the message names it.
    """
    numbers = {k: v for k, v in fields.items() if isinstance(v, int | float)}
    for words, valid, names in (("a finite number", math.isfinite, numbers), *BOUNDS):
        for name in names:
            if name in numbers and not valid(numbers[name]):
                raise ValueError(f"{name} must be {words}, got {numbers[name]}")
