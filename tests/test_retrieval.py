"""BM25, its reference, and the index on disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erl_envs import retrieval
from erl_envs.retrieval import Corpus, Passage
from erl_envs.retrieval.__main__ import main
from erl_envs.retrieval.bm25 import KEPT_FROM, Bm25, RankBm25, best, words
from erl_envs.retrieval.cache import cached_folder

DEV = Path(__file__).parents[2] / "shared/data/hotpotqa/dev_500.json"

SMALL = Corpus(
    (
        Passage("Harbour lamps", "Lamps along the harbour were lit by whale oil."),
        Passage("Ada Quill", "Ada Quill painted ships and harbours in the north."),
        Passage("North", "The north has long winters and short summers."),
        Passage("Ships", "Ships carry oil, lamps and letters."),
    )
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERL_ENVS_CACHE", str(tmp_path / "cache"))


def titles(found: list[Passage]) -> list[str]:
    return [passage.title for passage in found]


def test_words_are_folded_stemmed_and_stopped() -> None:
    assert words("The Ships of Ádá, painting!") == ["ship", "ada", "paint"]
    assert words("the of and") == []


def test_the_best_come_first_and_ties_in_order() -> None:
    assert best(np.array([0.0, 2.0, 3.0, 2.0]), 3) == [2, 1, 3]
    assert best(np.array([0.0, -1.0]), 5) == []
    assert best(np.array([1.0]), 5) == [0]


def test_search() -> None:
    found = Bm25(SMALL)
    assert titles(found.search("Who was Ada Quill?", 1)) == ["Ada Quill"]
    assert titles(found.search("lamps in the harbour", 10))[0] == "Harbour lamps"
    assert len(found.search("oil lamps ships north", 100)) == 4, "top_k beyond the corpus"


@pytest.mark.parametrize("query", ["", "   ", "the of and", "zzzunknown", "\x00", "!?", "\ud800"])
def test_a_query_without_a_known_word_finds_nothing(query: str) -> None:
    assert Bm25(SMALL).search(query, 5) == []
    assert RankBm25(SMALL).search(query, 5) == []


def test_a_megabyte_of_query_is_searched() -> None:
    assert titles(Bm25(SMALL).search("harbour lamps " * 75_000, 1)) == ["Harbour lamps"]


def test_a_corpus_of_one_passage() -> None:
    one = Corpus((Passage("Only", "The only text."),))
    assert titles(Bm25(one).search("only", 5)) == ["Only"]


@pytest.mark.parametrize("count", [0, 1, KEPT_FROM])
def test_stop_words_alone_are_searched_in_vain(count: int) -> None:
    corpus = Corpus(tuple(Passage("The", f"of and {'the ' * n}") for n in range(count)))
    assert Bm25(corpus).search("the town", 3) == []
    assert RankBm25(corpus).search("the town", 3) == []


def test_both_rank_alike_where_the_formulas_agree() -> None:
    """bm25s's `robertson` is rank-bm25's Okapi for words in less than half of the passages.

    rank-bm25 has (k1 + 1) in the numerator, which scales every score alike.
    """
    if not DEV.exists():
        pytest.skip("the questions are not here (../shared/data)")
    questions = json.loads(DEV.read_text(encoding="utf-8"))[:60]
    corpus = Corpus.of_questions(questions)
    ours, reference = Bm25(corpus, method="robertson"), RankBm25(corpus)
    half = len(corpus.passages) / 2
    often = {w for w, freq in reference.index.idf.items() if freq <= 0}
    assert all(sum(w in d for d in reference.index.doc_freqs) >= half for w in often)
    for question in questions:
        query = " ".join(w for w in words(question["question"]) if w not in often)
        one, two = ours.search(query, 10), reference.search(query, 10)
        scores = reference.index.get_scores(words(query))
        place = {passage: i for i, passage in enumerate(corpus.passages)}
        for a, b in zip(one, two, strict=True):  # equal but for ties
            assert a == b or scores[place[a]] == pytest.approx(scores[place[b]], rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["oil", "lamp", "ship", "north", "harbour", "ada"]), min_size=1))
def test_every_query_word_only_adds(query: list[str]) -> None:
    every = len(SMALL.passages)
    for retriever in (RankBm25(SMALL), Bm25(SMALL)):
        fewer = retriever.search(" ".join(query[:-1]), every)
        found = retriever.search(" ".join(query), every)
        assert set(fewer) <= set(found) and len(set(found)) == len(found)


def test_a_corpus_may_hold_what_ends_a_line_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"title": "A", "text": "one\u2028two\x85"}\n', encoding="utf-8")
    assert Corpus.of_json_lines(path).passages == (Passage("A", "one\u2028two\x85"),)


def test_what_nobody_else_searches_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Corpus(tuple(Passage(f"Title {i}", f"Word{i} lamp") for i in range(KEPT_FROM)))
    monkeypatch.setenv("ERL_ENVS_CACHE", str(tmp_path / "own"))
    own = retrieval.load("bm25", many, keep=False)
    assert retrieval.load("bm25", many, keep=False) is not own and not (tmp_path / "own").exists()
    assert retrieval.load("bm25", many).search("word7", 1) == own.search("word7", 1)
    assert (tmp_path / "own").is_dir()


def test_without_a_cache_an_index_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    many = Corpus(tuple(Passage(f"Title {i}", f"Word{i} lamp") for i in range(KEPT_FROM)))
    found = Bm25(many, cache=tmp_path / "file" / "below")
    assert found.search("word7", 1) == [many.passages[7]]


def test_recall_on_real_questions_meets_the_mark() -> None:
    if not DEV.exists():
        pytest.skip("the questions are not here (../shared/data)")
    questions = json.loads(DEV.read_text(encoding="utf-8"))
    corpus = Corpus.of_questions(questions)
    assert len(corpus.passages) == 4_948
    found = Bm25(corpus)
    recall = {2: 0.0, 5: 0.0}
    for question in questions:
        gold = {title for title, _ in question["supporting_facts"]}
        got = titles(found.search(question["question"], 5))
        for k in recall:
            recall[k] += len(gold & set(got[:k])) / len(gold) / len(questions)
    assert recall[2] >= 0.57 and recall[5] >= 0.74


@pytest.fixture
def all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices of however few passages go to disk."""
    monkeypatch.setattr("erl_envs.retrieval.bm25.KEPT_FROM", 0)


