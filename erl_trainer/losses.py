"""Losses over tokens, and the weights that make sums of them one number.

Every function takes flat tensors: N learnt tokens of any number of sequences. A loss is a weighted
sum over tokens whose weight knows the whole batch (`token_weight`), so the losses of micro-batches
and processes add up to the batch's, and so do their gradients.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

Aggregation = Literal["token_mean", "seq_mean_token_sum", "constant"]
Estimator = Literal["k1", "k2", "k3"]


class PolicyLoss(NamedTuple):
    """PPO's loss of each token.

    Attributes:
        loss_N: To minimise.
        ratio_N: Of the new to the old probability, detached.
        clipped_N: Whether a bound decided, detached.
    """

    loss_N: torch.Tensor
    ratio_N: torch.Tensor
    clipped_N: torch.Tensor


def policy_loss(
    logp_N: torch.Tensor,
    old_logp_N: torch.Tensor,
    adv_N: torch.Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """The clipped surrogate, its sign turned (PPO, Schulman 2017 eq. 7).

    Args:
        logp_N: Log-probabilities (nats) under the weights that learn.
        old_logp_N: The same before the batch's first update; no gradient.
        adv_N: Advantages.
        clip_low: The ratio counts down to 1 - this.
        clip_high: And up to 1 + this (DAPO's higher bound, Yu 2025).
        dual_clip: With a negative advantage, the loss is at most this multiple of its size
            (dual clip, Ye 2020, eq. 5); None for no bound.
    """
    ratio_N = (logp_N - old_logp_N).exp()
    free_N = -adv_N * ratio_N
    loss_N = torch.maximum(free_N, -adv_N * ratio_N.clamp(1 - clip_low, 1 + clip_high))
    if dual_clip is not None:
        loss_N = torch.where(adv_N < 0, torch.minimum(loss_N, -adv_N * dual_clip), loss_N)
    return PolicyLoss(loss_N, ratio_N.detach(), (loss_N != free_N).detach())


def importance_weight(
    trainer_logp_N: torch.Tensor, sampler_logp_N: torch.Tensor, cap: float
) -> torch.Tensor:
    """What corrects tokens that others sampled: min(π_trainer / π_sampler, cap), detached.

    Truncated importance sampling (Ionides 2008), for sampler and trainer that round differently
    (Yao 2025), and for the updates since, where a step's are staged. Both are at the temperature
    that the token was sampled at: at another one the ratio is not that of what was sampled.

    Args:
        trainer_logp_N: Log-probabilities (nats) by the trainer, before the batch's first update.
        sampler_logp_N: The sampler's, as it sampled.
        cap: Greatest weight.
    """
    return (trainer_logp_N - sampler_logp_N).detach().exp().clamp(max=cap)


def kl_penalty(
    estimator: Estimator, logp_N: torch.Tensor, reference_logp_N: torch.Tensor
) -> torch.Tensor:
    """Estimate KL(π ‖ reference) on tokens of π (Schulman 2020), as a loss to differentiate.

    On tokens that π sampled, k1 and k3 have the divergence as their mean; k2 nearly. As losses
    they are not alike, for the gradient does not see how the tokens were drawn. With r =
    reference / π, a token's gradient is a multiple of the score ∇log π:

    - `k1`, -log r: 1; its mean is zero, so it restrains nothing.
    - `k2`, (log r)² / 2: -log r; its mean is the gradient of KL(π ‖ reference).
    - `k3`, r - 1 - log r, never negative: 1 - r; its mean is the gradient of KL(reference ‖ π),
      which asks π to cover the reference. The paper's code and most trainers take it.

    Args:
        estimator: Which.
        logp_N: Log-probabilities (nats) under π.
        reference_logp_N: The same under the reference; no gradient.
    """
    gap_N = reference_logp_N - logp_N
    if estimator == "k1":
        return -gap_N
    return gap_N.square() / 2 if estimator == "k2" else gap_N.exp() - gap_N - 1


def imitation_loss(logp_N: torch.Tensor, weight_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token times its weight (PAPER: Alg. 2, L_distill)."""
    return -weight_N * logp_N


def divergence(teacher_logits_NV: torch.Tensor, logits_NV: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student) over the whole vocabulary, of each token (nats).

    Args:
        teacher_logits_NV: No gradient goes to them.
        logits_NV: The student's.

    Returns:
        Divergences, shape N.
    """
    teacher_NV = teacher_logits_NV.detach().log_softmax(-1)
    return (teacher_NV.exp() * (teacher_NV - logits_NV.log_softmax(-1))).sum(-1)


def token_weight(aggregation: Aggregation, tokens: int, sequences: float, constant: int) -> float:
    """What each token's loss counts in the batch's.

    `token_mean`: a mean over tokens (DAPO, Yu 2025). `seq_mean_token_sum`: a mean over sequences
    of sums over tokens (PAPER: App. C). `constant`: a mean over sequences of sums over tokens
    divided by `constant` (Dr. GRPO, Liu 2025).

    Args:
        aggregation: Which.
        tokens: Of the whole batch, all micro-batches and processes; 1 or more.
        sequences: Of the whole batch, a part of an attempt's as a part; above 0.
        constant: Divisor of `constant`.
    """
    if aggregation == "token_mean":
        return 1 / tokens
    return 1 / sequences if aggregation == "seq_mean_token_sum" else 1 / (sequences * constant)
