"""The environments as an rLLM agent flow and evaluator: `play` and `score`.

**Not run with the real package**: rLLM is on GitHub alone and has no release on the package index.
Written against the interface of its 0.3 (`rllm.rollout`, `rllm.evaluator`, `rllm.types`,
`rllm.eval.types`) and tested with a small stub of it and a server on loopback.

rLLM puts the token ids of its gateway's traces in the place of the steps, one trace a step, and
keeps of ours `action`, `reward` and `done`. So what has to survive stands in the episode's
`artifacts`: `reward`, `feedback`, `outcome`, `terminated`, `truncated`, `turns`, `messages`.
"""
# ruff: noqa: E402 - a missing framework is told of before it is imported

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from erl_envs.adapters import rows as shared
from erl_envs.adapters.versions import require
from erl_envs.calls import FinalError, PassingError
from erl_envs.core import Message, TextEnv
from erl_envs.secrets import redact, redact_error
from erl_envs.web import check_server, join, open_client, reason_of, send

require("rllm", "0.3")

import rllm
from rllm.eval.types import EvalOutput, Signal
from rllm.types import AgentConfig, Episode, Step, Task, Trajectory

TIMEOUT = 600.0
"""Seconds that a training server may take for a message."""


@rllm.rollout(name="erl_envs")
async def play(task: Task, config: AgentConfig) -> Episode:
    """Play a row's task with the model at `config.base_url`.

    Args:
        task: Its `metadata` is a row of `rows`, perhaps with a `seed` of the environment's own
            randomness; its instruction is not read.
        config: `base_url` up to and with `/v1`, `model`, and in newer versions `sampling_params`.

    Returns:
        An episode with one trajectory, a step for each message.

    Raises:
        ValueError: The row names no environment, option or task that there is; one line.
        RuntimeError: The environment or the server failed. rLLM then plays the task again; nothing
            is tried twice here, because a second request would be a trace without a step.
    """
    row = task.metadata or {}
    if missing := [name for name in ("env", "options", "task") if name not in row]:
        raise ValueError(f"the row lacks {missing[0]!r}; adapters.rllm.rows makes rows")
    env, messages = await asyncio.to_thread(_open, row)
    steps: list[Step] = []
    reward, done = 0.0, False
    # rLLM's gateway knows a session by its URL and asks for no key
    async with open_client(headers={"Authorization": "Bearer EMPTY"}, timeout=None) as client:
        while not done:
            text = await _ask(client, config, messages)
            observation, gained, terminated, truncated, info = await asyncio.to_thread(
                env.step, text
            )
            reward, done = reward + gained, terminated or truncated
            asked, action = list(messages), info["action"]
            steps.append(Step(input=asked, output=text, action=action, reward=gained, done=done))
            messages.append(Message(role="assistant", content=text))
            messages.append(Message(role="user", content=observation))
    ended = {
        "reward": reward,
        "feedback": info["feedback"],
        "outcome": info["outcome"],
        "terminated": terminated,
        "truncated": truncated,
        "turns": len(steps),
        "messages": messages,
    }
    trajectory = Trajectory(name="erl_envs", steps=steps, reward=reward)
    return Episode(trajectories=[trajectory], artifacts=ended, is_correct=reward >= 1)


@rllm.evaluator
def score(task: Any, episode: Episode) -> EvalOutput:
    """The reward that the environment gave; `feedback` and `outcome` in its metadata.

    Args:
        task: Not read: the environment has judged already.
        episode: Of `play`.
    """
    ended = episode.artifacts
    solved = ended["reward"] >= 1
    return EvalOutput(
        reward=ended["reward"],
        is_correct=solved,
        signals=[
            Signal(name="solved", value=float(solved)),
            Signal(name="truncated", value=float(ended["truncated"])),
            Signal(name="turns", value=float(ended["turns"])),
        ],
        metadata={"feedback": ended["feedback"], "outcome": ended["outcome"]},
    )


def rows(env: str, split: str, **options: Any) -> list[dict[str, Any]]:
    """The tasks of a split as rows of an rLLM dataset (`DatasetRegistry.register_dataset`).

    Beside the fields of `erl_envs.adapters.rows.Row`: `uid` (the task's id), and `question` (its
    first observation), which rLLM shows to people.

    Raises:
        ValueError: There is no such environment, split or option; the message lists the valid ones.
    """
    return [
        {**row, "uid": json.loads(row["task"])["id"], "question": row["prompt"][-1]["content"]}
        for row in shared.rows(env, split, **options)
    ]


def _open(row: Mapping[str, Any]) -> tuple[TextEnv, list[Message]]:
    """A row's environment at its task's first state, and what the model is told of it."""
    env, task = shared.open_row(row["env"], row["options"], row["task"])
    observation, _ = env.reset(seed=row.get("seed"), options={"task": task})
    return env, shared.opening(env, observation)


async def _ask(client: httpx.AsyncClient, config: AgentConfig, messages: Sequence[Message]) -> str:
    """The model's next message, "" where it wrote none.

    Raises:
        RuntimeError: The server failed or answered with no chat completion; one line.
    """
    sampling = getattr(config, "sampling_params", {}) or {}
    body = {**sampling, "model": config.model, "messages": messages}
    check_server(config.base_url, "base URL", "http://localhost:8000/v1")
    url = join(config.base_url, "chat/completions")
    try:
        async with asyncio.timeout(TIMEOUT):
            reply = (await send(client, "POST", url, body)).json()
        text = reply["choices"][0]["message"]["content"] or ""
    except (FinalError, PassingError, TimeoutError, LookupError, TypeError) as error:
        known = isinstance(error, FinalError | PassingError)
        why = " ".join(redact_error(str(error) if known else reason_of(error)).split())
        raise RuntimeError(f"no message from {redact_error(url)}: {why[:300]}") from error
    if not isinstance(text, str):
        raise RuntimeError(f"no message from {redact_error(url)}: its content is no text")
    return redact(text)
