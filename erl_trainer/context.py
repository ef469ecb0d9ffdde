"""Whether a model's context holds the longest conversations of a run, before time is spent."""

from __future__ import annotations

import contextlib
from typing import Any

import erl_envs
from erl_envs import tasks
from erl_envs.core import Attempt, EnvError, Message, Task, TextEnv
from erl_envs.reflection import reflection_messages, retry_prompt
from erl_trainer.config import Config

PROBED = 16
"""Tasks that are looked at."""

TEMPLATE = 8
"""Tokens that a chat template puts around a turn."""


def check_context(config: Config, context: int, needed: tuple[int, str]) -> None:
    """Compare a context with what a run needs of it.

    Args:
        config: Of the run.
        context: Tokens that the model reads, or that its sampler does.
        needed: What `needed_context` found.

    Raises:
        ValueError: It is too short; the message says how long it must be.
    """
    need, what = needed
    if need > context:
        raise ValueError(
            f"{config.model} reads {context} tokens here; {config.env} with these options needs "
            f"about {need} for {what}: fewer max_turns, shorter messages (max_tokens), or a model "
            "that reads more"
        )


def needed_context(config: Config, tokenizer: Any) -> tuple[int, str]:
    """Tokens of the longest conversation that training may come to, and which it is.

    An estimate: every turn is as long as the longest seen.
    """
    env = erl_envs.make(config.env, **config.options)
    probed = tasks.load(config.env, config.train_split, **config.options)[:PROBED]
    return max(_needed(env, task, config, tokenizer) for task in probed)


def _needed(env: TextEnv, task: Task, config: Config, tokenizer: Any) -> tuple[int, str]:
    def length(*texts: str) -> int:
        return sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)

    opening, answers, feedback = _play(env, task)
    turn = max(length(text) for text in answers) + config.max_tokens + TEMPLATE
    turns = env.max_turns * turn
    attempt = length(env.system_prompt, answers[0]) + turns
    need = attempt, "an attempt"
    shown = Attempt(task, 0, opening, [], 0.0, feedback, "", True)
    if config.second_attempt == "transcript":
        told = length(retry_prompt(env, shown)) + turns
        need = max(need, (told + length(answers[0]) + turns, "an attempt under an attempt"))
    elif config.second_attempt == "reflection":
        rulebook = config.reflect_max_tokens
        need = max(need, (attempt + rulebook, "an attempt under a rulebook"))
        if config.reflector == "policy":
            asked = length(*(m["content"] for m in reflection_messages(env, shown))) + turns
            remembered = 0 if config.memory == "none" else rulebook
            need = max(need, (asked + remembered + rulebook, "a reflection"))
    return need


def _play(env: TextEnv, task: Task) -> tuple[list[Message], list[str], str]:
    """An attempt that says the oracle's first message again and again.

    Returns:
        Its opening, what the environment answered (the first observation too), its feedback.
    """
    observation, _ = env.reset(seed=0, options={"task": task})
    opening: list[Message] = [
        {"role": "system", "content": env.system_prompt},
        {"role": "user", "content": observation},
    ]
    answers, feedback, done = [observation], "", False
    with contextlib.suppress(EnvError):  # an environment that fails is the run's affair
        message = (env.oracle() or [""])[0]
        while not done:
            observation, _, terminated, truncated, info = env.step(message)
            answers.append(observation)
            done = terminated or truncated
        feedback = info["feedback"]
    return opening, answers, feedback
