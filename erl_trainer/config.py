"""A run's configuration: one frozen dataclass, documented by its docstring, and presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from erl_envs.options import check
from erl_envs.policies.base import Thoughts
from erl_envs.policies.nano import OPTIONS as NANO
from erl_envs.policies.openai import DEFAULT_URL
from erl_trainer.bounds import check_numbers

Algo = Literal["erl", "grpo"]
Preset = Literal["default", "paper"]
Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)

FREE = frozenset(
    {"token_budget", "logit_chunk", "concurrency", "checkpoint_every", "loggers"}
    | {"server_url", "reflector_url"}
)
"""Fields that may change within a run: what is in memory at a time, what is kept, who is where."""

BEFORE: Mapping[str, Any] = {"distill_mean": "successes"}
"""What runs did before a field was there, where its default is something else."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run.

    Attributes:
        env: Environment id.
        env_options: Its options; unless given `feedback` is transitions and `prompt_style`
            compact, and nano sees what it learnt to see.
        model: `nano`, a folder or a hub id.
        thoughts: What becomes of earlier turns' thoughts in its prompts: `keep`, `strip`, or
            `template`, what its chat template does. Where they are stripped an attempt is learnt
            in several samples, each after what the model really read.
        template: What its chat template is told beside the messages: `{"enable_thinking": false}`.
        train_split: Task set to train on, in a new random order each time through.
        eval_split: Task set to evaluate on.
        eval_tasks: Its first so many tasks; 0 takes all.
        eval_samples: Evaluation attempts of a task (PAPER: n = 4).
        eval_every: Steps between evaluations; there is one before training too. 0 for none.
        steps: Training steps.
        tasks_per_step: Tasks of a step.
        group_size: First attempts of a task.
        seed: Of everything that is drawn.

        second_attempt: What a failed attempt leads to: `none` (GRPO), `reflection` (ERL), or
            `transcript` (the paper's no-reflection ablation: the first attempt itself is shown).
        threshold: First attempts with less reward are tried again (the paper's τ).
        reflector: `policy`, or the policy string of another who reflects; `oracle` writes the true
            rules.
        reflector_url: Server of an `openai:` reflector.
        memory: What of earlier rulebooks the reflector sees: `none`, `last` (the paper), or
            `retrieval` (of the most similar past task).
        distill: How second attempts are internalized: `none`, `cross_entropy` (the paper), or
            `on_policy_kl` (its untested extension).
        distill_weight: Weight of that loss.
        distill_mean: What it is a mean over: `second_attempts`, all of them, as the paper's
            expectation has it; or `successes`, where one success weighs as much as fifty (the
            curves of benchmarks/curves up to November 2026 are of this).
        second_policy_loss: Whether reflections and second attempts have a policy loss.

        temperature: Of attempts in training.
        top_p: Of attempts in training; 1 keeps all.
        reflect_temperature: Of reflections.
        reflect_top_p: Of reflections.
        max_tokens: Most tokens of an attempt's message.
        reflect_max_tokens: Most tokens of a reflection.

        advantage: Of a group's rewards: `mean` subtracts it, `mean_std` also divides by the
            standard deviation (the paper), `raft` takes the reward itself where it is positive.
        small_group: What a group under `min_group` is compared with: `zero` gives it no credit,
            `pool` takes the mean of all the stage's rewards in the step.
        min_group: Least size of a group that is its own baseline.
        aggregation: How token losses become one number: `token_mean`, `seq_mean_token_sum` (the
            paper; a mean over sequences of sums over tokens), or `constant` (that mean divided by
            `constant`).
        constant: Divisor of the `constant` aggregation: a sequence's greatest length, say.
        clip_low: PPO's clip below 1.
        clip_high: PPO's clip above 1.
        dual_clip: Greatest multiple of a negative advantage's loss; None for no bound.
        kl_weight: Of the divergence from the model before training, of policy samples.
        kl: How it is estimated: `k1`, `k2` or `k3` (the paper). Their gradients differ: see
            `erl_trainer.losses.kl_penalty`.
        kl_without_credit: Whether samples without credit have that term too; if so, weights move
            even where in no group the rewards differ.
        importance_cap: Cap of the weight that corrects sampler for trainer; None for no weight.
        updates: `joint` learns a step's samples in one optimizer update; `staged` in three (first
            attempts; reflections and second attempts; internalization), as the paper's code does;
            PPO's ratio then starts at 1 in each, and the importance weight tells what came before.
        minibatches: Optimizer updates that a joint batch is divided into.

        lr: Learning rate, constant after `warmup`.
        warmup: Optimizer updates over which it rises.
        weight_decay: AdamW's.
        grad_clip: Greatest norm of a gradient.
        lora_rank: Rank of LoRA adapters on all linear layers; 0 trains every weight.
        dtype: Of the weights.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        token_budget: Most tokens of a micro-batch, padding included; changes speed and memory, and
            results by rounding alone (which sampling makes another run of the same kind). The
            default fits a CPU's cache; on a GPU take what its memory holds.
        logit_chunk: Tokens whose logits exist at a time.

        backend: Who samples: `transformers` (the trained model itself), `vllm` (in this process),
            or `vllm-server`.
        server_url: Of a `vllm-server`.
        concurrency: Conversations sampled in a batch.
        max_failures: Share of a step's attempts or reflections, or of an evaluation's attempts,
            that may fail outside the policy.

        checkpoint_every: Steps between checkpoints; there is one at the end too.
        sample_every: Steps between those whose samples `samples.jsonl` holds; 0 for none.
        loggers: Besides the files: `tensorboard`, `wandb`, `trackio`.
    """

    env: str = "frozenlake"
    env_options: Mapping[str, Any] = field(default_factory=dict)
    model: str = "nano"
    thoughts: Literal["template", "keep", "strip"] = "template"
    template: Mapping[str, Any] = field(default_factory=dict)
    train_split: str = "small-train"
    eval_split: str = "small-test"
    eval_tasks: int = 100
    eval_samples: int = 4
    eval_every: int = 5
    steps: int = 60
    tasks_per_step: int = 16
    group_size: int = 4
    seed: int = 0

    second_attempt: Literal["none", "reflection", "transcript"] = "reflection"
    threshold: float = 1.0
    reflector: str = "policy"
    reflector_url: str = DEFAULT_URL
    memory: Literal["none", "last", "retrieval"] = "last"
    distill: Literal["none", "cross_entropy", "on_policy_kl"] = "cross_entropy"
    distill_weight: float = 1.0
    distill_mean: Literal["second_attempts", "successes"] = "second_attempts"
    second_policy_loss: bool = True

    temperature: float = 1.0
    top_p: float = 1.0
    reflect_temperature: float = 1.0
    reflect_top_p: float = 1.0
    max_tokens: int = 32
    reflect_max_tokens: int = 96

    advantage: Literal["mean", "mean_std", "raft"] = "mean"
    small_group: Literal["zero", "pool"] = "pool"
    min_group: int = 2
    aggregation: Literal["token_mean", "seq_mean_token_sum", "constant"] = "token_mean"
    constant: int = 1024
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = None
    kl_weight: float = 0.0
    kl: Literal["k1", "k2", "k3"] = "k3"
    kl_without_credit: bool = True
    importance_cap: float | None = 2.0
    updates: Literal["joint", "staged"] = "joint"
    minibatches: int = 1

    lr: float = 1e-4
    warmup: int = 0
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    lora_rank: int = 0
    dtype: Dtype = "float32"
    gradient_checkpointing: bool = False
    token_budget: int = 2048
    logit_chunk: int = 4_096

    backend: Literal["transformers", "vllm", "vllm-server"] = "transformers"
    server_url: str = "http://127.0.0.1:8000"
    concurrency: int = 256
    max_failures: float = 0.2

    checkpoint_every: int = 20
    sample_every: int = 10
    loggers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ValueError: A value is not valid, or two do not go together; the message says which.
        """
        check(self)
        check_numbers(vars(self))
        if self.group_size == 1 and self.second_attempt == "none" and self.advantage != "raft":
            raise ValueError(
                "GRPO with group_size 1 has nothing to compare an attempt with; "
                "take 2 or more, or advantage 'raft'"
            )
        if self.small_group == "zero" and self.min_group > self.group_size:
            raise ValueError(
                f"with small_group 'zero' no group of {self.group_size} has credit under "
                f"min_group {self.min_group}; take at most the group_size, or 'pool'"
            )
        if self.distill != "none" and self.second_attempt == "none":
            raise ValueError("distill needs second attempts; set distill to 'none'")
        if self.distill == "on_policy_kl" and self.second_attempt != "reflection":
            raise ValueError("distill 'on_policy_kl' needs second_attempt 'reflection'")
        if self.updates == "staged" and self.minibatches > 1:
            raise ValueError("minibatches divide joint updates only; set updates to 'joint'")

    @property
    def options(self) -> dict[str, Any]:
        """The environment's options, with the trainer's defaults."""
        usual = NANO.get(self.env, {}) if self.model == "nano" else {"prompt_style": "compact"}
        return {"feedback": "transitions", **usual, **self.env_options}

    @property
    def history(self) -> Thoughts | None:
        """What becomes of earlier turns' thoughts; None for what the template does."""
        return None if self.thoughts == "template" else self.thoughts


GRPO: Mapping[str, Any] = {
    "second_attempt": "none",
    "memory": "none",
    "distill": "none",
    "group_size": 10,
}
"""What makes a configuration GRPO: the stages off, and the paper's matched number of attempts."""

PAPER: Mapping[str, Any] = {
    "train_split": "paper-train",
    "eval_split": "paper-test",
    "eval_tasks": 0,
    "steps": 100,
    "tasks_per_step": 64,
    "lr": 1e-6,
    "temperature": 0.7,
    "reflect_temperature": 0.5,
    "reflect_top_p": 0.9,
    "max_tokens": 1024,
    "reflect_max_tokens": 2048,
    "advantage": "mean_std",
    "small_group": "zero",
    "aggregation": "seq_mean_token_sum",
    "kl_weight": 0.001,
    "updates": "staged",
    "dtype": "bfloat16",
    "gradient_checkpointing": True,
    "token_budget": 32_768,
    "backend": "vllm",
    "env_options": {"prompt_style": "full"},
}
"""The paper's configuration (PAPER: Training), where it differs from ours."""

PAPER_ENVS: Mapping[str, Mapping[str, Any]] = {
    "sokoban": {"steps": 200},
    "hotpotqa": {
        "train_split": "train",
        "env_options": {"data": "hub:distractor", "snippet_chars": 300},
    },
}
"""What of it is an environment's own (PAPER: Table 1; Environments)."""


def configure(preset: Preset, algo: Algo, **fields: Any) -> Config:
    """A configuration: a preset, the algorithm's own settings, then what is given.

    Raises:
        ValueError: An unknown name or field, or a bad value; the message lists the valid ones.
    """
    for what, name, kind in (("algo", algo, Algo), ("preset", preset, Preset)):
        if name not in get_args(kind):
            raise ValueError(f"unknown {what} {name!r}; valid: {', '.join(get_args(kind))}")
    known = {f.name for f in dataclasses.fields(Config)}
    if unknown := sorted(set(fields) - known):
        raise ValueError(f"unknown field {unknown[0]!r}; valid: {', '.join(sorted(known))}")
    its_env = PAPER_ENVS.get(fields.get("env", Config.env), {})
    layers = [PAPER, its_env] if preset == "paper" else []
    base = {k: v for layer in [*layers, GRPO if algo == "grpo" else {}] for k, v in layer.items()}
    if algo == "grpo" and base.get("updates") == "staged":
        base["updates"] = "joint"  # one stage, one update
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    if algo == "grpo" and given.get("second_attempt", "none") != "none":
        raise ValueError("grpo makes no second attempts; take --algo erl")
    own = given.get("env_options", {})
    if isinstance(own, Mapping):  # else the class tells what is wrong with it
        usual = [layer.get("env_options", {}) for layer in layers]
        given["env_options"] = {k: v for options in [*usual, own] for k, v in options.items()}
    return Config(**{**base, **given})


def to_json(config: Config) -> dict[str, Any]:
    """The configuration as JSON, every field."""
    mappings = {name: dict(getattr(config, name)) for name in ("env_options", "template")}
    return {**dataclasses.asdict(config), **mappings}
