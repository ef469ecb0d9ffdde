"""ERL for TRL users: `collect` as the `rollout_func` of an unchanged GRPOTrainer.

TRL takes a fixed number of rows a prompt, and as a row's advantage its reward less its group's
mean. So a task's group has a row for each sample that may come of it, blank where none came, and
one more, blank too, whose reward makes the mean zero: a row's advantage then is the credit that
`collect` stamped on it. With one update a generation the ratio is one and nothing is clipped, so
TRL's loss has for a row the gradient of -credit × log π: policy gradient for attempts and
reflections, and for distilled rows, told the original prompt, weighted cross-entropy. Credits are
scaled by how many tokens there are of a kind, as TRL divides by those of all.

Tested with TRL 1.16.0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from erl_envs.adapters.rows import rows
from erl_envs.adapters.trl.text import TextRollout, columns, step_seed
from erl_envs.core import Message, Task, Tokens
from erl_envs.rollout import EnvPool
from erl_trainer.actor import Actor, players
from erl_trainer.config import Config
from erl_trainer.erl import Step, collect
from erl_trainer.losses import token_weight
from erl_trainer.memory import load_memory
from erl_trainer.processes import gather
from erl_trainer.types import Kind, Sample


class ErlRollout:
    """TRL's `rollout_func` that plays ERL's stages; its memory lives as long as it does.

    In evaluation it plays first attempts only, as `TextRollout` does. No checkpoint of TRL's holds
    the memory: `memory.state` and `memory.load` carry it.

    Attributes:
        rows: The dataset to train on.
        eval_rows: The dataset to evaluate on.
        settings: What GRPOConfig must say, by name.
        memory: What earlier rulebooks it holds.
        step: What the last call collected.
    """

    def __init__(self, config: Config) -> None:
        """Get the tasks ready.

        Args:
            config: Which stages there are; what it says of learning, GRPOConfig says here, but
                for advantages, aggregation and the weight of distillation.

        Raises:
            ValueError: The configuration asks for what TRL cannot carry, or two of its tasks have
                one prompt (see `TextRollout`).
        """
        check(config)
        self.config = config
        self.rows = rows(config.env, config.train_split, **config.options)
        held_out = rows(config.env, config.eval_split, **config.options)
        self.eval_rows = held_out[: config.eval_tasks or None]
        self.memory = load_memory(config.memory)
        self.settings: dict[str, Any] = {
            "num_generations": rows_per_task(config),
            "scale_rewards": "none",
            "loss_type": "dapo",
            "num_iterations": 1,
            "temperature": config.temperature,
        }
        self.step: Step | None = None
        played = (config.max_tokens, config.concurrency, config.template)
        self._text = TextRollout(self.rows, *played)
        self._judge = TextRollout(self.eval_rows, *played)
        self._pool = EnvPool({config.env: config.options})

    def __call__(self, prompts: Sequence[Sequence[Message]], trainer: Any) -> dict[str, Any]:
        """Play a step.

        Args:
            prompts: Of this process: each task's as often as it has rows, one after another.
            trainer: The GRPOTrainer.

        Returns:
            TRL's fields, and for `erl_credit` of each row `credit`, `stage` ("" where it is blank)
            and `reward`.

        Raises:
            ValueError: GRPOConfig does not say what `settings` does.
        """
        if not trainer.model.training:
            played = self._judge(prompts, trainer)
            return {**played, "credit": played["reward"], "stage": ["eval"] * len(prompts)}
        self._check(trainer)
        tasks = self._tasks(prompts)
        policy, seed = self._text.policy(trainer), step_seed(trainer)
        policy.model.eval()
        try:
            who = players(self.config, policy, policy)
            actor = Actor(self._pool, who, self.config.concurrency)
            step = collect(tasks, actor, self.memory, self.config, seed)
        finally:
            policy.model.train()
        self.memory.store(gather(step.lessons))
        self.step = step
        return arrange(len(tasks), step.samples, self.config, policy.chat.stop_ids[0])

    def _tasks(self, prompts: Sequence[Sequence[Message]]) -> list[Task]:
        size = self.settings["num_generations"]
        groups = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        if any(len(group) < size or any(p != group[0] for p in group) for group in groups):
            raise ValueError(
                f"a process must have all {size} rows of a task: make "
                "per_device_train_batch_size × steps_per_generation a multiple of them"
            )
        asked = [group[0] for group in groups]
        # a board that comes twice is each time another of its tasks: random streams are by task
        return [self._text.open(p, asked[:i].count(p))[1] for i, p in enumerate(asked)]

    def _check(self, trainer: Any) -> None:
        args = trainer.args
        for name, value in self.settings.items():
            if getattr(args, name) != value:
                raise ValueError(
                    f"ERL needs GRPOConfig({name}={value!r}), not {getattr(args, name)!r}; "
                    "pass **rollout.settings"
                )
        if args.steps_per_generation > args.gradient_accumulation_steps:
            raise ValueError(
                "ERL needs one update a generation: leave steps_per_generation as it is"
            )


def erl_credit(
    credit: list[float | None],
    stage: list[str],
    reward: list[float | None],
    log_metric: Any = None,
    **_: Any,
) -> list[float | None]:
    """TRL's reward function for `ErlRollout`: logs each stage's mean reward, gives credit."""
    found = defaultdict(list)
    for name, paid in zip(stage, reward, strict=True):
        if name and paid is not None:
            found[name].append(paid)
    if log_metric is not None:
        for name, paid_by in found.items():
            log_metric(f"reward/{name}", fmean(paid_by))
    return credit


def check(config: Config) -> None:
    """See that TRL can carry a configuration.

    Raises:
        ValueError: It cannot.
    """
    distills = config.distill != "none"
    for cannot, why in (
        (
            config.thoughts == "strip",
            "without its earlier thoughts an attempt is several: TRL takes one sequence an attempt",
        ),
        (config.distill == "on_policy_kl", "distill 'on_policy_kl' needs a teacher's logits"),
        (config.updates != "joint", "updates 'staged' need three optimizer steps"),
        (config.minibatches > 1, "minibatches are GRPOConfig's affair"),
        (config.kl_weight > 0, "kl_weight is GRPOConfig's `beta`"),
        (config.reflector != "policy", "only the policy reflects"),
        (
            distills and config.temperature != 1,
            "TRL would divide the distilled logits by the temperature too: distill at 1",
        ),
    ):
        if cannot:
            raise ValueError(f"TRL cannot carry this configuration: {why}")


def rows_per_task(config: Config) -> int:
    """How many rows a task's group has: of every sample that may come, and the balance."""
    stages = 1
    if config.second_attempt != "none" and config.second_policy_loss:
        stages += 2 if config.second_attempt == "reflection" else 1
    stages += config.distill != "none"
    return stages * config.group_size + 1


