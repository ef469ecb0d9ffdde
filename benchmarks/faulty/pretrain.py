"""`python -m erl_trainer nano` with a small model, few steps, many saves, and without gates."""

from __future__ import annotations

import sys
from typing import Any

from erl_envs.arguments import run_command
from erl_trainer.nano import command, gates, pretrain, recipe

# also in the processes that it starts: they import this file
SMALL = {"hidden": 32, "layers": 1, "heads": 1, "tokens": 1024, "playing": 6, "warmup": 2}
recipe.OWN["sokoban"] = {**SMALL, "steps": 12}  # type: ignore[index]
pretrain.SAVE_EVERY = 2


def passed(policy: Any, env: str, samples: int) -> gates.Skills:
    """What the gates would measure in minutes."""
    return gates.Skills(env, 1.0, 0.0, 0.0, 1.0, 1.0)


gates.measure = passed

if __name__ == "__main__":
    run_command(lambda: command.main(sys.argv[1:]))
