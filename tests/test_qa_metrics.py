"""HotpotQA's metrics, by hand and against vectors from its own script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erl_envs.qa_metrics import QAScore, joint, normalise, score, score_facts

VECTORS = Path(__file__).parents[2] / "shared/data/hotpotqa/eval_vectors.json"


def test_the_official_scripts_vectors() -> None:
    if not VECTORS.exists():
        pytest.skip("the vectors are not here (../shared/data)")
    for case in json.loads(VECTORS.read_text(encoding="utf-8")):
        found = score(case["prediction"], case["gold"])
        wanted = [case[key] for key in ("em", "f1", "precision", "recall")]
        assert list(found) == pytest.approx(wanted, abs=1e-12), case
        assert normalise(case["prediction"]) == case["norm_prediction"]
        assert normalise(case["gold"]) == case["norm_gold"]


def test_by_hand() -> None:
    assert normalise("The  Quick, brown fox's AN!") == "quick brown foxs"
    assert score("the Fox", "fox!") == QAScore(1.0, 1.0, 1.0, 1.0)
    # 2 of 3 words right, 2 of 2 found: precision 2/3, recall 1, F1 4/5
    assert score("quick brown dog", "quick brown") == QAScore(0.0, 0.8, 2 / 3, 1.0)
    # a word said twice counts as often as the gold answer has it
    assert score("fox fox", "fox") == pytest.approx(QAScore(0.0, 2 / 3, 0.5, 1.0))
    assert score("yes it is", "yes") == QAScore(0.0, 0.0, 0.0, 0.0)
    assert score("", "fox") == QAScore(0.0, 0.0, 0.0, 0.0)


def test_facts_and_joint_by_hand() -> None:
    gold = [("A", 0), ("B", 2)]
    assert score_facts(gold, gold) == QAScore(1.0, 1.0, 1.0, 1.0)
    half = score_facts([("A", 0), ("A", 1)], gold)
    assert half == QAScore(0.0, 0.5, 0.5, 0.5)
    # joint precision .5 · 2/3 = 1/3, recall .5 · 1 = .5, F1 2 · (1/6) / (5/6) = .4
    assert joint(score("quick brown dog", "quick brown"), half) == pytest.approx(
        QAScore(0.0, 0.4, 1 / 3, 0.5)
    )
    assert score_facts([], gold) == QAScore(0.0, 0.0, 0.0, 0.0)


@given(st.text(max_size=40), st.text(max_size=40))
def test_ranges_and_symmetry(one: str, two: str) -> None:
    here, there = score(one, two), score(two, one)
    assert all(0 <= value <= 1 for value in here)
    assert (here.em, here.f1) == (there.em, there.f1)
    assert (here.precision, here.recall) == (there.recall, there.precision)
