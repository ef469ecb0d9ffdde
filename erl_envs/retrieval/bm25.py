"""BM25 over stemmed words: `Bm25` (bm25s, the default), `RankBm25` (rank-bm25, the reference)."""

from __future__ import annotations

import contextlib
import re
import threading
import unicodedata
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer
from bm25s.stopwords import STOPWORDS_EN

from erl_envs.extras import missing_extra
from erl_envs.retrieval.base import Corpus, Passage, Retriever
from erl_envs.retrieval.cache import cached_folder

TITLE_WEIGHT = 3
K1, B = 1.2, 0.75

KEPT_FROM = 200
"""Passages from which on an index is worth keeping on disk."""
_WORD = re.compile(r"\w+")
_STOP = frozenset(STOPWORDS_EN)
_local = threading.local()


def words(text: str) -> list[str]:
    """The text's stemmed words: accents and case folded, stop words dropped."""
    plain = text
    if not text.isascii():
        parts = unicodedata.normalize("NFKD", text)
        plain = "".join(part for part in parts if not unicodedata.combining(part))
    kept = [word for word in _WORD.findall(plain.lower()) if word not in _STOP]
    return _stemmer().stemWords(kept)  # type: ignore[no-any-return]


def _stemmer() -> Any:
    # PyStemmer's objects must not be shared between threads
    if not hasattr(_local, "stemmer"):
        _local.stemmer = Stemmer.Stemmer("english")
    return _local.stemmer


def _documents(corpus: Corpus) -> list[list[str]]:
    """Each passage's words, its title's counted `TITLE_WEIGHT` times over."""
    found = [words(p.title) * TITLE_WEIGHT + words(p.text) for p in corpus.passages]
    # no index can be made of no word at all; a blank is in no query
    return found if any(found) else [[" "] for _ in found]


def _has_words(corpus: Corpus) -> bool:
    """Whether there is anything to find: the libraries cannot index stop words alone."""
    return any(words(p.title) or words(p.text) for p in corpus.passages)


def best(scores: np.ndarray[Any, Any], top_k: int) -> list[int]:
    """Indices of the greatest positive scores, best first, ties in order; spends `scores`.

    For the few that are wanted, one pass for each is faster than any partition.
    """
    found: list[int] = []
    while len(found) < min(top_k, len(scores)):
        index = int(scores.argmax())
        if scores[index] <= 0:
            break
        found.append(index)
        scores[index] = 0
    return found


class Bm25(Retriever):
    """bm25s: scores are computed when the index is built; a query adds up a few sparse columns.

    The index is built once and kept on disk under the corpus's content hash, memory-mapped; that of
    a few passages, or where no disk can be written to, is built anew, in memory.
    """

    name = "bm25"

    def __init__(
        self,
        corpus: Corpus,
        method: str = "lucene",
        cache: Path | None = None,
        keep: bool = True,
    ) -> None:
        """Build or load the index.

        Args:
            corpus: What to search.
            method: bm25s's variant of the formula.
            cache: Folder of indices; None takes the user's.
            keep: Whether an index of many passages is kept on disk.
        """
        self.passages = corpus.passages
        self.index: Any = None
        if not _has_words(corpus):
            return
        if keep and len(corpus.passages) >= KEPT_FROM:
            with contextlib.suppress(OSError):
                self.index = self._kept(corpus, method, cache)
                return
        self.index = _index(corpus, method)

    def _kept(self, corpus: Corpus, method: str, cache: Path | None) -> Any:
        recipe = ["bm25", 2, bm25s.__version__, method, TITLE_WEIGHT, K1, B, corpus.hash]

        def build(folder: Path) -> None:
            _index(corpus, method).save(folder, show_progress=False)

        folder = cached_folder(recipe, build, cache)
        index = bm25s.BM25.load(folder, mmap=True)
        for name in ("data", "indices", "indptr"):
            # a plain view of the mapped file: numpy's memmap class makes every slice slow
            index.scores[name] = np.asarray(index.scores[name])
        return index

    def search(self, query: str, top_k: int) -> list[Passage]:
        """The best passages; none for a query without a word that the corpus knows."""
        if self.index is None:
            return []
        known = [word for word in words(query) if word in self.index.vocab_dict]
        if not known:
            return []
        return [self.passages[i] for i in best(self.index.get_scores(known), top_k)]


def _index(corpus: Corpus, method: str) -> Any:
    index = bm25s.BM25(method=method, k1=K1, b=B)
    index.index(_documents(corpus), show_progress=False)
    return index


class RankBm25(Retriever):
    """rank-bm25's Okapi formula over the same words: slow, and the reference for `Bm25`."""

    name = "rank_bm25"

    def __init__(self, corpus: Corpus) -> None:
        """Build the index, in memory.

        Raises:
            ValueError: rank-bm25 is not installed.
        """
        try:
            from rank_bm25 import BM25Okapi
        except ImportError as error:
            raise missing_extra("rank_bm25 retrievers", "data", error) from error
        self.passages = corpus.passages
        found = _has_words(corpus)
        self.index: Any = BM25Okapi(_documents(corpus), k1=K1, b=B) if found else None

    def search(self, query: str, top_k: int) -> list[Passage]:
        """The best passages; none for a query without a word that the corpus knows."""
        if self.index is None:
            return []
        return [self.passages[i] for i in best(self.index.get_scores(words(query)), top_k)]