def test_a_few_passages_leave_nothing_on_disk(tmp_path: Path) -> None:
    found = Bm25(SMALL).search("harbour lamps", 4)
    assert found and not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("all_kept")
def test_an_index_in_memory_finds_what_one_on_disk_does(monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = Bm25(SMALL)
    monkeypatch.setattr("erl_envs.retrieval.bm25.KEPT_FROM", 1000)
    for query in ("harbour lamps", "river", "a of the", "x"):
        assert Bm25(SMALL).search(query, 4) == on_disk.search(query, 4)


def test_only_so_many_retrievers_are_kept() -> None:
    corpora = [Corpus((Passage(str(n), "A text."),)) for n in range(retrieval.MOST + 1)]
    first = retrieval.load("bm25", corpora[0])
    assert retrieval.load("bm25", corpora[0]) is first
    for corpus in corpora[1:]:
        retrieval.load("bm25", corpus)
    assert retrieval.load("bm25", corpora[0]) is not first


@pytest.mark.usefixtures("all_kept")
def test_the_index_is_built_once_and_loaded_after(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Bm25(SMALL).search("harbour lamps", 4)

    def never(*args: Any) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("erl_envs.retrieval.bm25._documents", never)
    assert Bm25(SMALL).search("harbour lamps", 4) == first


@pytest.mark.usefixtures("all_kept")
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "foreign", "seal", "stray"])
def test_a_damaged_index_is_built_again(damage: str, tmp_path: Path) -> None:
    first = Bm25(SMALL).search("harbour lamps", 4)
    (folder,) = (tmp_path / "cache").iterdir()
    victim = folder / "data.csc.index.npy"
    if damage == "truncate":
        victim.write_bytes(victim.read_bytes()[:-5])
    elif damage == "flip":
        raw = bytearray(victim.read_bytes())
        raw[-1] ^= 1
        victim.write_bytes(raw)
    elif damage == "delete":
        victim.unlink()
    elif damage == "foreign":
        other = Corpus((Passage("Other", "Another corpus."),))
        Bm25(other, cache=tmp_path / "elsewhere")
        (theirs,) = (tmp_path / "elsewhere").iterdir()
        shutil.rmtree(folder)
        shutil.copytree(theirs, folder)
    elif damage == "seal":
        (folder / "seal.json").write_text("{", encoding="utf-8")
    else:
        (folder / "stray.npy").write_bytes(b"not ours")
    assert Bm25(SMALL).search("harbour lamps", 4) == first
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
    assert not (folder / "stray.npy").exists()


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("x", encoding="utf-8")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        cached_folder("recipe", build, tmp_path / "own")
    assert list((tmp_path / "own").iterdir()) == []


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    probe = (
        "from erl_envs.retrieval import Corpus, Passage\n"
        "from erl_envs.retrieval.bm25 import Bm25\n"
        "c = Corpus(tuple(Passage(f't{i}', f'word{i} ' * 5) for i in range(3000)))\n"
        "print(Bm25(c).search('word7', 1))\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", probe], stdout=subprocess.PIPE) for _ in range(3)
    ]
    outputs = {run.communicate()[0] for run in runs}
    assert len(outputs) == 1 and b"t7" in outputs.pop()
    assert all(run.returncode == 0 for run in runs)


def test_a_process_shares_one_index_between_threads() -> None:
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(retrieval.load("bm25", SMALL)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 1


def test_wrong_choices_are_named() -> None:
    with pytest.raises(ValueError, match="no retriever 'bm52'; valid: bm25, rank_bm25, dense"):
        retrieval.load("bm52", SMALL)
    with pytest.raises(ValueError, match="needs retriever_url"):
        retrieval.load("http", SMALL)
    with pytest.raises(ValueError, match="needs retriever_model"):
        retrieval.load("dense", SMALL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"title": "A", "text": "b"}\n{"title": "A"}\n', "line 2 is no passage: KeyError('text')"),
        ("not json\n", "line 1 is no passage"),
        ('{"title": 3, "text": "b"}\n', "must be strings"),
        ("[]\n", "line 1 is no passage"),
        ("", "holds no passage"),
    ],
)
def test_a_malformed_corpus_names_its_line(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.jsonl").write_text(content, encoding="utf-8")
    assert main(["serve", f"passages:{tmp_path / 'corpus.jsonl'}"]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("passages:nowhere.jsonl", "cannot read nowhere.jsonl"),
        ("nonsense", "bad value 'nonsense' for data; valid: 'world', 'file:PATH'"),
        ("world --part none", "has no part 'none'; valid: train, test, hard"),
        ("world --retriever dense", "--retriever dense needs --model"),
    ],
)
def test_a_bad_source_is_one_line(
    source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *source.split()]) == 2
    assert message in capsys.readouterr().err
