"""The environments as verifiers' tasksets, on its v1 API (tested with verifiers 0.4.0).

Each environment has a module of its own at the top, for verifiers finds them by that name:
`vf-eval erl-frozenlake`, `erl-sokoban`, `erl-hotpotqa`. The policy is told the system prompt and
the observations, as they are; its raw text goes to the environment, as it is.

What the attempt's end tells is in `trace.info`: `feedback`, `outcome`, `terminated`, `truncated`,
`reward`, and what the policy no longer sees: `observation`, the last. An environment that fails
makes the episode one with an error, never one with a reward of 0.
"""
# ruff: noqa: E402 - a missing framework is told of before it is imported

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Iterator
from typing import Any, ClassVar

import httpx

from erl_envs import registry, tasks
from erl_envs.adapters.rows import open_row, row
from erl_envs.adapters.versions import require
from erl_envs.core import Task, TextEnv
from erl_envs.web import open_client

require("verifiers", "0.4")

import verifiers.v1 as vf
from pydantic import Field
from verifiers.v1.dialects.chat import message_to_wire


class TextTasksetConfig(vf.TasksetConfig):
    """Which tasks, in which environment."""

    split: str = "test"
    """One of the environment's task sets."""
    seeds: int = 0
    """Instead of the split: fresh tasks, of the seeds 0 to this less 1."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the environment, as `erl_envs.make` takes them."""


class TextTaskData(vf.TaskData):
    """A task as a row; the policy is told `system_prompt` and `prompt`, nothing else."""

    env: str
    """The environment's id."""
    env_options: str
    """Its options, JSON."""
    task: str
    """The task, JSON."""
    seed: int | None = None
    """What a fresh task is drawn from, and what is left to chance in it; None for a split's."""


class TextTask(vf.Task[TextTaskData, vf.State, vf.TaskConfig]):
    """A task and its reward."""

    @property
    def key(self) -> str:
        """The task's content hash, the same in every taskset that has it, and its seed."""
        return f"{self.data.id}" if self.data.seed is None else f"{self.data.id}/{self.data.seed}"

    def open(self) -> TextEnv:
        """A fresh environment at the task's first state.

        Raises:
            ValueError: The data names no environment, option or task that there is.
        """
        env, task = open_row(self.data.env, self.data.env_options, self.data.task)
        if self.data.seed is None:
            env.reset(options={"task": task})
        else:  # slips come from what is left of the stream once the task is drawn
            env.reset(seed=self.data.seed)
        return env

    @vf.reward
    async def env_reward(self, trace: vf.Trace) -> float:
        """The attempt's reward: the sum of its steps'."""
        return float(trace.info.get("reward", 0.0))

    async def validate(self, runtime: vf.Runtime) -> bool | None:
        """Whether the oracle's messages earn the whole reward; None if it knows none."""
        return await asyncio.to_thread(self._oracle_solves)

    def _oracle_solves(self) -> bool | None:
        env = self.open()
        plan = env.oracle()
        if plan is None or len(plan) > env.max_turns or env.reference().ceiling != 1.0:
            return None
        return sum(env.step(message)[1] for message in plan) >= 1.0


class TextTaskset(vf.Taskset[TextTask, TextTasksetConfig]):
    """An environment's tasks; a subclass names the environment."""

    env: ClassVar[str]

    def load(self) -> Iterator[TextTask]:
        """The tasks.

        Raises:
            ValueError: There is no such split or option; the message lists the valid ones.
        """
        options = self.config.options
        player = registry.make(self.env, **options)
        if self.config.seeds:
            for seed in range(self.config.seeds):
                player.reset(seed=seed)
                assert player.task is not None
                yield self._task(player, player.task, seed)
        else:
            for task in tasks.load(self.env, self.config.split, **options):
                yield self._task(player, task, None)

    def _task(self, player: TextEnv, task: Task, seed: int | None) -> TextTask:
        told = row(player, task, self.config.options)
        system, first = (message["content"] for message in told["prompt"])
        data = TextTaskData(
            id=task.id,
            name=f"{self.env} {task.id}",
            system_prompt=system,
            prompt=first,
            env=told["env"],
            env_options=told["options"],
            task=told["task"],
            seed=seed,
        )
        return TextTask(data, self.config.task)


class TextGameConfig(vf.EnvConfig):
    """Who plays: on this machine, by the harness below."""

    player: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class TextGame(vf.Env[TextGameConfig]):
    """The loop: the policy's message, the environment's answer, until the attempt ends."""

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        """Play one attempt, in an environment of its own."""
        assert isinstance(task, TextTask)
        env = await asyncio.to_thread(task.open)
        async with agents.player.interaction(task) as interaction:
            told = interaction.trace.info
            told |= {"reward": 0.0, "terminated": False, "truncated": False}
            segment = await interaction.turn()
            while not segment.terminated:
                # not last_reply, which is stripped: the environment reads what was written
                said = segment.messages[-1].content
                observation, reward, terminated, truncated, info = await asyncio.to_thread(
                    env.step, said if isinstance(said, str) else ""
                )
                told["reward"] += reward
                if terminated or truncated:
                    told |= {
                        "terminated": terminated,
                        "truncated": truncated,
                        "observation": observation,
                        "feedback": info["feedback"],
                        "outcome": info["outcome"],
                    }
                    break
                segment = await interaction.turn(observation)
            else:  # a limit of verifiers' own, or the model's failure, which is on the trace
                told["truncated"] = True


class ChatHarness(vf.Harness[vf.HarnessConfig]):
    """One chat completion a turn, asked for in this process.

    The harnesses that come with verifiers start a process for every turn.
    """

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Ask for the next message of a conversation, through verifiers' interception."""
        system, prompt = self.resolve_prompt(data)
        messages = [] if system is None else [{"role": "system", "content": system}]
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += map(message_to_wire, prompt or [])
        async with open_client(timeout=None, trust_env=False, verify=_tls()) as client:
            answer = await client.post(
                f"{endpoint}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                json={"model": ctx.model, "messages": messages},
            )
        # verifiers knows the cause of a refusal, and tells it where a harness fails
        failed = answer.status_code != httpx.codes.OK
        return vf.ProgramResult(
            exit_code=int(failed), stdout="", stderr=answer.text if failed else ""
        )


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the certificates costs as much as the rest of a turn."""
    return httpx.create_ssl_context()
