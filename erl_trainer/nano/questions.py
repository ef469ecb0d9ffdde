"""The corpus of HotpotQA: answering by searching, answering at once, writing the rulebook.

Worlds are the environment's own kind, of names that its splits never use. Every question is a chain
of two pages that each name what comes next. A player first says which two facts it looks for; then,
for each, the words beside the fact on the page that it has found, right before the fact itself: so
finding the sentence and copying out of it are learnt apart.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from erl_envs.core import LEVELS, Message, Task
from erl_envs.hotpotqa.env import HotpotQA
from erl_envs.policies import nano
from erl_envs.reflection import reflection_messages, second_prompt
from erl_envs.retrieval import Corpus, Passage, Retriever, load
from erl_envs.worlds import LEAST_PASSAGES, SPLITS
from erl_envs.worlds.names import PARTS, Dice
from erl_envs.worlds.pages import Page, Writer, shown
from erl_envs.worlds.questions import Asker
from erl_envs.worlds.state import Entity, populate
from erl_trainer.nano.examples import GIVEN, LEARN, SHOWN, Part, said, told
from erl_trainer.nano.games import Behaviour, Played

OPTIONS = nano.OPTIONS["hotpotqa"]

WORLDS, QUESTIONS = 160, 300
"""How many worlds, and how many questions are asked of each."""

CLUE = 3
"""Words of a page that are said before a fact that stands beside them."""

ASKED = 4
"""Questions at a time, of which only the first message is learnt."""

SHORT = 3
"""Most turns of a failed attempt to reflect on; of more, the pages would not fit."""


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
    """A world's passages, and the questions asked of it."""

    corpus: Corpus
    chains: tuple[Chain, ...]


# Worlds


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
    asked = _chains(Asker(dice, entities, pages), load("bm25", corpus), str(seed))
    return Library(corpus, tuple(itertools.islice(asked, QUESTIONS)))


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


# Conversations


class Reader(HotpotQA):
    """HotpotQA over the corpus's worlds, otherwise as it is."""

    def _corpus(self, params: Mapping[str, Any]) -> Corpus:
        return library(int(params["corpus"])).corpus


def play(env: HotpotQA, chain: Chain, prompt: str, behaviour: Behaviour, rng: Any) -> Played:
    """One attempt.

    Args:
        env: Where to play.
        chain: What to answer, and how.
        prompt: The system prompt.
        behaviour: `told` searches, reads and searches on, and answers; `careless` does so too, but
            often stumbles, and learns how it should have gone on; `untold` answers at once.
        rng: Source of every draw.
    """
    observation, _ = env.reset(options={"task": chain.task})
    messages: list[Message] = [
        {"role": "system", "content": prompt},
        {"role": "user", "content": observation},
    ]
    parts = [part for message in messages for part in told(message)]
    reward, feedback, outcome = 0.0, "", ""
    done = 0
    while not outcome:
        last = env.turn + 1 == env.max_turns and done < len(chain.facts)
        if behaviour == "untold":
            text, kind = env.say(f"answer: {guess(chain, rng)}"), LEARN
        elif last or (behaviour == "careless" and rng.random() < 0.3):
            text, kind = stumble(chain, done, last, rng), GIVEN
        else:
            text, kind = good(chain, done), LEARN
            done += 1
        parts += said(Part(text, kind))
        observation, step_reward, _, _, info = env.step(text)
        answer: Message = {"role": "user", "content": observation}
        messages += [{"role": "assistant", "content": text}, answer]
        parts += told(answer, SHOWN)
        reward += step_reward
        feedback, outcome = info.get("feedback", ""), info.get("outcome", "")
    return Played(chain.task, messages, reward, feedback, outcome, parts)


def good(chain: Chain, done: int) -> str:
    """What to say after so many good messages: the plan, then each fact and what to do with it."""
    if done == 0:
        plan = ", ".join(fact.relation for fact in chain.facts)
        return f"{plan} <search>{chain.start}</search>"
    fact = chain.facts[done - 1]
    return _say(fact.relation, fact, boxes=done == len(chain.facts))


def _say(relation: str, fact: Fact, boxes: bool) -> str:
    action = f"\\boxed{{{fact.value}}}" if boxes else f"<search>{fact.value}</search>"
    return f"{relation} {fact.clue} {action}"


