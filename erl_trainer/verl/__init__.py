"""verl: ERL's stages past one machine, by an agent loop and an advantage that is stamped already.

Tested with verl 0.9.1 against stub servers. A row's loop plays the whole group of its task: first
attempts, reflections, second attempts, as `collect` has them, and gives a trajectory for every
sample, distilled ones too, whose score is the sample's credit. `algorithm.adv_estimator=erl` takes
the score as it is. verl must import this module in every process, on every machine: `paper.yaml`
has Ray set `VERL_USE_EXTERNAL_MODULES` there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from erl_envs.adapters.rows import open_row
from erl_envs.adapters.verl import EnvLoop, ServerPolicy, session, told, versions
from erl_envs.core import Attempt, EnvError, Tokens
from erl_envs.rollout import EnvPool
from erl_trainer.actor import Actor, players
from erl_trainer.config import Config, configure
from erl_trainer.erl import collect
from erl_trainer.memory import Lesson, ReflectionMemory, load_memory
from erl_trainer.types import Sample, Stage

# isort: split
# the adapter above says it if verl is missing
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.core_algos import register_adv_est

READ = frozenset(
    (
        *("group_size", "second_attempt", "threshold", "memory", "concurrency"),
        *("distill", "distill_weight", "distill_mean", "second_policy_loss"),
        *("temperature", "top_p", "max_tokens", "thoughts", "template"),
        *("reflect_temperature", "reflect_top_p", "reflect_max_tokens"),
        *("advantage", "small_group", "min_group"),
    )
)
"""Fields of `Config` that decide what is played and its credit; all others are verl's to say."""


@register_adv_est("erl")  # type: ignore[untyped-decorator]
def stamped(token_level_rewards: Any, response_mask: Any, **_: Any) -> tuple[Any, Any]:
    """Each trajectory's score, which is its credit, on every token that was sampled.

    Args:
        token_level_rewards: Scores, shape B × T; a trajectory's is their sum.
        response_mask: Which tokens were sampled, shape B × T.

    Returns:
        Advantages and returns, shape B × T.
    """
    credit = token_level_rewards.sum(-1, keepdim=True) * response_mask
    return credit, credit


class Credited(AgentLoopOutput):  # type: ignore[misc]
    """A trajectory whose score and reward are its own: verl gives all of a loop's the last one's.

    Attributes:
        credit: The score.
    """

    credit: float

    def as_dict(self) -> dict[str, Any]:
        """Verl's columns."""
        self.reward_score = self.credit
        self.extra_fields["reward_extra_info"] = {"reward": self.extra_fields["reward"]}
        found: dict[str, Any] = super().as_dict()
        del found["credit"]
        return found


class StepMemory:
    """A memory that is read at a step's start and written at its end, within one worker."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held: ReflectionMemory | None = None
        self._step = 0
        self._fresh: list[Lesson] = []

    def at(self, step: int, kind: str) -> ReflectionMemory:
        """What earlier steps left."""
        if self._held is None:
            self._held = load_memory(kind)
        if step > self._step:
            self._held.store(self._fresh)
            self._step, self._fresh = step, []
        return self._held

    def keep(self, lessons: list[Lesson]) -> None:
        """Take lessons for the steps to come."""
        self._fresh += lessons


MEMORY = StepMemory()
"""This worker's: verl's workers share nothing."""


class ErlLoop(EnvLoop):
    """Plays a task's whole group; `rollout.n` must be 1."""

    def __init__(self, *args: Any, erl: Mapping[str, Any], **kwargs: Any) -> None:
        """Args: args, kwargs: verl's; erl: `READ` fields of `Config`, a `preset` if not `paper`.

        Raises:
            ValueError: The configuration is not valid, or asks for what verl cannot carry.
        """
        for name in {"max_tokens", "template"} & set(kwargs):
            raise ValueError(f"ErlLoop does not read {name} here: give it within `erl`")
        super().__init__(*args, **kwargs)
        fields = {name: erl[name] for name in erl}
        preset = fields.pop("preset", "paper")
        if ignored := sorted(set(fields) - READ):
            raise ValueError(
                f"ErlLoop does not read {ignored[0]!r}; it reads {', '.join(sorted(READ))}"
            )
        # the paper's three updates a step are not verl's
        self.erl: Config = configure(preset, "erl", **fields, updates="joint")
        if self.erl.distill == "on_policy_kl":
            raise ValueError("verl cannot carry distill 'on_policy_kl': take 'cross_entropy'")
        if self.rollout_config.n != 1:
            raise ValueError("ErlLoop plays whole groups: set rollout.n=1, and group_size here")

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> list[AgentLoopOutput]:
        """Play a group.

        Args:
            sampling_params: verl's; those of `Config` go before them.
            **row: The dataset's columns.

        Returns:
            A trajectory for each sample.

        Raises:
            ValueError: The row names no task, or a prompt is longer than `prompt_length`.
            EnvError: The environment failed all of the attempts.
        """
        cfg, (_, step) = self.erl, session(row)
        _, task = open_row(row["env"], row["options"], row["task"])
        policy = ServerPolicy(self, sampling_params, cfg.history, cfg.template)
        pool = EnvPool({task.env: json.loads(row["options"])})
        actor = Actor(pool, players(cfg, policy, policy), cfg.concurrency)
        memory, began = MEMORY.at(step, cfg.memory), time.perf_counter()
        played = await self.in_thread(lambda: collect([task], actor, memory, cfg, step))
        MEMORY.keep(played.lessons)
        if not played.samples:
            raise EnvError(played.trials[0].first.error or "nothing was sampled")
        spent = AgentLoopMetrics(generate_sequences=time.perf_counter() - began)
        attempts = {
            (stage, tuple(part.ids)): a
            for t in played.trials
            for stage, a in ((Stage.ATTEMPT_1, t.first), (Stage.ATTEMPT_2, t.second))
            if a is not None
            for part in a.tokens
        }
        ends = [_told(attempts.get((s.stage, tuple(s.ids)))) for s in played.samples]
        return [
            self._trajectory(s, spent, {**end, **versions(policy)})
            for s, end in zip(played.samples, ends, strict=True)
        ]

    def _trajectory(self, s: Sample, spent: Any, extra: Mapping[str, Any]) -> Credited:
        # a distilled row's tokens were sampled under another prompt: nobody has their
        # log-probabilities under this one, and verl wants all rows alike
        found = self.columns(Tokens(s.ids, s.sampled, s.logprobs), scored=False)
        weight = self.erl.distill_weight if s.kind == "imitate" else 1.0
        return Credited(
            **found,
            credit=weight * s.advantage,
            reward_score=s.reward,
            num_turns=1 + sum(b and not a for a, b in zip(s.sampled, s.sampled[1:], strict=False)),
            metrics=spent,
            extra_fields={
                **extra,
                "stage": str(s.stage),
                "reward": s.reward,
                "reward_extra_info": {"reward": s.reward},
            },
        )


def _told(attempt: Attempt | None) -> dict[str, Any]:
    """An attempt's end; empty columns for a row that is no attempt: verl wants all rows alike."""
    if attempt is not None:
        return told(attempt)
    return {"feedback": "", "outcome": "", "turn_scores": [], "tool_rewards": []}
