"""Worlds for HotpotQA's corpus: questions that two pages answer, and what those pages state.

The worlds are the environment's own kind, of names that its splits never use. Every question is a
chain of two pages that each name what comes next.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from erl_envs.core import Task
from erl_envs.policies import nano
from erl_envs.retrieval import Corpus, Passage, Retriever, load
from erl_envs.worlds import LEAST_PASSAGES, SPLITS
from erl_envs.worlds.names import PARTS, Dice
from erl_envs.worlds.pages import Page, Writer, shown
from erl_envs.worlds.questions import Asker
from erl_envs.worlds.state import Entity, populate

OPTIONS = nano.OPTIONS["hotpotqa"]

WORLDS, QUESTIONS = 160, 300
"""How many worlds, and how many questions are asked of each."""

CLUE = 3
"""Words of a page that are said before a fact that stands beside them."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a page states.

    Attributes:
        relation: What it is, in a word or two: `teacher`, `born in`.
        clue: The words before it on the page or, where it begins its sentence, after it.
        value: A title, a number or a word.
    """

    relation: str
    clue: str
    value: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A question, and how to answer it.

    Attributes:
        task: The question.
        start: Title of the page that the question names.
        facts: On that page the title of the next one, and there the answer.
        slips: For each of these, what else its page states.
    """

    task: Task
    start: str
    facts: tuple[Fact, ...]
    slips: tuple[tuple[Fact, ...], ...]


@dataclass(frozen=True, slots=True)
class Library:
    """A world's passages with who searches them, and the questions asked of it."""

    corpus: Corpus
    retriever: Retriever
    chains: tuple[Chain, ...]


@functools.cache
def world_seeds() -> tuple[int, ...]:
    """Seeds of the corpus's worlds: theirs are names that no split of the environment has.

    A seed modulo `PARTS` says which part of all possible names its world uses, so the splits' parts
    are left out.
    """
    held_out = {world["seed"] % PARTS for world in SPLITS.values()}
    free = (seed for seed in itertools.count(PARTS) if seed % PARTS not in held_out)
    return tuple(itertools.islice(free, WORLDS))


@functools.lru_cache(maxsize=WORLDS)
def library(seed: int) -> Library:
    """The world of a seed, small, with questions of its own."""
    dice = Dice(np.random.default_rng(seed))
    entities = dice.shuffled(populate(dice, seed % PARTS, LEAST_PASSAGES))
    writer = Writer(dice, entities)
    pages = [writer.write(entity) for entity in entities]
    corpus = Corpus(tuple(Passage(page.title, "".join(page.sentences)) for page in pages))
    retriever = load("bm25", corpus)
    asked = _chains(Asker(dice, entities, pages), retriever, str(seed))
    return Library(corpus, retriever, tuple(itertools.islice(asked, QUESTIONS)))


def _chains(asker: Asker, retriever: Retriever, part: str) -> Iterator[Chain]:
    """Questions of two pages, each of which is found by its title; no end to them."""
    while True:
        asked = asker.ask(2, "bridge")
        # a third fact is one that points back, which no search for a title finds
        if asked is None or len(asked.facts) > 2:
            continue
        pages = [asker.page[entity] for entity, _ in asked.facts]
        if not all(_finds(retriever, page.title) for page in pages):
            continue
        facts: list[Fact] = []
        slips: list[tuple[Fact, ...]] = []
        support: list[list[Any]] = []
        for (entity, relation), page in zip(asked.facts, pages, strict=True):
            stated = _stated(entity, page)
            facts.append(fact := stated[relation])
            slips.append(tuple(f for f in stated.values() if f.value != fact.value))
            support.append([page.title, page.stated[relation]])
        params = {
            "question": asked.text,
            "answer": asked.answer,
            "supporting_facts": support,
            "corpus": part,
        }
        yield Chain(Task("hotpotqa", params), pages[0].title, tuple(facts), tuple(slips))


def _finds(retriever: Retriever, title: str) -> bool:
    return any(passage.title == title for passage in retriever.search(title, OPTIONS["top_k"]))


def _stated(entity: Entity, page: Page) -> dict[str, Fact]:
    """What an entity's page states, by relation."""
    facts: dict[str, Fact] = {}
    for relation, number in page.stated.items():
        value = shown(relation, entity.facts[relation])
        clue = clue_of(page.sentences[number], value)
        facts[relation] = Fact(relation.replace("_", " "), clue, value.strip('"'))
    return facts


def clue_of(sentence: str, value: str) -> str:
    """The last words before a value, or the first after it if nothing stands before it."""
    before, after = re.split(rf"(?<!\w){re.escape(value)}(?!\w)", sentence, maxsplit=1)
    return " ".join(before.split()[-CLUE:] or after.strip(" ,").split()[:CLUE])


def draw_chain(rng: np.random.Generator) -> Chain:
    """A question of one of the worlds."""
    seeds = world_seeds()
    chains = library(seeds[int(rng.integers(len(seeds)))]).chains
    return chains[int(rng.integers(len(chains)))]
