"""Learns from samples that credit is stamped on; which algorithm stamped it is none of its affair."""

from __future__ import annotations

import copy
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from erl_envs.extras import missing_extra
from erl_envs.policies.local import context_length
from erl_trainer.batching import MicroBatch, Rows, collate, micro_batches
from erl_trainer.config import Config
from erl_trainer.forward import Scorer, bare, divergences, hidden, logprobs
from erl_trainer.losses import imitation_loss, importance_weight, k3, policy_loss, token_weight
from erl_trainer.types import Kind, Sample

Metrics = dict[str, float]


class NotFinite(RuntimeError):
    """A loss or a gradient is infinite or not a number; the weights are as they were."""


class Count(NamedTuple):
    """How much of a kind an update has, on all processes.

    Attributes:
        sequences: Samples.
        tokens: Their learnt tokens.
        credited: Those of samples that have credit: the others have no gradient and stay out.
        batches: Micro-batches of the process that has most.
    """

    sequences: int
    tokens: int
    credited: int
    batches: int


class Old(NamedTuple):
    """Log-probabilities (nats) before the first update: at temperature 1, and at the policy's."""

    logp_N: torch.Tensor
    tempered_N: torch.Tensor


class Plan(NamedTuple):
    """One optimizer update: its micro-batches, as many on every process, and its size."""

    batches: list[MicroBatch]
    counts: Mapping[Kind, Count]


