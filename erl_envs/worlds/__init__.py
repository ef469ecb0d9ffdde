"""Seeded fictional worlds with multi-hop questions: HotpotQA's data where nothing is downloaded.

A world is made in three steps: a state (who was born where, who founded what), a passage about each
entity that states most of its facts, and questions along the facts that passages state. People,
places, works and firms are invented, so a model can know none of it: it has to search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from erl_envs.records import digest
from erl_envs.retrieval.base import Corpus, Passage
from erl_envs.worlds.names import PARTS, Dice
from erl_envs.worlds.pages import Writer
from erl_envs.worlds.questions import Asker, ask_all
from erl_envs.worlds.state import populate

__all__ = ["SPLITS", "World", "build_world", "split_world"]

LEAST_PASSAGES = 500


@dataclass(frozen=True)
class World:
    """Questions, and all there is to know.

    Attributes:
        questions: In HotpotQA's JSON schema, with `hops`: the number of passages to be read.
        corpus: Every passage of the world, not only those in a question's context.
    """

    questions: tuple[dict[str, Any], ...]
    corpus: Corpus


def build_world(
    seed: int, questions: int, passages: int, hops: Sequence[int] = (2, 2, 2, 3)
) -> World:
    """A world of its own for each seed.

    Args:
        seed: Worlds whose seeds differ modulo 8 share no title and no invented word.
        questions: How many to ask; a fifth compare two things, the others follow a chain of facts.
        passages: How many to write, one an entity.
        hops: Numbers of passages that a question needs (2 to 4), taken in turn.

    Raises:
        ValueError: Too few passages, too many questions for them, or an impossible number of hops.
    """
    if passages < max(LEAST_PASSAGES, questions):
        least = max(LEAST_PASSAGES, questions)
        raise ValueError(f"{questions} questions need at least {least} passages, got {passages}")
    dice = Dice(np.random.default_rng(seed))
    entities = dice.shuffled(populate(dice, seed % PARTS, passages))
    writer = Writer(dice, entities)
    pages = [writer.write(entity) for entity in entities]
    asked = ask_all(Asker(dice, entities, pages), questions, hops)
    return World(asked, Corpus(tuple(Passage(p.title, "".join(p.sentences)) for p in pages)))


SPLITS: Mapping[str, Mapping[str, Any]] = {
    "train": dict(seed=1, questions=2000, passages=10_000),
    "test": dict(seed=2, questions=200, passages=5_000),
    "hard": dict(seed=3, questions=100, passages=10_000, hops=(3, 4)),
}
"""Split → arguments of `build_world`."""

_SALTED = 10**12
"""Salted worlds have seeds from here, of the same part of all names as their split."""


@lru_cache(maxsize=8)  # salts have no end
def split_world(split: str) -> World:
    """The world of a split of ours; kept in the process, so do not change its questions.

    `test@SALT` is another world, as large and of the same kind.

    Raises:
        ValueError: There is no such split.
    """
    name, _, salt = split.partition("@")
    if name not in SPLITS:
        raise ValueError(f"unknown split {split!r}; valid splits: {', '.join(SPLITS)}")
    arguments = dict(SPLITS[name])
    if salt:
        arguments["seed"] += PARTS * (_SALTED + int(digest(salt)[:12], 16))
    return build_world(**arguments)
