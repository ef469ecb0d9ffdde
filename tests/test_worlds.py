"""The fictional worlds: consistent, answerable, hard to search, the same bytes everywhere."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import bm25s
import pytest
import Stemmer

from erl_envs.core import digest
from erl_envs.worlds import SPLITS, World, build_world, frames, phrases, queries, split_world
from erl_envs.worlds.names import PARTS

HASHES = {
    "train": "7406909c85e0bf4ec3176cb5e2cd3da2483cf428e5cade161f72d1ca8092fbd3",
    "test": "423b9dc5899b324a8e77e891fecb9262450788170ce8c068711e164fcd18160c",
    "hard": "56ab62b26260bcc77e7e8fa51ca99bec7da6214c23049b6d81cf436eeb6ad27f",
}
"""Split → content hash. A change here is a change of the data: say so in the notes of a release."""

splits = pytest.mark.parametrize("split", SPLITS)


@cache
def texts(split: str) -> dict[str, str]:
    return {passage.title: passage.text for passage in split_world(split).corpus.passages}


def support(question: dict[str, Any]) -> list[str]:
    context = dict(question["context"])
    return [context[title][index] for title, index in question["supporting_facts"]]


def content_hash(world: World) -> str:
    return digest([list(world.questions), world.corpus.hash])


@splits
def test_questions_are_in_hotpotqa_s_schema(split: str) -> None:
    world = split_world(split)
    asked = SPLITS[split]
    assert len(world.questions) == asked["questions"]
    assert len(texts(split)) == len(world.corpus.passages) == asked["passages"]
    assert len({q["_id"] for q in world.questions}) == len(world.questions)
    assert len({q["question"] for q in world.questions}) == len(world.questions)
    for question in world.questions:
        assert set(question) == {
            *("_id", "question", "answer", "type", "level"),
            *("hops", "supporting_facts", "context"),
        }
        assert question["level"] == {2: "easy", 3: "medium", 4: "hard"}[question["hops"]]
        assert len(dict(question["context"])) == len(question["context"]) == 10
        for title, sentences in question["context"]:
            assert texts(split)[title] == "".join(sentences)
            assert 3 <= len(sentences) <= 7
            assert sentences[0][0] != " " and all(s[0] == " " != s[1] for s in sentences[1:])
        assert len({title for title, _ in question["supporting_facts"]}) == question["hops"]
        assert all(support(question))


@splits
def test_the_last_fact_holds_a_bridge_s_answer_and_no_earlier_one_does(split: str) -> None:
    for question in split_world(split).questions:
        answer = re.compile(rf"\b{re.escape(question['answer'])}(?!\w)")
        *early, last = support(question)
        if question["type"] == "bridge":
            assert answer.search(last) and not answer.search(question["question"])
            assert not any(answer.search(sentence) for sentence in early)
        elif question["answer"] not in ("yes", "no"):
            assert any(answer.search(sentence) for sentence in [*early, last]) or any(
                title == question["answer"] for title, _ in question["supporting_facts"]
            )


@splits
def test_each_fact_leads_to_the_next(split: str) -> None:
    for question in split_world(split).questions:
        if question["type"] == "bridge":
            facts = question["supporting_facts"]
            assert facts[0][0] in question["question"]
            for title in {title for title, _ in facts[1:]} - {facts[0][0]}:
                assert title not in question["question"].replace(facts[0][0], "")
            for (one, _), (other, _), said, more in zip(
                facts, facts[1:], support(question), support(question)[1:], strict=False
            ):
                # a fact names the next page's entity, or one named there (a firm's founder)
                assert other in (one, *names(said, split)) or any(
                    name in more for name in names(said, split)
                ), one


def names(sentence: str, split: str) -> list[str]:
    """The titles of the world in a sentence, without those that are part of a longer one."""
    words = re.findall(r"\w+", sentence)
    spans = itertools.combinations(range(len(words) + 1), 2)
    runs = (" ".join(words[start:end]) for start, end in spans if end - start <= 6)
    found = [run for run in runs if run in texts(split)]
    return [name for name in found if not any(name in other for other in found if other != name)]


NUMBER = re.compile(r"\b\d[\d,]*\b")


@splits
def test_comparisons_of_numbers_are_right(split: str) -> None:
    checked = 0
    for question in split_world(split).questions:
        text, answer = question["question"], question["answer"]
        if question["type"] != "comparison" or answer in ("yes", "no"):
            continue
        asked = re.split(r"[,:]", text)[0]
        low = re.search(r"\b(earlier|first|fewer|older)\b", asked)
        assert bool(low) != bool(re.search(r"\b(later|more)\b", asked))
        value = {}
        for (title, _), sentence in zip(
            question["supporting_facts"], support(question), strict=True
        ):
            found = [int(n.replace(",", "")) for n in NUMBER.findall(sentence)]
            if len(found) == 1 and title not in value:
                value[title] = found[0]
        if len(value) == 2 == question["hops"]:
            assert answer == (min if low else max)(value, key=lambda t: value[t])
            checked += 1
    assert checked > 10 or split == "hard"


def test_yes_means_the_same_and_no_means_another() -> None:
    checked: Counter[str] = Counter()
    for question in split_world("train").questions:
        if question["answer"] in ("yes", "no") and question["hops"] == 2:
            own = {title for title, _ in question["supporting_facts"]}
            one, other = (set(names(said, "train")) - own for said in support(question))
            if one and other:  # a shared trade is no name
                assert bool(one & other) == (question["answer"] == "yes"), support(question)
                checked[question["answer"]] += 1
    assert min(checked["yes"], checked["no"]) > 25


@splits
def test_shares_are_hotpotqa_s(split: str) -> None:
    questions = split_world(split).questions
    types = Counter(q["type"] for q in questions)
    answers = Counter(q["answer"] for q in questions)
    assert types["comparison"] == round(0.22 * len(questions))
    assert abs(answers["yes"] - answers["no"]) <= 1
    assert 0.2 <= (answers["yes"] + answers["no"]) / types["comparison"] <= 0.3
    hops = Counter(q["hops"] for q in questions)
    assert {k: v / len(questions) for k, v in hops.items()} == (
        {3: 0.5, 4: 0.5} if split == "hard" else {2: 0.75, 3: 0.25}
    )


def test_no_name_is_in_two_splits() -> None:
    said = Counter(
        word for split in SPLITS for word in {w for t in texts(split) for w in t.split()}
    )
    common = {word for word, count in said.items() if count > 1}
    tables = " ".join(map(str, vars(sys.modules["erl_envs.worlds.vocabulary"]).values()))
    assert common <= set(re.findall(r"\w+", tables)), "an invented word is in two splits"
    assert all(
        not texts(one).keys() & texts(other).keys()
        for one, other in itertools.combinations(SPLITS, 2)
    )
    assert len({arguments["seed"] % PARTS for arguments in SPLITS.values()}) == len(SPLITS)


@splits
def test_content_is_pinned(split: str) -> None:
    assert content_hash(split_world(split)) == HASHES[split]


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_another_process_makes_the_same_bytes(hash_seed: str) -> None:
    code = (
        "from erl_envs.worlds import build_world; from erl_envs.core import digest;"
        "w = build_world(9, 40, 600, hops=(2, 3, 4));"
        "print(digest([list(w.questions), w.corpus.hash]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == content_hash(build_world(9, 40, 600, hops=(2, 3, 4)))


def test_small_and_crowded_worlds_can_be_asked() -> None:
    assert len(build_world(4, questions=500, passages=500).questions) == 500
    assert build_world(4, questions=0, passages=500).questions == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"passages": 100}, "need at least 500 passages"),
        ({"passages": 500, "hops": (5,)}, "hops must be among"),
        ({"passages": 500, "hops": ()}, "hops must be among"),
    ],
)
def test_impossible_worlds_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_world(1, questions=10, **arguments)


def test_an_unknown_split_is_told_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="valid splits: train, test, hard"):
        split_world("dev")


def test_every_relation_has_many_phrasings_and_a_question_for_long_chains() -> None:
    for kind, by_relation in phrases.FACTS.items():
        assert set(queries.ASKED[kind]) == set(by_relation)
        assert len(frames.LEADS[kind]) >= 4
        for relation, patterns in by_relation.items():
            assert len(patterns) >= 5
            assert all(f"{{{relation}}}" in pattern for pattern in patterns)
            assert any(p.endswith("{s}?") for p in queries.ASKED[kind][relation])


def recall_at_5(split: str, queries: Sequence[str], gold: Sequence[set[str]]) -> float:
    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    titles = list(texts(split))
    index = bm25s.BM25()
    index.index(tokens([f"{t} {texts(split)[t]}" for t in titles]), show_progress=False)
    rows, _ = index.retrieve(tokens(list(queries)), k=5, show_progress=False)
    found = [{titles[i] for i in row} for row in rows]
    return sum(g <= f for g, f in zip(gold, found, strict=True)) / len(found)


@pytest.mark.parametrize(("split", "low", "high"), [("test", 0.2, 0.35), ("hard", 0.0, 0.1)])
def test_a_question_is_a_poor_query_and_a_title_a_good_one(
    split: str, low: float, high: float
) -> None:
    questions = split_world(split).questions
    gold = [{title for title, _ in q["supporting_facts"]} for q in questions]
    assert low <= recall_at_5(split, [q["question"] for q in questions], gold) <= high
    titles = sorted(set().union(*gold))
    assert recall_at_5(split, titles, [{title} for title in titles]) >= 0.99
