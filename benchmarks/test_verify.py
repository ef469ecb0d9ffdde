"""How long a submission of 100 tasks × 4 samples takes to verify, beside playing it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from submissions import make_submission

from erl_envs.leaderboard.verify import verify


@pytest.mark.parametrize("env", ["frozenlake", "sokoban", "hotpotqa"])
def test_verify(env: str, tmp_path: Path, benchmark: Any) -> None:
    """Two attempts each, so up to 6,400 turns; one thread."""
    began = time.perf_counter()
    folder = make_submission(tmp_path, env)
    played = time.perf_counter() - began
    found = benchmark.pedantic(verify, (folder,), rounds=3, warmup_rounds=1)
    took = benchmark.stats.stats.min if benchmark.stats else float("nan")
    turns = sum(len(attempt.turns) for e in found.episodes for attempt in e.attempts)
    print(f"\n{env}: {turns} turns verified in {took:.2f} s; played and packed in {played:.2f} s")
