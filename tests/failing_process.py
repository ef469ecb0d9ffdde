"""As a script: the trainer's command, in which the second process's sampler soon fails."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Any

from erl_envs.policies import PolicyError
from erl_envs.policies.transformers import Transformers
from erl_trainer.__main__ import main

generate: Any = Transformers.generate
calls = iter(range(10**9))


def fail(*args: Any) -> Any:
    """Answer a few times."""
    if os.environ["RANK"] == "1" and next(calls) == 4:
        raise PolicyError("the second process's sampler is gone")
    return generate(*args)


def tell_threads() -> None:
    """What of the group is left at the very end (Linux tells)."""
    names = [
        path.read_text(encoding="utf-8").strip() for path in Path("/proc/self/task").glob("*/comm")
    ]
    print(f"left of gloo: {[name for name in names if 'gloo' in name]}", file=sys.stderr)


atexit.register(tell_threads)  # the first registered is the last called
Transformers.generate = fail  # type: ignore[assignment,method-assign]
sys.exit(main(sys.argv[1:]))
