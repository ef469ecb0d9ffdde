"""Speed of the environments: `make bench`. Ratios come from one run, since machines are noisy.

Each ratio benchmark times both sides in alternation and prints the ratio of their medians; the
targets stand beside it. Nothing here asserts a time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map

from erl_envs import tasks
from erl_envs.eval.run import Config, Here, evaluate
from erl_envs.eval.runfolder import RunFolder
from erl_envs.frozenlake import FrozenLake
from erl_envs.policies import Completion, Sampling, load
from erl_envs.policies.scripted import Scripted
from erl_envs.sokoban import Sokoban
from erl_envs.sokoban.levels import pull_room

OPEN_LAKE = ["SFFFFFFF", *["FFFFFFFF"] * 6, "FFFFFFFG"]
MESSAGES = [f"I go {way.lower()}. ```{way}```" for way in ("Right", "Left", "Down", "Up")]


def compare(
    ours: Callable[[], int], theirs: Callable[[], int], rounds: int = 9
) -> dict[str, float]:
    """Rates (per second) of two workloads run in alternation, and the ratio of their medians."""
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for rate, work in zip(rates, (ours, theirs), strict=True):
            began = time.perf_counter()
            rate.append(work() / (time.perf_counter() - began))
    one, two = map(statistics.median, rates)
    return {"ours": round(one), "theirs": round(two), "ratio": round(one / two, 2)}


def report(benchmark: Any, facts: dict[str, float], target: str) -> None:
    benchmark.extra_info.update(facts)
    print(f"\n{benchmark.name}: {facts} (target: {target})")


def test_frozenlake_step(benchmark: Any) -> None:
    """8×8: model text in, board text out, beside Gymnasium's step and ANSI rendering."""
    env = FrozenLake(max_turns=10**9)
    env.reset(options={"task": {"desc": OPEN_LAKE}})
    peer: Any = gym.make(
        "FrozenLake-v1", map_name="8x8", is_slippery=False, render_mode="ansi"
    ).unwrapped
    peer.reset(seed=0)

    def ours() -> int:
        for i in range(4000):
            env.step(MESSAGES[i & 3])
        return 4000

    def theirs() -> int:
        for i in range(2000):
            peer.step((2, 0, 1, 3)[i & 3])
            peer.render()
        return 2000

    report(benchmark, compare(ours, theirs), "ratio at least 3")
    benchmark(ours)


def test_frozenlake_new_board(benchmark: Any) -> None:
    """8×8: a fresh seeded board, beside Gymnasium's `generate_random_map` and construction."""
    env = FrozenLake(size=(8, 8))
    seeds: Iterator[int] = iter(range(10**9))

    def ours() -> int:
        for _ in range(500):
            env.reset(seed=next(seeds))
        return 500

    def theirs() -> int:
        for _ in range(40):
            FrozenLakeEnv(desc=generate_random_map(8, p=0.8, seed=next(seeds)))
        return 40

    report(benchmark, compare(ours, theirs), "ratio at least 10")
    benchmark(ours)


@pytest.mark.parametrize(("side", "boxes", "pushes"), [(6, 1, 2), (8, 2, 4), (10, 4, 8)])
def test_sokoban_rooms(benchmark: Any, side: int, boxes: int, pushes: int) -> None:
    """Rooms with inner walls by reverse pulls."""
    rng = np.random.default_rng(0)

    def rooms() -> int:
        for _ in range(100):
            pull_room(rng, side, boxes, pushes, 0.1)
        return 100

    began = time.perf_counter()
    rate = sum(rooms() for _ in range(10)) / (time.perf_counter() - began)
    report(benchmark, {"rooms_per_second": round(rate)}, "8×8 with 2 boxes at least 500")
    benchmark(rooms)


def test_sokoban_step(benchmark: Any) -> None:
    """A step in an 8×8 room: model text in, board text out."""
    env = Sokoban(max_turns=10**9)
    env.reset(options={"task": tasks.load("sokoban", "paper-test")[0]})

    def steps() -> int:
        for i in range(4000):
            env.step(MESSAGES[i & 3])
        return 4000

    began = time.perf_counter()
    report(benchmark, {"steps_per_second": round(steps() / (time.perf_counter() - began))}, "none")
    benchmark(steps)


class _Instant(Scripted):
    """Answers at once: what is left is the harness."""

    spec = "instant"

    def reply(self, conversation: Any) -> Completion:
        return Completion(MESSAGES[len(conversation.messages) & 3])


@pytest.mark.parametrize("policy", ["instant", "random"])
def test_whole_harness(benchmark: Any, policy: str, tmp_path: Path) -> None:
    """`erl_envs.eval` itself, transcripts written and flushed, metrics and report made."""
    actor = _Instant() if policy == "instant" else load(policy)
    config = Config(["frozenlake", "sokoban"], "paper-test", samples=20, sampling=Sampling())
    tasks.load("sokoban", "paper-test")  # generated once a process
    facts: dict[str, Any] = {}

    def run() -> None:
        began = time.perf_counter()
        folder = RunFolder(tmp_path / str(time.perf_counter_ns()))
        marks: list[float] = []
        executor = Here(config, actor, None)
        run = evaluate(config, executor, folder, progress=lambda d, t: marks.append(0.0))
        seconds = time.perf_counter() - began
        turns = sum(m["turns"] * m["episodes"] for m in run["metrics"].values())
        facts.update(turns_per_second=round(turns / seconds), turns=round(turns))

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    report(benchmark, facts, "at least 10,000 turns a second")
