"""The bundled models: small enough for any laptop, able to read a rulebook and to write one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erl_envs.policies.base import Completion, Conversation, Policy, PolicyError, Sampling
from erl_envs.policies.transformers import Transformers, check_installed, load

FOLDER = Path(__file__).parent.parent / "models" / "nano"

_NONE = "its models are built by: python -m erl_trainer nano --ship erl_envs/models/nano"

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "frozenlake": {"prompt_style": "compact", "coordinates": True, "feedback": "transitions"},
    "sokoban": {"prompt_style": "compact", "coordinates": True, "feedback": "transitions"},
    "hotpotqa": {"prompt_style": "compact", "top_k": 2, "feedback": "transitions"},
}
"""Options of the environments as nano plays them, unless told otherwise."""


def played() -> list[str]:
    """Environments that there is a model for."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def folder(env: str) -> Path:
    """Where the model of an environment lies.

    Raises:
        ValueError: There is none; the message lists those there are.
    """
    if not (FOLDER / env / "config.json").is_file():
        known = f"it plays {', '.join(played())}" if played() else _NONE
        raise ValueError(f"nano has no model for {env!r}; {known}")
    return FOLDER / env


SPLIT = "small-test"
"""Task set of boards and questions of the size that nano learnt."""


class Nano(Policy):
    """A model for each environment, in `erl_envs/models/nano`; its card says what they can do.

    Each is loaded when its environment is first played.
    """

    spec = "nano"

    def __init__(self) -> None:
        """Look the models up.

        Raises:
            ValueError: torch, transformers or the models are missing; the message says how to get
                them.
        """
        check_installed()
        if not (FOLDER / "revision").is_file():
            raise ValueError(f"nano cannot play; {_NONE}")
        self.revision = (FOLDER / "revision").read_text(encoding="utf-8").strip()
        self._models: dict[str, Transformers] = {}

    def complete(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion | PolicyError]:
        """Each environment's model answers its own conversations."""
        answers: dict[int, Completion | PolicyError] = {}
        envs = [conversation.key[0] for conversation in conversations]
        for env in sorted(set(envs)):
            mine = [i for i, name in enumerate(envs) if name == env]
            batch = [conversations[i] for i in mine]
            try:
                found = self._model(env).complete(batch, sampling)
            except ValueError as error:
                found = [PolicyError(str(error)) for _ in mine]
            answers.update(zip(mine, found, strict=True))
        return [answers[i] for i in range(len(conversations))]

    def _model(self, env: str) -> Transformers:
        if env not in self._models:
            self._models[env] = load_model(folder(env))
        return self._models[env]


def load_model(path: Path) -> Transformers:
    """Load a model of nano's kind in float32, so that it plays the same on every machine."""
    model, tokenizer = load(str(path))
    return Transformers(str(path), model.float(), tokenizer)
