"""Credit by hand: what each kind of advantage is, and what becomes of groups that tell nothing."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erl_trainer.advantages import Credit, advantages

Kind = Literal["mean", "mean_std", "raft"]
KINDS: tuple[Kind, ...] = ("mean", "mean_std", "raft")


def credit(rewards: list[float], groups: Any, pools: Any = None, **options: Any) -> Credit:
    given_options = {"kind": "mean", "small_group": "zero", "min_group": 2, **options}
    return advantages(rewards, groups, pools or [0] * len(rewards), **given_options)


def test_mean_subtracts_the_groups_mean() -> None:
    # group a: mean (1 + 0 + 0 + 1) / 4 = 0.5; group b: mean (5 + 6) / 2 = 5.5
    found = credit([1, 0, 5, 0, 1, 6], "aabaab")
    assert found == Credit([0.5, -0.5, -0.5, -0.5, 0.5, 0.5], groups=2, flat=0, small=0)


def test_mean_std_divides_by_the_samples_standard_deviation() -> None:
    # mean 1/4; squared distances 9/16 + 3 * 1/16 = 12/16; over n - 1 = 3: variance 1/4, std 0.5
    # (the population's would be sqrt(3/16) = 0.433)
    found = credit([1, 0, 0, 0], "aaaa", kind="mean_std")
    assert found.values == pytest.approx(
        [0.75 / 0.500001, -0.25 / 0.500001, -0.25 / 0.500001, -0.25 / 0.500001], abs=1e-15
    )


def test_raft_takes_positive_rewards_whatever_the_group() -> None:
    found = credit([1, 0.3, 0, -1], "abbc", kind="raft")
    assert found == Credit([1, 0.3, 0, 0], groups=3, flat=0, small=2)


@pytest.mark.parametrize("kind", ["mean", "mean_std"])
def test_equal_rewards_give_exactly_nothing(kind: Kind) -> None:
    # 0.1 + 0.1 + 0.1 is not 0.3 in floats, and 1e-17 / 1e-6 would already be a gradient
    assert credit([0.1, 0.1, 0.1], "aaa", kind=kind) == Credit([0, 0, 0], 1, flat=1, small=0)


def test_a_small_group_gets_nothing_or_is_compared_with_its_pool() -> None:
    rewards, groups, pools = [1.0, 0.0, 1.0, 0.0, 1.0], "aabcd", "xxxxy"
    zero = credit(rewards, groups, pools)
    assert zero == Credit([0.5, -0.5, 0, 0, 0], groups=4, flat=0, small=3)
    # pool x has rewards 1, 0, 1, 0: mean 0.5; pool y is one sample alone: 1 - 1 = 0
    pool = credit(rewards, groups, pools, small_group="pool")
    assert pool == Credit([0.5, -0.5, 0.5, -0.5, 0], groups=4, flat=0, small=3)


def test_a_pools_standard_deviation_is_the_pools() -> None:
    # pool 2, 0, 1: mean 1, variance (1 + 1 + 0) / 2 = 1
    found = credit([2, 0, 1], "abc", kind="mean_std", small_group="pool")
    assert found.values == pytest.approx([1 / 1.000001, -1 / 1.000001, 0])


def test_min_group_decides_what_is_small() -> None:
    rewards, groups = [1.0, 0.0, 1.0, 1.0, 0.0], "aabbb"
    assert credit(rewards, groups, min_group=3).values == pytest.approx(
        [0, 0, 1 / 3, 1 / 3, -2 / 3]
    )
    assert credit(rewards, groups, min_group=3)[1:] == (2, 0, 1)
    # a lone sample that counts as a group is its own mean, and has no standard deviation
    assert credit([7.0], "a", min_group=1, kind="mean_std") == Credit([0], 1, flat=1, small=0)


def test_nothing_has_no_groups() -> None:
    assert credit([], "") == Credit([], 0, 0, 0)


def test_every_reward_needs_a_group_and_a_pool() -> None:
    with pytest.raises(ValueError, match="shorter"):
        credit([1.0, 0.0], "a")


REWARDS = st.floats(-10, 10).map(lambda reward: round(reward, 3))
SAMPLES = st.lists(st.tuples(REWARDS, st.integers(0, 3)), min_size=1, max_size=12)


@given(SAMPLES, st.randoms(), st.sampled_from(KINDS), st.sampled_from(["zero", "pool"]))
def test_the_order_of_samples_does_not_matter(
    samples: list[tuple[float, int]], random: Any, kind: Kind, small_group: str
) -> None:
    def found(order: list[int]) -> tuple[dict[int, float], tuple[int, int, int]]:
        rewards, groups = [samples[i][0] for i in order], [samples[i][1] for i in order]
        pools = [group % 2 for group in groups]
        result = credit(rewards, groups, pools, kind=kind, small_group=small_group, min_group=3)
        return dict(zip(order, result.values, strict=True)), result[1:]

    order = list(range(len(samples)))
    straight = found(order)
    random.shuffle(order)
    assert found(order) == straight  # to the last bit


@given(SAMPLES, st.sampled_from(["mean", "mean_std"]))
def test_a_groups_advantages_cancel_and_keep_its_order(
    samples: list[tuple[float, int]], kind: Kind
) -> None:
    rewards, groups = [s[0] for s in samples], [s[1] for s in samples]
    values = credit(rewards, groups, kind=kind).values
    for group in set(groups):
        own = [(r, a) for r, g, a in zip(rewards, groups, values, strict=True) if g == group]
        assert math.fsum(a for _, a in own) == pytest.approx(0, abs=1e-9)
        if len(own) > 1:
            by_reward = [a for _, a in sorted(own)]
            assert by_reward == sorted(by_reward)
            assert (own[0][1] == own[1][1]) == (own[0][0] == own[1][0])
