"""HotpotQA's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from erl_envs import options as opt
from erl_envs import policies
from erl_envs.hotpotqa import data
from erl_envs.hotpotqa.grading import Mode
from erl_envs.hotpotqa.tools import MAX_TOP_K
from erl_envs.retrieval.http import EXAMPLE
from erl_envs.web import check_server

MAX_PASSAGE = 4_000
"""Characters that passages are cut to at most: HotpotQA's own are shorter."""


@dataclass(frozen=True, kw_only=True)
class HotpotQAOptions(opt.Options):
    """Options of HotpotQA.

    Attributes:
        data: `world` (fictional, offline), `file:PATH` (HotpotQA JSON), `hub:CONFIG[:PATH]`.
        retriever: Who searches the data's corpus, or (`wikipedia`, `http`) one of its own.
        retriever_url: Of an `http` retriever.
        retriever_model: Encoder of a `dense` retriever.
        retriever_prefixes: What it puts before queries and passages (E5: `query: `, `passage: `).
        top_k: Passages of a search that does not say.
        snippet_chars: Characters that passages are cut to (the paper: 300); None for 4,000.
        reward: What an answer earns (`grading.grade`).
        judge: Policy string of a critic that writes the feedback's text; it never sees the gold
            answer and never changes the reward.
    """

    data: str = "world"
    retriever: Literal["bm25", "rank_bm25", "dense", "wikipedia", "http"] = "bm25"
    retriever_url: str | None = None
    retriever_model: str | None = None
    retriever_prefixes: tuple[str, str] = ("", "")
    top_k: int = 5
    snippet_chars: int | None = None
    reward: Mode = "paper"
    judge: str | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        super().__post_init__()
        data.open_source(self.data)
        if self.judge is not None:
            policies.check_form(self.judge)
        if self.retriever_url is not None:
            check_server(self.retriever_url, "retriever_url", EXAMPLE)
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise ValueError(f"bad value {self.top_k} for top_k; valid: 1 to {MAX_TOP_K}")
        if self.snippet_chars is not None and not 1 <= self.snippet_chars <= MAX_PASSAGE:
            raise ValueError(
                f"bad value {self.snippet_chars} for snippet_chars; valid: None, 1 to {MAX_PASSAGE}"
            )
