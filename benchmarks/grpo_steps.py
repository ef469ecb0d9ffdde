"""GRPO steps by our trainer or by TRL's GRPOTrainer: the same model, tasks, group and lengths.

`python benchmarks/grpo_steps.py ours|trl MODEL`, one thread; prints a line of JSON. A step samples
`TASKS` × `GROUP` attempts of FrozenLake and makes one optimizer update; the first step of `STEPS`
is left out. Each side runs in a process of its own, whose peak memory it reports.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import erl_envs
from erl_envs import tasks
from erl_envs.core import Task
from erl_envs.policies.nano import OPTIONS
from erl_envs.policies.transformers import load

TASKS, GROUP, STEPS = 8, 8, 4
MAX_TOKENS, LR = 32, 1e-5
OPTIONS_OF_ENV = OPTIONS["frozenlake"]
ROWS, TOKEN_BUDGET = 16, 4096
"""A micro-batch: TRL counts sequences, most of them under 256 tokens here; we count tokens."""


def ours(model: str) -> list[dict[str, float]]:
    """Each step's seconds and tokens."""
    from erl_trainer.config import configure
    from erl_trainer.train import Run

    config = configure(
        "default",
        "grpo",
        model=model,
        env_options=OPTIONS_OF_ENV,
        tasks_per_step=TASKS,
        group_size=GROUP,
        max_tokens=MAX_TOKENS,
        lr=LR,
        dtype="float32",
        token_budget=TOKEN_BUDGET,
        loggers=(),
    )
    loaded, tokenizer = load(model)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, loaded.float(), tokenizer, Path(folder))
        for _ in range(STEPS):
            before, began = dict(run.totals), time.perf_counter()
            metrics, collected = run.train_step()
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


class Plays:
    """TRL's rollout function: every live attempt's next message in one `generate`, turn by turn."""

    def __init__(self, chosen: Sequence[Task], tokenizer: Any) -> None:
        self.tasks = {task.id: task for task in chosen}
        self.tokenizer = tokenizer
        self.found: list[dict[str, float]] = []

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """Play; token ids, their log-probabilities, which of them were sampled, rewards."""
        began = time.perf_counter()
        model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), self.tokenizer
        envs: list[Any] = []
        messages: list[list[dict[str, str]]] = []
        ids: list[list[int]] = []
        starts: list[int] = []
        for prompt in prompts:
            env = erl_envs.make("frozenlake", **OPTIONS_OF_ENV)
            observation, _ = env.reset(
                options={"task": self.tasks[prompt[0]["content"]]}, seed=len(envs)
            )
            envs.append(env)
            messages.append(
                [
                    {"role": "system", "content": env.system_prompt},
                    {"role": "user", "content": observation},
                ]
            )
            ids.append(self._encode(messages[-1]))
            starts.append(len(ids[-1]))
        sampled: list[list[int]] = [[] for _ in envs]
        logprobs: list[list[float]] = [[] for _ in envs]
        rewards = [0.0] * len(envs)
        live = list(range(len(envs)))
        model.eval()
        while live:
            batch = tokenizer.pad({"input_ids": [ids[i] for i in live]}, return_tensors="pt")
            out = model.generate(
                **batch,
                max_new_tokens=MAX_TOKENS,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                output_logits=True,
                return_dict_in_generate=True,
            )
            width = batch["input_ids"].shape[1]
            new_BT = out.sequences[:, width:]
            logp_BT = torch.stack(
                [
                    logits.float().log_softmax(-1).gather(1, new_BT[:, t : t + 1])[:, 0]
                    for t, logits in enumerate(out.logits)
                ],
                1,
            )
            still = []
            for row, i in enumerate(live):
                new = new_BT[row].tolist()
                if tokenizer.eos_token_id in new:
                    new = new[: new.index(tokenizer.eos_token_id) + 1]
                ids[i] += new
                sampled[i] += [1] * len(new)
                logprobs[i] += logp_BT[row, : len(new)].tolist()
                text = tokenizer.decode(new, skip_special_tokens=True)
                observation, reward, ended, cut, _ = envs[i].step(text)
                rewards[i] += reward
                if ended or cut:
                    continue
                messages[i] += [
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": observation},
                ]
                said = self._encode([*messages[i][:1], messages[i][-1]])
                answer = said[len(self._encode(messages[i][:1], more=False)) :]
                ids[i] += answer
                sampled[i] += [0] * len(answer)
                logprobs[i] += [0.0] * len(answer)
                still.append(i)
            live = still
        model.train()
        self.found.append(
            {
                "rollout": time.perf_counter() - began,
                "sampled": sum(map(sum, sampled)),
                "sequence": sum(map(len, ids)),
                "reward": sum(rewards) / len(rewards),
            }
        )
        return {
            "prompt_ids": [row[:start] for row, start in zip(ids, starts, strict=True)],
            "completion_ids": [row[start:] for row, start in zip(ids, starts, strict=True)],
            "logprobs": logprobs,
            "env_mask": sampled,
            "reward": rewards,
        }

    def _encode(self, messages: Any, more: bool = True) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=more
        )
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found


def trl(model: str) -> list[dict[str, float]]:
    """Each step's seconds and tokens."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    chosen = tasks.load("frozenlake", "small-train", **OPTIONS_OF_ENV)[: TASKS * STEPS]
    loaded, tokenizer = load(model)
    tokenizer.padding_side = "left"
    plays = Plays(chosen, tokenizer)
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=ROWS,
            gradient_accumulation_steps=TASKS * GROUP // ROWS,
            generation_batch_size=TASKS * GROUP,
            num_generations=GROUP,
            max_completion_length=2048,
            learning_rate=LR,
            lr_scheduler_type="constant",
            max_steps=STEPS,
            temperature=1.0,
            beta=0.0,
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
            reward_funcs=lambda reward, **_: reward,
            args=args,
            train_dataset=Dataset.from_list(
                [{"prompt": [{"role": "user", "content": task.id}]} for task in chosen]
            ),
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
    side, model = sys.argv[1:]
    torch.manual_seed(0)
    steps = {"ours": ours, "trl": trl}[side](model)[1:]
    found = {name: statistics.median(step[name] for step in steps) for name in steps[0]}
    found["sampled_per_s"] = found["sampled"] / found["rollout"]
    found["trained_per_s"] = found["sequence"] / found["training"]
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
