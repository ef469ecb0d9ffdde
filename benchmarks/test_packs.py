"""What packs of a CPU cache's size gain, in reading prompts and in an optimizer update, and what
reading equal prompts once gains. One thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pytest

from erl_envs.policies import nano

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

ROUNDS = 3
LENGTHS = np.random.default_rng(0).integers(300, 613, size=52).tolist()
"""Reflection prompts of a step of 16 FrozenLake tasks, in tokens."""


def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(nano.folder("frozenlake"), dtype=torch.float32)


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(8, 2000, size=length).tolist() for length in LENGTHS]


def compare(benchmark: Any, packed: Callable[[], object], whole: Callable[[], object]) -> None:
    """Seconds of both, in alternation, so that a busy minute falls on both."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {"packed": [], "whole": []}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        seconds[name].append(time.perf_counter() - began)

    try:
        benchmark.pedantic(
            lambda: timed("packed", packed), setup=lambda: timed("whole", whole), rounds=ROUNDS
        )
    finally:
        torch.set_num_threads(threads)
    facts = {name: round(median(each), 2) for name, each in seconds.items()}
    facts["ratio"] = round(median(seconds["whole"]) / median(seconds["packed"]), 2)
    benchmark.extra_info.update(facts)
    print(f"\n{benchmark.name}: {facts}")


def test_prompts_read_in_packs_beside_all_at_once(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erl_envs.policies import prefill

    net, given, usual = model(), prompts(), prefill.TOKENS

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def read(tokens: int) -> None:
        monkeypatch.setattr(prefill, "TOKENS", tokens)
        prefill.prefill(net, given, [None] * len(given))

    compare(benchmark, lambda: read(usual), lambda: read(1 << 30))


def test_a_groups_equal_prompts_beside_as_many_different_ones(benchmark: Any) -> None:
    from erl_envs.policies import prefill

    net, rng = model(), np.random.default_rng(2)
    # a GRPO step of 16 FrozenLake tasks: 160 attempts
    different = rng.integers(8, 2000, size=(160, 140)).tolist()
    equal = [prompt for prompt in different[:16] for _ in range(10)]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def read(given: list[list[int]]) -> None:
        prefill.prefill(net, given, [None] * len(given))

    compare(benchmark, lambda: read(equal), lambda: read(different))


def test_update_in_small_micro_batches_beside_large(benchmark: Any) -> None:
    from erl_trainer.config import Config
    from erl_trainer.learner import Learner
    from erl_trainer.types import Sample, Stage

    samples = [
        Sample(
            stage=Stage.REFLECTION,
            kind="policy",
            task=str(number),
            ids=ids,
            sampled=[place >= len(ids) - 26 for place in range(len(ids))],
            logprobs=[-1.0] * len(ids),
            reward=1.0,
            advantage=1.0,
        )
        for number, ids in enumerate(prompts())
    ]
    usual = Config(kl_weight=0.02)
    large = replace(usual, token_budget=16_384)
    ours, theirs = (Learner(model(), config, pad_id=0) for config in (usual, large))
    compare(benchmark, lambda: ours.update(samples), lambda: theirs.update(samples))
