"""Sequences that go through a model together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from erl_envs.packing import pack


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_packs_hold_everything_once_within_the_budget(lengths: list[int], budget: int) -> None:
    packs = pack(lengths, budget)
    assert sorted(place for places in packs for place in places) == list(range(len(lengths)))
    for places_ in packs:
        longest = max(lengths[place] for place in places_)
        assert len(places_) == 1 or len(places_) * longest <= budget


def test_packs_by_hand() -> None:
    # longest first: 9 alone (2 * 9 > 12); 6 and 5 (2 * 6 = 12); 3, 3, 1 (3 * 3 = 9)
    assert pack([3, 9, 5, 3, 6, 1], 12) == [[1], [4, 2], [0, 3, 5]]
