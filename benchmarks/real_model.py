"""ERL against GRPO on a real model: warm it up by imitation, then train it, three seeds.

`python benchmarks/real_model.py MODEL OUT [--toy]`, resumable; ends with the figures of
`python -m erl_trainer curves` in OUT/curves. MODEL learns first to read rulebooks and to write them
from the oracle, with symbols dealt anew for every task, so that it has not been told the ones that
it is trained and measured on. `--toy` runs the same path in minutes on a CPU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from erl_envs.eval.__main__ import main as evaluate
from erl_trainer.__main__ import main as trainer

ENVS = ("frozenlake", "sokoban")
FULL: dict[str, Any] = {
    "warm_tasks": 400,
    "epochs": 2,
    "seeds": [0, 1, 2],
    "base": {"steps": 60, "tasks_per_step": 16, "eval_tasks": 100, "eval_every": 10},
}
TOY: dict[str, Any] = {
    "warm_tasks": 2,
    "epochs": 1,
    "seeds": [0],
    "base": {
        "steps": 1,
        "tasks_per_step": 1,
        "group_size": 2,
        "eval_tasks": 1,
        "eval_samples": 1,
        "eval_every": 1,
    },
}
BASE = {"max_tokens": 48, "reflect_max_tokens": 320, "dtype": "bfloat16", "lr": 1e-5}
METHODS = {"GRPO": {"algo": "grpo"}, "ERL": {"algo": "erl"}}  # one update a step each


def warm_up(model: str, out: Path, size: dict[str, Any]) -> Path:
    """Imitate the oracle playing under shown rules, and its rulebooks; the model's folder."""
    runs = []
    for env in ENVS:
        for name, who in (
            ("plays", ["--policy", "oracle", "--option", "rules=shown"]),
            ("reflects", ["--policy", "random", "--reflector", "oracle", "--attempts", "2"]),
        ):
            runs.append(out / f"{env}-{name}")
            argv = ["--env", env, "--split", "small-train", "--limit", str(size["warm_tasks"])]
            for option in ("symbols=random", "prompt_style=compact", "feedback=transitions"):
                argv += ["--option", option]
            resume = ["--resume"] if runs[-1].exists() else []
            if evaluate([*who, *argv, "--out", str(runs[-1]), *resume]):
                raise SystemExit(f"{runs[-1]} did not end well")
    warm = out / "warm"
    if not (warm / "model").exists():
        given = [word for run in runs for word in ("--from", str(run))]
        learn = ["--reflections", "all", "--epochs", str(size["epochs"]), "--lr", "1e-5"]
        if trainer(["sft", *given, "--model", model, *learn, "--batch", "16", "--out", str(warm)]):
            raise SystemExit("the warm-up did not end well")
    return warm / "model"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder or a hub id")
    parser.add_argument("out", type=Path)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    size = TOY if args.toy else FULL
    model = warm_up(args.model, args.out, size)
    grid = {
        "base": {**BASE, **size["base"], "model": str(model)},
        "environments": {env: {"env": env} for env in ENVS},
        "methods": METHODS,
        "seeds": size["seeds"],
    }
    path = args.out / "grid.json"
    path.write_text(json.dumps(grid, indent=1) + "\n", encoding="utf-8")
    return trainer(["curves", str(path), "--out", str(args.out / "curves"), "--workers", "1"])


if __name__ == "__main__":
    raise SystemExit(main())