class Learner:
    """Trains a causal language model on samples, one optimizer update or `minibatches` at a time.

    Launched with several processes (`accelerate launch`, `torchrun`), each gives its own samples,
    perhaps none, and all call `update` as often; weights move as if one had given all of them.

    Attributes:
        model: What is trained; with LoRA, PEFT's model around the one given.
        updates: Optimizer updates made.
    """

    def __init__(self, model: Any, config: Config, pad_id: int, accelerator: Any = None) -> None:
        """Get weights, reference and optimizer ready.

        Weights narrower than float32 are trained as float32 copies, because a step of 1e-6 is
        lost in bfloat16's rounding; the model's own follow the copies.

        Args:
            model: On its device, in its dtype. LoRA adapters go into it.
            config: How to learn.
            pad_id: Token id that fills up rows.
            accelerator: Accelerate's; None makes one where several processes were launched.

        Raises:
            ValueError: The model cannot be trained: its logits are not its head's, or PEFT is
                missing for LoRA. Or the policy's temperature is not above 0.
        """
        if config.temperature <= 0:
            raise ValueError(f"training needs a temperature above 0, got {config.temperature}")
        self.config, self.pad_id, self.updates = config, pad_id, 0
        self.context = context_length(bare(model))
        self._scorer: Any = Scorer(model, config.logit_chunk)
        frozen = config.kl_weight > 0 and config.lora_rank == 0
        self._frozen = copy.deepcopy(self._scorer).requires_grad_(False).eval() if frozen else None
        self.model = _with_adapters(model, config) if config.lora_rank else model
        if config.gradient_checkpointing:
            bare(model).gradient_checkpointing_enable({"use_reentrant": False})
        if accelerator is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator

            accelerator = Accelerator()
        self._accelerator = accelerator
        if accelerator is not None:
            # FSDP shards only a model and an optimizer together; ours is made of what comes out
            trained = [p for p in self._scorer.parameters() if p.requires_grad]
            self._scorer, _ = accelerator.prepare(self._scorer, torch.optim.SGD(trained))
            if self._frozen is not None:
                self._frozen.to(accelerator.device)
        self._weights = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self._masters = {name: _master(weight) for name, weight in self._weights.items()}
        self._optimizer = torch.optim.AdamW(
            self._masters.values(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.device = next(self.model.parameters()).device

    def update(self, samples: Sequence[Sample]) -> Metrics:
        """Learn all samples: one optimizer update, or `minibatches` of a random part each.

        Where no sample has credit there is no optimizer update: its momentum would move weights.

        Args:
            samples: This process's.

        Returns:
            Of all processes: `tokens` learnt from and optimizer `updates` (sums over minibatches),
            `skipped` (1 without credit), `lr`, `grad_norm` (before clipping), a loss of each kind
            there is, and means over policy tokens: `ratio`, `clip_share`, `sampler_gap` (absolute
            difference of log-probabilities, nats), `importance` and `kl` where they are on.

        Raises:
            ValueError: A sample is too long for the model, or malformed.
            NotFinite: The loss or the gradient is not finite; that update was not made.
        """
        for sample in samples:
            self._check(sample)
        parts = self.config.minibatches
        order = np.random.default_rng([self.config.seed, self.updates]).permutation(len(samples))
        plans = [self._plan([samples[i] for i in order[n::parts]]) for n in range(parts)]
        with self._training():
            olds = [[self._old(b) if parts > 1 else None for b in p.batches] for p in plans]
            steps = [self._step(plan, old) for plan, old in zip(plans, olds, strict=True)]
        return _merge(steps)

    def state_dict(self) -> dict[str, Any]:
        """Trained weights, the optimizer's state and the number of updates; live, as torch's."""
        return {
            "weights": {name: master.detach() for name, master in self._masters.items()},
            "optimizer": self._optimizer.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: It is of another model.
        """
        if state["weights"].keys() != self._masters.keys():
            raise ValueError("the checkpoint's weights are not those that this model trains")
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(state["weights"][name])
        self._publish()
        self._optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]

    def _check(self, sample: Sample) -> None:
        longest = max(len(sample.ids), len(sample.teacher_ids))
        if longest > self.context:
            raise ValueError(
                f"a sample of task {sample.task} has {longest} tokens, "
                f"the model reads {self.context}: it needs a context of at least {longest}"
            )
        if sample.kind == "match":
            taught = _learnt(sample.teacher_ids, sample.teacher_sampled)
            if taught != _learnt(sample.ids, sample.sampled):
                raise ValueError(f"a sample of task {sample.task}: its teacher's tokens differ")

    def _has_credit(self, sample: Sample) -> bool:
        if sample.kind == "policy":
            return sample.advantage != 0 or self.config.kl_weight > 0
        return sample.advantage * self.config.distill_weight != 0

    def _plan(self, samples: Sequence[Sample]) -> Plan:
        """Micro-batches of the samples with credit; counts of all of them."""
        cfg, batches, counts = self.config, [], {}
        for kind in get_args(Kind):
            own = [s for s in samples if s.kind == kind]
            credited = [s for s in own if self._has_credit(s)]
            packed = micro_batches(credited, cfg.token_budget, self.pad_id, self.device)
            sizes = len(own), _tokens(own), _tokens(credited), len(packed)
            sequences, tokens, learnt, most = zip(*self._everyone(sizes), strict=True)
            counts[kind] = Count(sum(sequences), sum(tokens), sum(learnt), max(most))
            # processes wait for each other in every forward and backward: all make as many
            idle = collate([], kind, self.pad_id, self.device)
            batches += packed + [idle] * (max(most) - len(packed))
        return Plan(batches, counts)

    def _step(self, plan: Plan, olds: Sequence[Old | None]) -> Metrics:
        """One optimizer update."""
        tokens = sum(count.credited for count in plan.counts.values())
        if not plan.batches:
            return {"tokens": 0.0, "updates": 0.0, "skipped": 1.0}
        self._clear()
        sums: Counter[str] = Counter()
        fault: tuple[int, int, str] | None = None
        for number, (batch, old) in enumerate(zip(plan.batches, olds, strict=True)):
            loss, found = self._loss(batch, plan.counts[batch.kind], old)
            processes = self._accelerator.num_processes if self._accelerator else 1
            (loss * processes).backward()  # they average their gradients; the loss is a sum
            norm = self._gather_gradients()
            fault = fault or _fault(number, batch, float(loss), float(norm))
            sums.update({name: float(value) for name, value in found.items()})
        # all processes raise or none does, else one waits for ever
        if faults := [other for other in self._everyone(fault) if other]:
            self._clear()
            raise NotFinite(min(faults)[-1])
        lr = self.config.lr * min(1.0, (self.updates + 1) / max(1, self.config.warmup))
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        clip_grads_with_norm_(self._masters.values(), self.config.grad_clip, norm)
        self._optimizer.step()
        self._publish()
        self._clear()
        self.updates += 1
        everyones = self._everyone(dict(sums))
        means = {name: sum(each[name] for each in everyones) for name in sums}
        steady = {"tokens": float(tokens), "updates": 1.0, "skipped": 0.0, "lr": lr}
        return {**means, **steady, "grad_norm": float(norm)}

    def _loss(
        self, batch: MicroBatch, count: Count, old: Old | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """A micro-batch's part of the update's loss, and of its metrics: both add up."""
        cfg, rows = self.config, batch.rows
        if batch.kind == "policy":
            return self._policy(batch, count, old)
        if batch.kind == "imitate":
            logp_N, _ = self._score(rows)
            loss_N = imitation_loss(logp_N, batch.adv_N)
        else:
            assert batch.teacher is not None
            teacher = batch.teacher
            with torch.no_grad():
                (teacher_ND,) = self._scorer(*teacher[:3], hidden)
            (apart_N,) = self._scorer(*rows[:3], divergences, teacher_ND)
            loss_N = apart_N * batch.adv_N
        loss = loss_N.sum() / count.tokens
        return cfg.distill_weight * loss, {f"loss/{batch.kind}": loss.detach()}

    def _policy(
        self, batch: MicroBatch, count: Count, old: Old | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        cfg, share = self.config, 1 / count.credited
        weight = token_weight(cfg.aggregation, count.tokens, count.sequences, cfg.constant)
        reference_N = self._reference(batch.rows) if cfg.kl_weight else None
        logp_N, tempered_N = self._score(batch.rows, cfg.temperature)
        old = old or Old(logp_N.detach(), tempered_N.detach())
        loss_N, ratio_N, clipped_N = policy_loss(
            tempered_N, old.tempered_N, batch.adv_N, cfg.clip_low, cfg.clip_high, cfg.dual_clip
        )
        found = {
            "ratio": ratio_N.sum() * share,
            "clip_share": clipped_N.sum() * share,
            "sampler_gap": (old.logp_N - batch.sampler_logp_N).abs().sum() * share,
        }
        if cfg.importance_cap is not None:
            importance_N = importance_weight(old.logp_N, batch.sampler_logp_N, cfg.importance_cap)
            loss_N = loss_N * importance_N
            found["importance"] = importance_N.sum() * share
        loss = loss_N.sum() * weight
        found["loss/policy"] = loss.detach()
        if reference_N is not None:
            kl_N = k3(logp_N, reference_N)
            loss = loss + cfg.kl_weight * weight * kl_N.sum()
            found["kl"] = kl_N.detach().sum() * share
        return loss, found

    def _score(self, rows: Rows, temperature: float = 1.0) -> Any:
        read = partial(logprobs, temperature=temperature)
        return self._scorer(*rows[:3], read, rows.target_N)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _old(self, batch: MicroBatch) -> Old | None:
        if batch.kind != "policy":
            return None
        return Old(*self._score(batch.rows, self.config.temperature))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _reference(self, rows: Rows) -> torch.Tensor:
        """Log-probabilities (nats) before training; LoRA's base is what there was."""
        if self._frozen is not None:
            return self._frozen(*rows[:3], logprobs, rows.target_N)[0]
        with self.model.disable_adapter():
            return self._score(rows)[0]
