"""What an update minimises: each kind of sample's loss, a micro-batch at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from erl_trainer.batching import MicroBatch
from erl_trainer.config import Config
from erl_trainer.forward import divergences, hidden, logprobs
from erl_trainer.losses import (
    imitation_loss,
    importance_weight,
    kl_penalty,
    policy_loss,
    token_weight,
)

Part = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""A micro-batch's part of an update's loss, and of its metrics; both add up."""


class Size(NamedTuple):
    """How much of a kind an update has.

    Attributes:
        sequences: Attempts and reflections, whole ones or parts.
        tokens: Their learnt tokens.
        credited: Those of samples that have credit; the others have no gradient and stay out.
    """

    sequences: float
    tokens: int
    credited: int


class Objective:
    """The losses of micro-batches: weighted sums that add up over an update and its processes."""

    def __init__(self, config: Config, scorer: Any, model: Any, frozen: Any) -> None:
        """Keep them.

        Args:
            config: Weights and bounds of the losses.
            scorer: The `Scorer` that learns, in whatever wrapping its gradients need.
            model: What it scores by; PEFT's, where there is no frozen copy.
            frozen: A `Scorer` of the weights before training; None where PEFT's adapters come off.
        """
        self._config, self._scorer, self._model, self._frozen = config, scorer, model, frozen

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def old(self, batch: MicroBatch) -> torch.Tensor | None:
        """Log-probabilities under the present weights; None of a kind that compares with none."""
        return self._score(batch) if batch.kind == "policy" else None

    def part(self, batch: MicroBatch, size: Size, old_logp_N: torch.Tensor | None) -> Part:
        """A micro-batch's part of the update's loss, and of its metrics.

        Args:
            batch: Samples of one kind.
            size: How much of that kind the update has.
            old_logp_N: Of kind `policy`, what `old` gave; None where the present weights are the
                old ones.
        """
        cfg = self._config
        weight = token_weight(cfg.aggregation, size.tokens, size.sequences, cfg.constant)
        if batch.kind == "policy":
            return self._policy(batch, size, weight, old_logp_N)
        if batch.teacher is None:
            (logp_N,) = self._scorer(*batch.rows[:2], logprobs, batch.rows.target_N)
            loss_N = imitation_loss(logp_N, batch.adv_N)
        else:
            with torch.no_grad():
                (teacher_ND,) = self._scorer(*batch.teacher[:2], hidden)
            (apart_N,) = self._scorer(*batch.rows[:2], divergences, teacher_ND)
            loss_N = apart_N * batch.adv_N
        loss = loss_N.sum() * weight
        return cfg.distill_weight * loss, {f"loss/{batch.kind}": loss.detach()}

    def _policy(
        self, batch: MicroBatch, size: Size, weight: float, old_logp_N: torch.Tensor | None
    ) -> Part:
        cfg, share = self._config, 1 / size.credited
        reference_N = self._reference(batch) if cfg.kl_weight else None
        logp_N = self._score(batch)
        if old_logp_N is None:
            old_logp_N = logp_N.detach()
        loss_N, ratio_N, clipped_N = policy_loss(
            logp_N, old_logp_N, batch.adv_N, cfg.clip_low, cfg.clip_high, cfg.dual_clip
        )
        found = {
            "ratio": ratio_N.sum() * share,
            "clip_share": clipped_N.sum() * share,
            "sampler_gap": (old_logp_N - batch.sampler_logp_N).abs().sum() * share,
        }
        kl_N = None
        if reference_N is not None:
            kl_N = kl_penalty(cfg.kl, logp_N, reference_N)
            found["kl"] = kl_N.detach().sum() * share
        if cfg.importance_cap is not None:
            importance_N = importance_weight(old_logp_N, batch.sampler_logp_N, cfg.importance_cap)
            loss_N = loss_N * importance_N
            kl_N = None if kl_N is None else kl_N * importance_N
            found["importance"] = importance_N.sum() * share
        loss = loss_N.sum() * weight
        found["loss/policy"] = loss.detach()
        if kl_N is not None:
            loss = loss + cfg.kl_weight * kl_N.sum() * weight
        return loss, found

    def _score(self, batch: MicroBatch, scorer: Any = None) -> torch.Tensor:
        """Log-probabilities (nats) of the learnt tokens, at the temperature of their sampling."""
        rows, at = batch.rows, batch.temperature_N
        more_N = (rows.target_N,) if at is None else (rows.target_N, at)
        logp_N: torch.Tensor = (scorer or self._scorer)(*rows[:2], logprobs, *more_N)[0]
        return logp_N

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _reference(self, batch: MicroBatch) -> torch.Tensor:
        """Log-probabilities (nats) before training; under LoRA the adapters' absence gives them."""
        if self._frozen is not None:
            return self._score(batch, self._frozen)
        with self._model.disable_adapter():
            return self._score(batch)
