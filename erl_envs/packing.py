"""Which sequences go through a model together."""

from __future__ import annotations

from collections.abc import Sequence


def pack(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Places of sequences that go together: rows times longest stays within the budget.

    Neighbours in length share a pack, so that little is padded. A sequence longer than the
    budget is alone. Longest first: what does not fit in memory fails at once.

    Args:
        lengths: Of the sequences, in tokens.
        token_budget: Most tokens, padding included.
    """
    packs: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if packs and (len(packs[-1]) + 1) * lengths[packs[-1][0]] <= token_budget:
            packs[-1].append(place)
        else:
            packs.append([place])
    return packs
