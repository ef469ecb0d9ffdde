"""As a script: the trainer's command, in which the second process's sampler soon fails."""

from __future__ import annotations

import os
import sys
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


Transformers.generate = fail  # type: ignore[assignment,method-assign]
sys.exit(main(sys.argv[1:]))
