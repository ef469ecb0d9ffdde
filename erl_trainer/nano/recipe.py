"""How nano is made: the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How nano is made.

    Attributes:
        env: Environment id.
        hidden: Width.
        layers: Depth.
        heads: Attention heads.
        steps: Optimizer steps, after the lead.
        lead: Steps in which another game starts as Sokoban does: what finds a symbol on a board
            comes about there four times sooner than in FrozenLake, and then serves both.
        playing: First steps, in which only playing and looking are learnt:
            where things are must be told before anything else makes sense.
        cooling: Steps after all others, over which the learning rate falls to nothing.
        tokens: Of a step.
        lr: Peak learning rate; it warms up over `warmup` steps and falls to a tenth as a cosine.
        warmup: Steps.
        shown: Weight of predicting the world's answers, beside what is to be said.
        seed: Of weights and data.
        compiled: Whether torch compiles the model (needs a C++ compiler; it is faster).
    """

    env: str = "frozenlake"
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    steps: int = 9000
    lead: int = 0
    playing: int = 1500
    cooling: int = 0
    tokens: int = 4096
    lr: float = 3e-3
    warmup: int = 100
    shown: float = 0.1
    seed: int = 0
    compiled: bool = True


OWN: Mapping[str, Mapping[str, int]] = {
    "frozenlake": {"lead": 600, "steps": 15_000, "cooling": 3000},
    "sokoban": {"steps": 17_000},
    "hotpotqa": {"steps": 13_000, "playing": 8000},
}
"""Environment → what its recipe has otherwise."""
