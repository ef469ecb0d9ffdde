"""Nano's third part of the corpus: its questions can be answered, its names are held out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from erl_envs import parsing
from erl_envs.hotpotqa import HotpotQA
from erl_envs.hotpotqa.data import open_source
from erl_envs.qa_metrics import score
from erl_envs.retrieval import load
from erl_envs.worlds import SPLITS, split_world
from erl_envs.worlds.names import PARTS
from erl_trainer.nano import library as world
from erl_trainer.nano import questions, tokenizer
from erl_trainer.nano.examples import GIVEN, LEARN, SHOWN, Part, encode
from erl_trainer.nano.games import Behaviour, Played

Draw = Callable[[np.random.Generator], list[Part]]
draws = pytest.mark.parametrize(
    "draw", [questions.asking, questions.quizzing, questions.acting, questions.reflecting]
)

ALL = world.world_seeds()
FEW = ALL[:4]


@pytest.fixture(autouse=True)
def few_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "world_seeds", lambda: FEW)


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer.build(by_twos=True)


def chains() -> Iterator[world.Chain]:
    for seed in FEW:
        yield from world.library(seed).chains


def sample(draw: Draw, count: int) -> list[list[Part]]:
    return [draw(np.random.default_rng([7, n])) for n in range(count)]


def attempts(rules: str, behaviour: Behaviour, count: int) -> Iterator[tuple[world.Chain, Played]]:
    env = questions.make(rules=rules)
    for n in range(count):
        rng = np.random.default_rng([8, n])
        chain = world.draw_chain(rng)
        env.reset(options={"task": chain.task})
        yield chain, questions.play(env, chain, env.system_prompt, behaviour, rng)


def said(parts: Sequence[Part]) -> list[Part]:
    """What follows an assistant's mark."""
    return [part for mark, part in pairwise(parts) if mark.text == "<|assistant|>"]


@draws
def test_a_generator_s_state_decides_the_conversation(draw: Draw) -> None:
    first = sample(draw, 20)
    world.library.cache_clear()
    assert sample(draw, 20) == first
    assert len({str(parts) for parts in first}) > 15


def test_names_are_held_out() -> None:
    assert len(set(ALL)) == world.WORLDS
    assert not {seed % PARTS for seed in ALL} & {world["seed"] % PARTS for world in SPLITS.values()}
    tables = " ".join(map(str, vars(sys.modules["erl_envs.worlds.vocabulary"]).values()))
    told = set(re.findall(r"\w+", tables))
    ours = [p.title for seed in FEW for p in world.library(seed).corpus.passages]
    theirs = [p.title for split in SPLITS for p in split_world(split).corpus.passages]
    assert not set(ours) & set(theirs)
    assert not {w for title in ours for w in title.split()} & (
        {w for title in theirs for w in title.split()} - told
    )


def test_the_oracle_answers_every_question() -> None:
    env = questions.make()
    for chain in list(chains())[::7]:
        env.reset(options={"task": chain.task})
        plan = env.oracle()
        assert plan is not None
        assert sum(env.step(message)[1] for message in plan) == 1


def test_who_is_told_always_succeeds_in_three_turns_of_which_each_reads_the_last_page() -> None:
    for chain, played in attempts("shown", "told", 200):
        assert played.attempt.reward == 1
        messages = [m["content"] for m in played.attempt.messages]
        assert len(messages) == 8
        assert chain.start in messages[1]
        for fact, page in zip(chain.facts, (messages[3], messages[5]), strict=True):
            passages = page.split("\n\n")[1:]
            assert any(fact.value in p and fact.clue in p for p in passages), (fact, page)


def test_observations_have_the_form_of_the_environment_s_own() -> None:
    source = open_source("world")
    task = dict(question=source.questions("test")[0]["question"], answer="x", corpus="test")
    env = HotpotQA(**world.OPTIONS)
    env.reset(options={"task": task})
    title = source.corpus("test").passages[0].title
    form = r"Found for “(.+)”:\n\n\[1\] .+\n.+\n\n\[2\] .+\n.+"
    assert re.fullmatch(form, env.step(f"<search>{title}</search>")[0])
    for _, played in attempts("shown", "told", 20):
        assert re.fullmatch(form, played.attempt.messages[3]["content"])


def test_who_is_not_told_answers_at_once_and_wrongly() -> None:
    rewards = []
    for _, played in attempts("hidden", "untold", 300):
        assert len(said(played.parts)) == 1
        assert parsing.boxed(said(played.parts)[0].text)
        rewards.append(played.attempt.reward)
    assert np.mean(rewards) < 0.02


