"""Whether a model's context holds an environment's longest conversation, before time is spent."""

from __future__ import annotations

import contextlib
from typing import Any

import erl_envs
from erl_envs import tasks
from erl_envs.core import EnvError, Message, TextEnv
from erl_envs.policies.local import context_length
from erl_trainer.config import Config

PROBED = 16
"""Tasks that are looked at."""


def check_context(config: Config, model: Any, tokenizer: Any) -> None:
    """Compare the context with an estimate: every turn as long as the longest seen.

    Raises:
        ValueError: It is too short; the message says how long it must be.
    """
    context = context_length(model)
    need = needed_context(config, tokenizer)
    if need > context:
        raise ValueError(
            f"{config.model} reads {context} tokens; {config.env} with these options needs about "
            f"{need}: fewer max_turns, shorter messages (max_tokens), or a model that reads more"
        )


def needed_context(config: Config, tokenizer: Any) -> int:
    """Tokens of the longest attempt that the first tasks of the training split may come to."""
    env = erl_envs.make(config.env, **config.options)
    probed = tasks.load(config.env, config.train_split, **config.options)[:PROBED]
    return max(_attempt_tokens(env, task, config.max_tokens, tokenizer) for task in probed)


def _attempt_tokens(env: TextEnv, task: Any, max_tokens: int, tokenizer: Any) -> int:
    observation, _ = env.reset(seed=0, options={"task": task})
    opening: list[Message] = [
        {"role": "system", "content": env.system_prompt},
        {"role": "user", "content": observation},
    ]
    texts = [message["content"] for message in opening]
    longest = _length(tokenizer, observation)
    with contextlib.suppress(EnvError):  # an environment that fails is the run's affair
        for message in (env.oracle() or [])[:1]:
            observation, *_ = env.step(message)
            longest = max(longest, _length(tokenizer, observation))
    turn = longest + max_tokens + 8  # a chat template's own tokens
    return sum(_length(tokenizer, text) for text in texts) + env.max_turns * turn


def _length(tokenizer: Any, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False))
