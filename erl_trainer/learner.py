"""Learns from samples that credit is stamped on; how it was found is none of its affair."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from erl_envs.extras import missing_extra
from erl_envs.policies.local import context_length
from erl_trainer.batching import MicroBatch, micro_batches
from erl_trainer.config import Config
from erl_trainer.forward import Scorer, bare, logprobs
from erl_trainer.objective import Objective, Size
from erl_trainer.optimizer import MasterAdamW
from erl_trainer.processes import gather, join, rank_and_size
from erl_trainer.types import Kind, NotFinite, Sample, sampled_ids, task_names

Metrics = dict[str, float]


class Plan(NamedTuple):
    """One optimizer update.

    Attributes:
        batches: This process's micro-batches; every process has as many of each kind.
        sizes: Of each kind, on all processes.
    """

    batches: list[MicroBatch]
    sizes: Mapping[Kind, Size]


class Learner:
    """Trains a causal language model on samples, one optimizer update at a time.

    Launched as several processes (`accelerate launch`, `torchrun`), all call `update` with the same
    samples; each learns a share of them, and weights move as if one had learnt all.

    Attributes:
        model: What is trained; with LoRA, PEFT's model around the one given.
        updates: Optimizer updates made.
    """

    def __init__(self, model: Any, config: Config, pad_id: int, accelerator: Any = None) -> None:
        """Get weights, reference and optimizer ready.

        Args:
            model: On its device, in its dtype. LoRA's adapters go into it.
            config: How to learn.
            pad_id: Token id that fills up rows.
            accelerator: Accelerate's; None takes that of the processes that were launched.

        Raises:
            ValueError: The model cannot be trained: its logits are not its head's, or PEFT is
                missing for LoRA.
        """
        accelerator = accelerator or join()
        self.model, self.updates = model, 0
        self._config, self._pad_id = config, pad_id
        self._context = context_length(bare(model))
        self._scorer: Any = Scorer(model, config.logit_chunk)
        frozen: Any = None
        if config.lora_rank:
            self.model = _with_adapters(model, config)
        elif config.kl_weight:
            frozen = copy.deepcopy(self._scorer).requires_grad_(False).eval()
        if config.gradient_checkpointing:
            bare(model).gradient_checkpointing_enable({"use_reentrant": False})
        if accelerator is not None:
            # FSDP shards only a model and an optimizer together; ours is made of what comes out
            sharded_with = torch.optim.SGD(p for p in model.parameters() if p.requires_grad)
            self._scorer, _ = accelerator.prepare(self._scorer, sharded_with)
            frozen = frozen and frozen.to(accelerator.device)
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self._optimizer = MasterAdamW(trained, config.weight_decay)
        self._objective = Objective(config, self._scorer, self.model, frozen)
        self._device = next(self._scorer.parameters()).device

    def update(self, samples: Sequence[Sample]) -> Metrics:
        """Learn all samples: in one optimizer update, or in `minibatches` random parts.

        Where no sample has anything to learn from there is no optimizer update: its momentum would
        move weights. A policy sample without credit still has its KL term, where there is one and
        `kl_without_credit` is on.

        Args:
            samples: The same on every process.

        Returns:
            Of all processes, `tokens` learnt and optimizer `updates`; and of those updates, the
            mean `lr`, `grad_norm` (before clipping), loss of each kind there is (before
            `distill_weight`, without `kl`), and over policy tokens `ratio`, `clip_share`,
            `sampler_gap` (between trainer's and sampler's log-probabilities, nats), `importance`
            and `kl` where they are on. `skipped` is the share of updates not made.

        Raises:
            ValueError: A sample is malformed, or too long for the model.
            NotFinite: A loss or the gradient is not finite; that update was not made.
        """
        for sample in samples:
            self._check(sample)
        parts = self._config.minibatches
        order = np.random.default_rng([self._config.seed, self.updates]).permutation(len(samples))
        plans = [self._plan([samples[i] for i in order[n::parts]]) for n in range(parts)]
        with self._training():
            olds = [
                [self._objective.old(b) if parts > 1 else None for b in p.batches] for p in plans
            ]
            steps = [self._step(plan, old) for plan, old in zip(plans, olds, strict=True)]
        return merge(steps)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def log_probs(self, ids: Sequence[int]) -> list[float]:
        """The model's log-probability (nats) of each id but the first, after those before.

        Every process must call it: a sharded model computes only when all do.
        """
        ids_T = torch.tensor(ids, device=self._device)
        at_N = torch.arange(len(ids) - 1, device=self._device)
        (logp_N,) = self._scorer(ids_T[None], at_N, logprobs, ids_T[1:])
        if hasattr(self._scorer, "reshard"):
            # no backward pass follows, which would give up the whole weights
            self._scorer.reshard()
        found: list[float] = logp_N.tolist()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Trained weights, the optimizer's state and the number of updates; live, as torch's."""
        return {"optimizer": self._optimizer.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; the model given is still the reference of `kl_weight`.

        Raises:
            ValueError: It is of another model.
        """
        self._optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]

    def _check(self, sample: Sample) -> None:
        longest = max(len(sample.ids), len(sample.teacher_ids))
        if longest > self._context:
            raise ValueError(
                f"a sample of task {sample.task} has {longest} tokens but the model reads "
                f"{self._context}: take one that reads {longest}, or fewer or shorter messages"
            )
        learnt = sampled_ids(sample.ids, sample.sampled)
        if not learnt:
            raise ValueError(f"a sample of task {sample.task} has no sampled token to learn")
        taught = sampled_ids(sample.teacher_ids, sample.teacher_sampled)
        if sample.kind == "match" and learnt != taught:
            raise ValueError(f"a sample of task {sample.task} has other tokens than its teacher")

    def _has_credit(self, sample: Sample) -> bool:
        if sample.kind == "policy":
            return sample.advantage != 0 or (
                self._config.kl_weight > 0 and self._config.kl_without_credit
            )
        return sample.advantage * self._config.distill_weight != 0

    def _plan(self, samples: Sequence[Sample]) -> Plan:
        budget, batches, sizes = self._config.token_budget, [], {}
        for kind in get_args(Kind):
            given = [s for s in samples if s.kind == kind]
            credited = [s for s in given if self._has_credit(s)]
            batches += micro_batches(credited, kind, budget, self._pad_id, self._device)
            sequences = sum(s.share for s in given)
            sizes[kind] = Size(sequences, _tokens(given), _tokens(credited))
        return Plan(batches, sizes)

    def _step(self, plan: Plan, olds: Sequence[torch.Tensor | None]) -> Metrics:
        if not plan.batches:
            return {"tokens": 0.0, "updates": 0.0, "skipped": 1.0}
        sums: Counter[str] = Counter()
        fault: tuple[int, bool, str] | None = None
        norm, (_, size) = 0.0, rank_and_size()
        for number, (batch, old) in enumerate(zip(plan.batches, olds, strict=True)):
            loss, found = self._objective.part(batch, plan.sizes[batch.kind], old)
            # processes average their gradients, but their losses add up
            (loss * size).backward()
            norm = self._optimizer.gather()
            fault = fault or _fault(number, batch, float(loss.detach()), norm)
            sums.update({name: float(value) for name, value in found.items()})
        # all processes raise or none does: one alone would leave the others waiting
        if faults := [other for other in gather([fault]) if other]:
            self._optimizer.clear()
            raise NotFinite(min(faults)[-1])
        lr = self._config.lr * min(1.0, (self.updates + 1) / max(1, self._config.warmup))
        self._optimizer.step(lr, norm, self._config.grad_clip)
        self.updates += 1
        tokens = sum(size.credited for size in plan.sizes.values())
        steady = {"tokens": float(tokens), "updates": 1.0, "skipped": 0.0, "lr": lr}
        everyones = gather([sums])
        means = {name: sum(each[name] for each in everyones) for name in sums}
        return {**means, **steady, "grad_norm": norm}

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Evaluation mode, lest dropout part trainer and sampler; checkpointing needs the other."""
        self._scorer.train(self._config.gradient_checkpointing)
        try:
            yield
        finally:
            self._scorer.eval()


def _with_adapters(model: Any, config: Config) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise missing_extra("LoRA adapters", "train", error) from error
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # adapters start at random: the seed's, and nobody else's stream moves
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return get_peft_model(model, lora)


def _tokens(samples: Sequence[Sample]) -> int:
    return sum(sum(s.sampled) for s in samples)


def _fault(
    number: int, batch: MicroBatch, loss: float, norm: float
) -> tuple[int, bool, str] | None:
    """What is not finite, so that the first sorts first; nothing of a batch without samples."""
    if not batch.tasks or (math.isfinite(loss) and math.isfinite(norm)):
        return None
    by_loss = not math.isfinite(loss)
    what = f"loss is {loss}" if by_loss else f"gradient norm is {norm}"
    told = f"{what} in the micro-batch of tasks {task_names(batch.tasks)} ({batch.kind})"
    return number, not by_loss, told


def merge(updates: Iterable[Metrics]) -> Metrics:
    """Metrics of several updates: sums of counts, means of the rest over those that have it."""
    steps = list(updates)
    merged = {}
    for name in dict.fromkeys(name for step in steps for name in step):
        found = [step[name] for step in steps if name in step]
        merged[name] = sum(found) / (1 if name in ("tokens", "updates") else len(found))
    return merged