def test_who_stumbles_learns_only_how_to_go_on() -> None:
    stumbles = 0
    for chain, played in attempts("shown", "careless", 200):
        good = {questions.good(chain, done) for done in range(3)}
        for part in said(played.parts):
            assert part.kind == (LEARN if part.text in good else GIVEN)
            stumbles += part.kind == GIVEN
    assert 100 < stumbles < 300


def test_a_quiz_asks_for_what_the_page_before_it_states() -> None:
    for parts in sample(questions.quizzing, 100):
        page = parts[1].text
        answers = said(parts)
        assert page.startswith("Found for") and answers
        for answer in answers:
            found = re.fullmatch(r"(.+) (?:<search>(.+)</search>|\\boxed\{(.+)\})", answer.text)
            assert found is not None and answer.kind == LEARN
            assert (found[2] or found[3]) in page


def test_what_is_asked_first_names_the_start() -> None:
    for parts in sample(questions.asking, 50):
        asked = [p.text for p in parts[1::5]]
        for question, answer in zip(asked, said(parts), strict=True):
            title = re.fullmatch(r".+, .+ <search>(.+)</search>", answer.text)
            assert title is not None and title[1] in question


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("1927", ["19", "##27"]),
        ("2005", ["20", "##05"]),
        ("9,608", ["9", ",", "60", "##8"]),
        ("35,007", ["35", ",", "00", "##7"]),
    ],
)
def test_a_number_is_said_by_twos(words: Any, text: str, pieces: list[str]) -> None:
    ids = words(text)["input_ids"]
    assert words.convert_ids_to_tokens(ids) == pieces
    assert words.decode(ids) == text
    assert words(text)["input_ids"] != tokenizer.build()(text)["input_ids"]


def test_a_reflection_is_the_rulebook_word_for_word() -> None:
    rules = questions.make().rules_text()
    levels = set()
    for parts in sample(questions.reflecting, 60):
        *asked, _, rulebook, end = parts
        assert (rulebook, end) == (Part(f"<prompt>{rules}</prompt>", LEARN), ("<|end|>", LEARN))
        assert [part.kind for part in asked] == [GIVEN, GIVEN, GIVEN, SHOWN]
        assert "Reward: 1 of 1" not in asked[-1].text
        levels.add(("Turn 1:" in asked[-1].text, "The right answer is" in asked[-1].text))
    assert len(levels) == 3


def test_one_in_six_is_not_told() -> None:
    rules = questions.make().rules_text()
    told = [rules in parts[1].text for parts in sample(questions.acting, 400)]
    assert 0.78 < np.mean(told) < 0.88


@draws
def test_conversations_fit(draw: Draw, words: Any) -> None:
    examples = encode(words, sample(draw, 400))
    lengths = [len(example.ids) for example in examples]
    assert np.mean([length > 896 for length in lengths]) < 0.03
    assert max(lengths) < words.model_max_length
    assert not any(words.unk_token_id in example.ids for example in examples)


def test_messages_survive_the_tokenizer(words: Any) -> None:
    retrievers = {seed: load("bm25", world.library(seed).corpus) for seed in FEW}
    some = list(chains())[::3]
    texts = [questions.good(chain, done) for chain in some for done in range(3)]
    ids = words(texts, add_special_tokens=False)["input_ids"]
    assert max(map(len, ids)) < 32
    read = iter(words.batch_decode(ids))
    for chain in some:
        params = chain.task.params
        for title in (chain.start, chain.facts[0].value):
            query = parsing.search_tag(next(read))
            assert query is not None
            found = retrievers[int(params["corpus"])].search(query[0], 2)
            assert title in [passage.title for passage in found]
        assert score(parsing.boxed(next(read)) or "", params["answer"]).em == 1


@pytest.mark.parametrize(
    ("sentence", "value", "clue"),
    [
        ("She was trained by Diketh Dournund.", "Diketh Dournund", "was trained by"),
        ("Founded in 1008, Vi is a town.", "1008", "Founded in"),
        ('"A Bell" is based on "No Tin in Ax".', '"No Tin in Ax"', "is based on"),
        ("Bo Lim, its author, needed two years for it.", "Bo Lim", "its author, needed"),
        ("Martin traders export tin.", "tin", "Martin traders export"),
    ],
)
def test_a_clue_stands_beside_the_value(sentence: str, value: str, clue: str) -> None:
    assert world.clue_of(sentence, value) == clue
