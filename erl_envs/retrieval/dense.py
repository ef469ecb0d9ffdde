"""Dense retrieval: a transformers encoder's mean-pooled embeddings, compared by cosine."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erl_envs.extras import missing_extra
from erl_envs.files import WriteError
from erl_envs.retrieval.base import Corpus, Passage, RetrievalError, Retriever
from erl_envs.retrieval.cache import cached_folder

_FILE = "embeddings.npy"


class Dense(Retriever):
    """Exact search: one product of the query with all embeddings, float32, on the CPU.

    For encoders that are pooled by the mean over their tokens, such as MiniLM's and E5's. The
    corpus is embedded once; the embeddings are kept on disk, memory-mapped.
    """

    name = "dense"

    def __init__(
        self,
        corpus: Corpus,
        model: str,
        cache_dir: Path | None = None,
        batch_size: int = 64,
        query_prefix: str = "",
        passage_prefix: str = "",
    ) -> None:
        """Load the encoder, and load or make the embeddings.

        Args:
            corpus: What to search; a passage is embedded as its title, a newline, its text, cut at
                the model's own length.
            model: A folder or a hub id.
            cache_dir: Folder of indices; None takes the user's.
            batch_size: Passages to embed at a time.
            query_prefix: Put before each query: "query: " for E5.
            passage_prefix: Put before each passage: "passage: " for E5.

        Raises:
            ValueError: torch or transformers is missing, or the model cannot be loaded; one line.
            WriteError: The embeddings cannot be kept.
        """
        self.passages = corpus.passages
        self.batch_size = batch_size
        self.query_prefix, self.passage_prefix = query_prefix, passage_prefix
        self.tokenizer, self.model = _load(model)
        self.max_length = _max_length(self.tokenizer, self.model)
        # fast tokenizers cannot be used by two threads at a time
        self._lock = threading.Lock()
        self.embeddings = self._embeddings(corpus, model, cache_dir)

    def over(self, corpus: Corpus) -> Dense:
        """The same encoder over another corpus, whose embeddings are kept nowhere.

        Raises:
            RetrievalError: The encoder failed.
        """
        made = copy.copy(self)
        made.passages = corpus.passages
        made.embeddings = np.empty((len(corpus.passages), self.embeddings.shape[1]), np.float32)
        with _encoding():
            made._fill(made.embeddings, corpus)
        return made

    def search(self, query: str, top_k: int) -> list[Passage]:
        """The nearest passages; equally near ones in the corpus's order, none for an empty query.

        Raises:
            RetrievalError: The encoder failed.
        """
        if not query.strip() or not self.passages or top_k < 1:
            return []
        # tokenizers refuse lone surrogates, which a model's text may hold
        clean = query.encode("utf-8", "replace").decode()
        with _encoding():
            [vector] = self._embed([self.query_prefix + clean])
        return [self.passages[index] for index in nearest(self.embeddings @ vector, top_k)]

    def _embeddings(
        self, corpus: Corpus, model: str, cache_dir: Path | None
    ) -> NDArray[np.float32]:
        """Unit vectors, passages × dimensions, memory-mapped."""
        shape = (len(corpus.passages), int(self.model.config.hidden_size))
        if not corpus.passages:  # an empty file cannot be mapped
            return np.empty(shape, np.float32)
        recipe = {
            "kind": "dense 1",
            "model": model,
            "weights": _weights_hash(self.model),  # a folder's name says little about its content
            "max_length": self.max_length,
            "passage_prefix": self.passage_prefix,
            "corpus": corpus.hash,
            "shape": list(shape),
            "dtype": "float32",
        }

        def build(folder: Path) -> None:
            found = np.lib.format.open_memmap(folder / _FILE, "w+", np.float32, shape)
            self._fill(found, corpus)
            found.flush()

        try:
            folder = cached_folder(recipe, build, cache_dir)
        except OSError as error:
            raise WriteError(f"cannot keep the embeddings (ERL_ENVS_CACHE): {error}") from error
        # a plain view of the mapped file: numpy's memmap class makes products slow
        return np.asarray(np.load(folder / _FILE, mmap_mode="r"))

    def _fill(self, found: NDArray[np.float32], corpus: Corpus) -> None:
        """Write the passages' embeddings into an array."""
        texts = [f"{self.passage_prefix}{p.title}\n{p.text}" for p in corpus.passages]
        # texts of one length need no padding
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            found[batch] = self._embed([texts[index] for index in batch])

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, texts × dimensions."""
        import torch

        with self._lock:
            batch = self.tokenizer(
                [text.encode("utf-8", "replace").decode() for text in texts],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
        with torch.inference_mode():
            hidden_BTD = self.model(**batch).last_hidden_state
            mask_BT1 = batch["attention_mask"][:, :, None].to(hidden_BTD.dtype)
            mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1e-9)
            unit_BD = torch.nn.functional.normalize(mean_BD, dim=1)
        vectors: NDArray[np.float32] = unit_BD.numpy()
        return vectors


@contextlib.contextmanager
def _encoding() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RetrievalError(f"the encoder failed: {reason}") from error


def nearest(scores: NDArray[np.float32], top_k: int) -> list[int]:
    """Indices of the greatest scores, best first, ties in order."""
    top_k = min(top_k, len(scores))
    least = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
    # all that reach the last one's score: a partition alone keeps any of those that tie for it
    found = np.flatnonzero(scores >= least)
    return [int(index) for index in found[np.argsort(-scores[found], kind="stable")][:top_k]]


def _load(name: str) -> tuple[Any, Any]:
    """The tokenizer, and the encoder in evaluation mode."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise missing_extra("dense retrievers", "dense", error) from error
    path = Path(name)
    if not path.exists() and (path.is_absolute() or name.startswith(".")):
        raise ValueError(f"cannot load the encoder {name!r}: no such folder")
    logging.disable_progress_bar()  # it would break the run's own display
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModel.from_pretrained(name, dtype=torch.float32)
    except Exception as error:  # a broken file makes the libraries raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"cannot load the encoder {name!r}: {reason}") from error
    finally:
        logging.enable_progress_bar()
    return tokenizer, model.eval()


def _weights_hash(model: Any) -> str:
    found = hashlib.blake2b(digest_size=16)
    for key, value in sorted(model.state_dict().items()):
        found.update(key.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def _max_length(tokenizer: Any, model: Any) -> int:
    # the tokenizer's may be a huge number that stands for none
    positions = getattr(model.config, "max_position_embeddings", None) or 1 << 20
    return int(min(tokenizer.model_max_length, positions))