def arrange(groups: int, samples: Sequence[Sample], config: Config, blank: int) -> dict[str, Any]:
    """A step's samples as TRL's rows. Any group may hold any sample: its balance evens it out.

    Args:
        groups: As many as the step has tasks.
        samples: Of this process.
        config: Sizes and weights.
        blank: The id that a blank row holds.
    """
    scale, room = scales(samples, config), rows_per_task(config) - 1
    sequences: list[Tokens | None] = []
    credit: list[float] = []
    stage: list[str] = []
    reward: list[float | None] = []
    for start in range(0, groups * room, room):
        own = samples[start : start + room]
        blanks = room - len(own) + 1
        given = [s.advantage * scale[s.kind] for s in own]
        sequences += [*(Tokens(s.ids, s.sampled, s.logprobs) for s in own), *[None] * blanks]
        credit += [*given, *[0.0] * (blanks - 1), -sum(given)]
        stage += [*(str(s.stage) for s in own), *[""] * blanks]
        reward += [*(s.reward for s in own), *[None] * blanks]
    return {**columns(sequences, blank), "credit": credit, "stage": stage, "reward": reward}


def scales(samples: Sequence[Sample], config: Config) -> Mapping[Kind, float]:
    """What each kind's credit is multiplied by, as TRL divides by the tokens of all kinds."""
    counts = gather([(s.kind, sum(s.sampled)) for s in samples])
    everything = sum(tokens for _, tokens in counts)
    found: dict[Kind, float] = {}
    for kind in {kind for kind, _ in counts}:
        own = [tokens for k, tokens in counts if k == kind]
        each = token_weight(config.aggregation, sum(own), len(own), config.constant)
        if kind != "policy":
            each *= config.distill_weight
        found[kind] = each * everything
    return found
