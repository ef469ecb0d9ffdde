"""The bundled model: small enough for any laptop, able to read a rulebook and to write one."""

from __future__ import annotations

from pathlib import Path

from erl_envs.policies.transformers import Transformers

FOLDER = Path(__file__).parent.parent / "models" / "nano"


class Nano(Transformers):
    """The model in `erl_envs/models/nano`; its card says what it was trained to do."""

    def __init__(self) -> None:
        """Load it.

        Raises:
            ValueError: torch or transformers is missing; the message says how to install them.
        """
        super().__init__(str(FOLDER))
        self.spec = "nano"
