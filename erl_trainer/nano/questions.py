"""The corpus of HotpotQA: answering by searching, answering at once, writing the rulebook.

A player first says which two facts it looks for; then, for each, the words beside the fact on the
page that it has found, right before the fact itself: so finding the sentence and copying out of it
are learnt apart.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from erl_envs.core import LEVELS, Message
from erl_envs.hotpotqa.env import HotpotQA
from erl_envs.reflection import reflection_messages, second_prompt
from erl_envs.retrieval import Retriever
from erl_trainer.nano.examples import GIVEN, LEARN, SHOWN, Part, said, told
from erl_trainer.nano.games import Behaviour, Played
from erl_trainer.nano.library import OPTIONS, Chain, Fact, draw_chain, library

ASKED = 4
"""Questions at a time, of which only the first message is learnt."""

SHORT = 3
"""Most turns of a failed attempt to reflect on; of more, the pages would not fit."""


class Reader(HotpotQA):
    """HotpotQA over the corpus's worlds, otherwise as it is."""

    def _searcher(self, params: Mapping[str, Any]) -> Retriever:
        return library(int(params["corpus"])).retriever


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


@functools.cache
def make(rules: str = "hidden", feedback: str = "outcome") -> HotpotQA:
    """The environment over the corpus's worlds, as nano plays it."""
    return Reader(**{**OPTIONS, "rules": rules, "feedback": feedback})
