"""verl: an agent loop that plays the environments with verl's rollout servers.

Tested with verl 0.9.1. Rows name it by `agent_name`, and the file that
`actor_rollout_ref.rollout.agent.agent_loop_config_path` gives says where it is (`loops.yaml`). The
ids that the servers sampled are those that verl trains on: nothing is encoded again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, TypedDict, TypeVar
from uuid import uuid4

from erl_envs.adapters.rows import one_sequence, open_row, rows
from erl_envs.adapters.versions import require
from erl_envs.core import Attempt, EnvError, Message, Tokens
from erl_envs.policies.base import Conversation, Sampling, Thoughts
from erl_envs.policies.chat import ChatTokens
from erl_envs.policies.local import Generated, Local
from erl_envs.rollout import Job, Player, attempt, drive

require("verl", "0.9.1")

from verl.experimental.agent_loop.agent_loop import (  # noqa: E402 - its absence is told above
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
)

T = TypeVar("T")

# an attempt waits in a thread for its servers; a worker has one for each of its trajectories
_THREADS = ThreadPoolExecutor(512, "erl_envs")


class VerlRow(TypedDict):
    """One task as a row of verl's dataset.

    Attributes:
        prompt: What a policy is told, for verl's length filter; the environment says it again.
        agent_name: Which loop plays it.
        data_source: By what verl's validation metrics are told apart: the environment.
        env: The environment's id.
        options: Its options, JSON.
        task: The task, JSON.
        extra_info: The row's number.
    """

    prompt: list[Message]
    agent_name: str
    data_source: str
    env: str
    options: str
    task: str
    extra_info: dict[str, int]


def verl_rows(env: str, split: str, agent_name: str = "erl_envs", **options: Any) -> list[VerlRow]:
    """The tasks of a split as rows; write them with pandas or datasets as a Parquet file.

    Raises:
        ValueError: There is no such environment, split or option; the message lists the valid ones.
    """
    return [
        VerlRow(
            prompt=row["prompt"],
            agent_name=agent_name,
            data_source=f"erl_envs/{env}",
            env=row["env"],
            options=row["options"],
            task=row["task"],
            extra_info={"index": number},
        )
        for number, row in enumerate(rows(env, split, **options))
    ]


class ServerPolicy(Local):
    """verl's rollout servers, asked from a thread beside the event loop.

    Attributes:
        scored: Whether the servers gave log-probabilities for all they sampled.
        steps: Versions of the weights that sampled, where verl tells them.
    """

    spec = revision = "verl"

    def __init__(
        self,
        loop: AgentLoopBase,
        params: dict[str, Any],
        thoughts: Thoughts | None = None,
        template: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Look at the chat template.

        Args:
            loop: Whose servers to ask.
            params: verl's sampling parameters.
            thoughts: What becomes of earlier turns' thoughts; None for what the template does.
            template: What the chat template is told beside the messages.

        Raises:
            ValueError: There is no template, it fails, or it takes no such thing.
        """
        eos = loop.tokenizer.eos_token_id
        stop_ids = [] if eos is None else [eos]
        self.take_chat(
            ChatTokens(loop.tokenizer, stop_ids, "the trained model", thoughts, template)
        )
        self.context = loop.rollout_config.prompt_length + loop.rollout_config.response_length
        self.scored = True
        self.steps: list[int] = []
        self._servers, self._events, self._params = loop.server_manager, loop.loop, params

    def sampling(self, max_tokens: int) -> Sampling:
        """Verl's own sampling parameters."""
        given = self._params
        top_k = max(0, given.get("top_k", 0))  # verl and vLLM write -1 for none
        return Sampling(given["temperature"], given.get("top_p", 1.0), top_k, max_tokens)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        """Continue all conversations at once."""
        asked = asyncio.run_coroutine_threadsafe(self._all(conversations, sampling), self._events)
        return asked.result()

    async def _all(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        return await asyncio.gather(*(self._one(c, sampling) for c in conversations))

    async def _one(self, conversation: Conversation, sampling: Sampling) -> Generated:
        # servers keep a conversation's cache by its request id
        conversation.past = conversation.past or uuid4().hex
        room = self.context - len(conversation.ids)
        found = await self._servers.generate(
            request_id=conversation.past,
            prompt_ids=list(conversation.ids),
            sampling_params={
                **self._params,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k or -1,
                "max_tokens": min(sampling.max_tokens, room),
                "stop_token_ids": list(self.chat.stop_ids),
            },
        )
        ids = list(found.token_ids)
        self.scored = self.scored and found.log_probs is not None
        for name in ("min_global_steps", "max_global_steps"):
            if found.extra_fields.get(name) is not None:
                self.steps.append(found.extra_fields[name])
        stopped = bool(ids) and ids[-1] in self.chat.stop_ids
        return Generated(ids, list(found.log_probs or [0.0] * len(ids)), stopped)


class EnvLoop(AgentLoopBase):
    """Plays one attempt at a row's task.

    The attempt's `feedback` and `outcome` come as columns of the batch (`extra_fields`); `outcome`
    tells lost from out of turns. Where the environment fails, the loop raises, and verl drops the
    task's group. An attempt is one trajectory, so a message's thoughts stay in what follows.
    """

    def __init__(
        self,
        *args: Any,
        max_tokens: int = 1024,
        template: Mapping[str, Any] = MappingProxyType({}),
        **kwargs: Any,
    ) -> None:
        """Args: args, kwargs: verl's; max_tokens: most of one message; template: for the chat's."""
        super().__init__(*args, **kwargs)
        self.max_tokens, self.template = max_tokens, template

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Play.

        Args:
            sampling_params: verl's.
            **row: The dataset's columns.

        Raises:
            ValueError: The row names no task, or its prompt is longer than `prompt_length`.
            EnvError: The environment failed.
        """
        env, task = open_row(row["env"], row["options"], row["task"])
        job = Job(task, *session(row))
        policy = ServerPolicy(self, sampling_params, "keep", self.template)
        player = Player(policy, policy.sampling(self.max_tokens))
        began = time.perf_counter()
        [played] = await self.in_thread(
            lambda: list(drive([attempt(env, job, "attempt_1")], {"actor": player}, 1))
        )
        if not played.valid:
            raise EnvError(str(played.error))
        return AgentLoopOutput(
            **self.columns(one_sequence(played.tokens), policy.scored),
            reward_score=played.reward,
            num_turns=len(played.messages) - 1,
            metrics=AgentLoopMetrics(generate_sequences=time.perf_counter() - began),
            extra_fields={**told(played), **versions(policy)},
        )

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What `work` gives, which may wait; the event loop goes on meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(_THREADS, work)

    def columns(self, tokens: Tokens | None, scored: bool) -> dict[str, Any]:
        """Token sequences as verl takes them: cut before the first sampled id.

        Args:
            tokens: What was sampled.
            scored: Whether its log-probabilities are the servers'.

        Raises:
            ValueError: The prompt is longer than `prompt_length`, or fills the context.
        """
        longest = self.rollout_config.prompt_length
        sampled = [] if tokens is None else list(tokens.sampled)
        cut = sampled.index(True) if True in sampled else len(sampled)
        if tokens is None or cut > longest or cut == len(sampled):
            raise ValueError(f"a prompt has {cut} tokens; rollout.prompt_length is {longest}")
        end = cut + self.rollout_config.response_length
        return {
            "prompt_ids": list(tokens.ids[:cut]),
            "response_ids": list(tokens.ids[cut:end]),
            "response_mask": [int(own) for own in sampled[cut:end]],
            "response_logprobs": list(tokens.logprobs[cut:end]) if scored else None,
        }


def session(row: dict[str, Any]) -> tuple[int, int]:
    """Which of a task's samples a row is, and the seed of its step's streams."""
    return int(row.get("session_id", row.get("priority", 0))), int(row.get("global_steps", 0))


def told(played: Attempt) -> dict[str, Any]:
    """An attempt's end, and the columns that verl's own loops fill."""
    return {
        "feedback": played.feedback,
        "outcome": played.outcome,
        "reward_extra_info": {"reward": played.reward},
        "turn_scores": [turn.reward for turn in played.turns],
        "tool_rewards": [],
    }


def versions(policy: ServerPolicy) -> dict[str, int | None]:
    """The oldest and newest weights that sampled, by which verl's buffer knows stale ones."""
    return {
        "min_global_steps": min(policy.steps, default=None),
        "max_global_steps": max(policy.steps, default=None),
    }
