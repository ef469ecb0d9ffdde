"""GRPO steps by our trainer or by TRL's GRPOTrainer: the same model, tasks, group and lengths.

`python benchmarks/grpo_steps.py SIDE MODEL SIZES`, one thread; prints a line of JSON. SIDE is
`ours`; `trl`, whose rollout function samples as TRL does, a message at a time; or `adapter`: TRL
with our rollout function. SIZES are the fields of `Sizes`, as JSON. A step samples attempts of
FrozenLake and makes one optimizer update; the first step is left out. Each side runs in a process
of its own, whose peak memory it reports.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from erl_envs.adapters.rows import rows
from erl_envs.policies.base import Conversation, Sampling
from erl_envs.policies.local import Generated
from erl_envs.policies.nano import OPTIONS
from erl_envs.policies.transformers import Transformers, load

Side = Callable[[str, "Sizes"], list[dict[str, float]]]

MAX_TOKENS, LR = 32, 1e-5
ROWS, TOKEN_BUDGET = 16, 4096
"""A micro-batch: TRL counts sequences, most of them under 256 tokens here; we count tokens."""


@dataclass(frozen=True)
class Sizes:
    """What is run.

    Attributes:
        tasks: Of a step.
        group: Attempts of each task.
        steps: How many.
        turns: Of an attempt.
        kl: Weight of the KL term: above 0, or we would not learn what has no advantage, and TRL
            would.
    """

    tasks: int
    group: int
    steps: int
    turns: int
    kl: float

    @property
    def options(self) -> dict[str, Any]:
        """Of the environment."""
        return {**OPTIONS["frozenlake"], "max_turns": self.turns}


def ours(model: str, sizes: Sizes) -> list[dict[str, float]]:
    """Each step's seconds and tokens."""
    from erl_trainer.config import configure
    from erl_trainer.train import Run

    config = configure(
        "default",
        "grpo",
        model=model,
        env_options=sizes.options,
        tasks_per_step=sizes.tasks,
        group_size=sizes.group,
        max_tokens=MAX_TOKENS,
        lr=LR,
        kl_weight=sizes.kl,
        dtype="float32",
        token_budget=TOKEN_BUDGET,
        loggers=(),
    )
    loaded, tokenizer = load(model)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, loaded.float(), tokenizer, Path(folder))
        for _ in range(sizes.steps):
            before, began = dict(run.totals), time.perf_counter()
            collected = run.train_step()
            metrics = run.line or {}
            found.append(
                {
                    "step": time.perf_counter() - began,
                    "rollout": metrics["time/rollout"],
                    "training": metrics["time/training"],
                    "sampled": run.totals["tokens/sampled"] - before.get("tokens/sampled", 0),
                    "sequence": sum(len(s.ids) for s in collected.samples),
                    "reward": metrics["train/reward"],
                }
            )
    return found


class Generating(Transformers):
    """The model, sampled by TRL: each message reads its whole conversation again."""

    trainer: Any = None

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        """One call of what TRL's own loops sample with; it gives no log-probabilities."""
        told = [conversation.ids for conversation in conversations]
        sampled, _ = self.trainer._generate_single_turn(told, None, {}, 1)
        ends = self.chat.stop_ids
        return [Generated(ids, [0.0] * len(ids), ids[-1] in ends) for ids in sampled]


class Timed:
    """A TRL rollout function, and what each call took and gave."""

    def __init__(self, rollout: Any) -> None:
        self.rollout = rollout
        self.found: list[dict[str, float]] = []

    def __call__(self, prompts: Any, trainer: Any) -> dict[str, Any]:
        began = time.perf_counter()
        played: dict[str, Any] = self.rollout(prompts, trainer)
        self.found.append(
            {
                "rollout": time.perf_counter() - began,
                "sampled": sum(map(sum, played["env_mask"])),
                "sequence": sum(map(len, [*played["prompt_ids"], *played["completion_ids"]])),
                "reward": statistics.fmean(played["reward"]),
            }
        )
        return played


def trl(model: str, sizes: Sizes, adapter: bool = False) -> list[dict[str, float]]:
    """Each step's seconds and tokens; sampled by TRL itself, or by our adapter."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from erl_envs.adapters.trl import TextRollout, env_reward

    played = rows("frozenlake", "small-train", **sizes.options)[: sizes.tasks * sizes.steps]
    data = Dataset.from_list(played)
    loaded, tokenizer = load(model)
    tokenizer.padding_side = "left"
    attempts = sizes.tasks * sizes.group
    together = min(ROWS, attempts)

    class OwnRollout(TextRollout):
        def policy(self, trainer: Any) -> Transformers:
            if self._policy is None:
                policy = Generating(model, trainer.model, trainer.processing_class)
                self._policy, policy.trainer = policy, trainer
            return self._policy

    plays = Timed((TextRollout if adapter else OwnRollout)(data, MAX_TOKENS, attempts))
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=together,
            gradient_accumulation_steps=attempts // together,
            generation_batch_size=attempts,
            num_generations=sizes.group,
            max_completion_length=2048,
            learning_rate=LR,
            lr_scheduler_type="constant",
            max_steps=sizes.steps,
            temperature=1.0,
            generation_kwargs={"max_new_tokens": MAX_TOKENS},
            beta=sizes.kl,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=loaded.float(),
            reward_funcs=env_reward,
            args=args,
            train_dataset=data,
            processing_class=tokenizer,
            rollout_func=plays,
            callbacks=[Clock()],
        )
        began = time.perf_counter()
        trainer.train()
    seconds = [end - start for start, end in zip([began, *ends], ends, strict=False)]
    return [
        {**found, "step": step, "training": step - found["rollout"]}
        for step, found in zip(seconds, plays.found, strict=True)
    ]


def main() -> None:
    torch.set_num_threads(1)
    side, model, sizes = sys.argv[1:]
    torch.manual_seed(0)
    sides: dict[str, Side] = {"ours": ours, "trl": trl, "adapter": partial(trl, adapter=True)}
    timed = sides[side](model, Sizes(**json.loads(sizes)))[1:]
    found = {name: statistics.median(step[name] for step in timed) for name in timed[0]}
    found["sampled_per_s"] = found["sampled"] / found["rollout"]
    found["trained_per_s"] = found["sequence"] / found["training"]
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