def stumble(chain: Chain, done: int, boxes: bool, rng: Any) -> str:
    """A bad message instead: for another fact of the page read last, or a word of the question.

    Args:
        chain: The question.
        done: How many good messages there were.
        boxes: Whether it must answer; else it does so, hastily, one time in four.
        rng: Source of every draw.
    """
    boxes = boxes or rng.random() < 0.25
    slips = chain.slips[done - 1] if done else ()
    if slips and rng.random() < 0.7:
        return _say(chain.facts[done - 1].relation, slips[int(rng.integers(len(slips)))], boxes)
    word = _word(chain, rng)
    return f"\\boxed{{{word}}}" if boxes else f"<search>{word}</search>"


def guess(chain: Chain, rng: Any) -> str:
    """An answer of who has not searched: what the question names, or one of its words."""
    return chain.start if rng.random() < 0.5 else _word(chain, rng)


def _word(chain: Chain, rng: Any) -> str:
    words = re.findall(r"\w[\w-]{3,}", chain.task.params["question"])
    return str(words[int(rng.integers(len(words)))])


def acting(rng: np.random.Generator) -> list[Part]:
    """A conversation of a player who is told the rules, or (one in six) is not."""
    chain = draw_chain(rng)
    if rng.random() < 1 / 6:
        env = make()
        env.reset(options={"task": chain.task})
        return play(env, chain, env.system_prompt, "untold", rng).parts
    env = make(rules="shown")
    env.reset(options={"task": chain.task})
    prompt = env.system_prompt if rng.random() < 0.5 else second_prompt(env, env.rules_text())
    return play(env, chain, prompt, "told" if rng.random() < 0.5 else "careless", rng).parts


def asking(rng: np.random.Generator) -> list[Part]:
    """Questions, and what to look for first; nothing else: a message of a conversation in tens."""
    parts: list[Part] = []
    for _ in range(ASKED):
        chain = draw_chain(rng)
        parts += told({"role": "user", "content": chain.task.params["question"]})
        parts += said(Part(good(chain, 0), LEARN))
    return parts


def quizzing(rng: np.random.Generator) -> list[Part]:
    """What was found for a title, and each fact of its page: finding and copying, nothing else."""
    chain = draw_chain(rng)
    hop = int(rng.integers(len(chain.facts)))
    title = chain.start if hop == 0 else chain.facts[0].value
    env = make()
    env.reset(options={"task": chain.task})
    found, *_ = env.step(f"<search>{title}</search>")
    parts = told({"role": "user", "content": found}, SHOWN)
    facts = (chain.facts[hop], *chain.slips[hop])
    for place in rng.permutation(len(facts)):
        fact = facts[place]
        parts += told({"role": "user", "content": fact.relation})
        parts += said(Part(_say(fact.relation, fact, boxes=hop == 1), LEARN))
    return parts


def reflecting(rng: np.random.Generator) -> list[Part]:
    """A failed attempt, its feedback, sometimes a memory; then the true rulebook."""
    env = make(feedback=LEVELS[int(rng.choice(4, p=(0.08, 0.12, 0.7, 0.1)))])
    behaviour: Behaviour = "untold" if rng.random() < 0.75 else "careless"
    while True:
        chain = draw_chain(rng)
        env.reset(options={"task": chain.task})
        attempt = play(env, chain, env.system_prompt, behaviour, rng).attempt
        if attempt.reward < 1 and len(attempt.messages) <= 2 + 2 * SHORT:
            break
    memory = env.rules_text() if rng.random() < 0.25 else None
    system, user = reflection_messages(env, attempt, memory)
    parts = told(system) + told(user, SHOWN)
    return parts + said(Part(f"<prompt>{env.rules_text()}</prompt>", LEARN))


def draw_chain(rng: np.random.Generator) -> Chain:
    """A question of one of the worlds."""
    seeds = world_seeds()
    chains = library(seeds[int(rng.integers(len(seeds)))]).chains
    return chains[int(rng.integers(len(chains)))]


@functools.cache
def make(rules: str = "hidden", feedback: str = "outcome") -> HotpotQA:
    """The environment over the corpus's worlds, as nano plays it."""
    return Reader(**{**OPTIONS, "rules": rules, "feedback": feedback})
