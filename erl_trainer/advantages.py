"""Credit for rewards: what a sample earned, compared with what the others of its group did."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import cache
from statistics import mean, stdev
from typing import Literal, NamedTuple

EPSILON = 1e-6
"""Added to the standard deviation (PAPER: App. C)."""


class Credit(NamedTuple):
    """The samples' advantages, and how many groups could tell none.

    Attributes:
        values: An advantage for each sample, in order.
        groups: Groups.
        flat: Groups of `min_group` or more samples whose rewards are all equal.
        small: Groups of fewer than `min_group` samples.
    """

    values: list[float]
    groups: int
    flat: int
    small: int


def advantages(
    rewards: Sequence[float],
    groups: Sequence[Hashable],
    pools: Sequence[Hashable],
    *,
    kind: Literal["mean", "mean_std", "raft"],
    small_group: Literal["zero", "pool"],
    min_group: int,
) -> Credit:
    """The advantage of each sample over its baseline: its group, or its pool if that is small.

    `mean` subtracts the baseline's mean (Dr. GRPO, Liu 2025); `mean_std` then divides by its
    standard deviation + 1e-6 (GRPO, Shao 2024; PAPER: App. C), the sample's (n - 1), as the
    paper's code takes it (`torch.std`); `raft` is max(reward, 0), whatever the group (Dong 2023).
    Sums are exact, so the order of samples does not matter, and equal rewards give exactly 0.

    Args:
        rewards: What each sample earned; finite.
        groups: Each sample's group, usually its task and stage.
        pools: Each sample's pool, usually its stage: all samples that a small group is compared
            with, itself among them.
        kind: How to compare.
        small_group: `zero` gives a small group no credit; `pool` compares it with its pool.
        min_group: Least samples of a group that is its own baseline.

    Raises:
        ValueError: There are not as many groups or pools as rewards.
    """
    members: dict[tuple[str, Hashable], list[float]] = defaultdict(list)
    for reward, group, pool in zip(rewards, groups, pools, strict=True):
        members["group", group].append(float(reward))
        members["pool", pool].append(float(reward))
    sizes = Counter(groups)
    small = {group for group, size in sizes.items() if size < min_group}
    flat = {group for group in sizes if len(set(members["group", group])) == 1} - small

    @cache
    def baseline(label: tuple[str, Hashable]) -> tuple[float, float]:
        # `statistics` sums in exact fractions: equal rewards leave no residue to divide by epsilon
        own = members[label]
        spread = stdev(own) + EPSILON if kind == "mean_std" and len(own) > 1 else 1.0
        return mean(own), spread

    def advantage(reward: float, group: Hashable, pool: Hashable) -> float:
        if kind == "raft":
            return max(reward, 0.0)
        if group in small and small_group == "zero":
            return 0.0
        middle, spread = baseline(("pool", pool) if group in small else ("group", group))
        return (reward - middle) / spread

    values = [advantage(float(r), g, p) for r, g, p in zip(rewards, groups, pools, strict=True)]
    return Credit(values, len(sizes), len(flat), len(small))
