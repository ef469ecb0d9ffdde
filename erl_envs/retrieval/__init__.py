"""Retrievers: a query in, passages out. `load` gives each process one of a kind."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from erl_envs.retrieval.base import Corpus, Passage, RetrievalError, Retriever

__all__ = ["KINDS", "Corpus", "Passage", "RetrievalError", "Retriever", "load"]

KINDS = ("bm25", "rank_bm25", "dense", "wikipedia", "http")

MOST = 16
"""Retrievers that are kept at a time; the one that was asked for longest ago goes first."""


class _Place:
    """Where a retriever is made: who asks for another need not wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.retriever: Retriever | None = None


_places: OrderedDict[tuple[Any, ...], _Place] = OrderedDict()
_lock = threading.Lock()


def load(
    kind: str,
    corpus: Corpus,
    url: str | None = None,
    model: str | None = None,
    prefixes: tuple[str, str] = ("", ""),
    keep: bool = True,
    disk: bool = True,
) -> Retriever:
    """A retriever, made once for the same arguments and shared by a process's environments.

    Args:
        kind: One of `KINDS`.
        corpus: What to search; `wikipedia` and `http` search their own.
        url: Of an `http` retriever.
        model: Folder or hub id of a `dense` retriever's encoder.
        prefixes: What that puts before a query and before a passage.
        keep: Whether others will search the corpus too. Where not, nothing of it is left on disk or
            in memory.
        disk: Whether others will search it in another process. Where not, BM25 leaves nothing on
            disk.

    Raises:
        ValueError: No such kind, a missing argument, or a missing package; one line.
        RetrievalError: It cannot be made ready.
    """
    if not keep and kind in ("bm25", "rank_bm25", "dense"):
        return _passing(kind, corpus, model, prefixes)
    own = kind in ("wikipedia", "http")
    key = (kind, None if own else corpus.hash, url, model, prefixes)
    with _lock:
        place = _places.setdefault(key, _Place())
        _places.move_to_end(key)
        if len(_places) > MOST:
            _places.popitem(last=False)
    with place.lock:
        if place.retriever is None:
            place.retriever = _make(kind, corpus, url, model, prefixes, disk)
        return place.retriever


def _passing(kind: str, corpus: Corpus, model: str | None, prefixes: tuple[str, str]) -> Retriever:
    from erl_envs.retrieval.bm25 import Bm25, RankBm25

    if kind == "dense":
        from erl_envs.retrieval.dense import Dense

        encoder = load(kind, Corpus(()), model=model, prefixes=prefixes)  # costs more to read
        assert isinstance(encoder, Dense)
        return encoder.over(corpus)
    return RankBm25(corpus) if kind == "rank_bm25" else Bm25(corpus, keep=False)


def _make(
    kind: str,
    corpus: Corpus,
    url: str | None,
    model: str | None,
    prefixes: tuple[str, str],
    disk: bool,
) -> Retriever:
    if kind in ("bm25", "rank_bm25"):
        from erl_envs.retrieval.bm25 import Bm25, RankBm25

        return Bm25(corpus, keep=disk) if kind == "bm25" else RankBm25(corpus)
    if kind == "dense":
        from erl_envs.retrieval.dense import Dense

        if model is None:
            raise ValueError("a dense retriever needs retriever_model, its encoder's folder or id")
        return Dense(corpus, model, query_prefix=prefixes[0], passage_prefix=prefixes[1])
    if kind == "wikipedia":
        from erl_envs.retrieval.wikipedia import Wikipedia

        return Wikipedia()
    if kind == "http":
        from erl_envs.retrieval.http import Http

        if url is None:
            raise ValueError("an http retriever needs retriever_url, ending in /retrieve")
        return Http(url)
    raise ValueError(f"no retriever {kind!r}; valid: {', '.join(KINDS)}")
