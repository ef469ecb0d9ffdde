"""Losses by hand: values, what is clipped, and which gradients are left."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch

from erl_trainer.losses import (
    Estimator,
    divergence,
    imitation_loss,
    importance_weight,
    kl_penalty,
    policy_loss,
    token_weight,
)


def f64(*values: float, grad: bool = False) -> Any:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def ratios(*values: float) -> tuple[Any, Any]:
    """New and old log-probabilities with these ratios."""
    old_N = torch.full((len(values),), -2.0, dtype=torch.float64)
    return (old_N + f64(*values).log()).requires_grad_(), old_N


def test_policy_loss_is_ppos() -> None:
    logp_N, old_N = ratios(1.0, 1.5, 0.5, 1.5, 0.5, 1.25)
    found = policy_loss(logp_N, old_N, f64(2, 2, 2, -2, -2, 2), clip_low=0.2, clip_high=0.28)
    # bounds 0.8 and 1.28; -min(A r, A clip(r)):
    # A=2:  r=1 → -2;  r=1.5 → -2*1.28 = -2.56, clipped;  r=0.5 → -min(1, 1.6) = -1
    # A=-2: r=1.5 → -min(-3, -2.56) = 3;  r=0.5 → -min(-1, -1.6) = 1.6, clipped
    # A=2, r=1.25 → -2.5, within the higher bound
    assert found.loss_N.tolist() == pytest.approx([-2, -2.56, -1, 3, 1.6, -2.5])
    assert found.clipped_N.tolist() == [False, True, False, False, True, False]
    assert found.ratio_N.tolist() == pytest.approx([1, 1.5, 0.5, 1.5, 0.5, 1.25])
    found.loss_N.sum().backward()
    # d(-A r)/d logp = -A r where it is not clipped, else 0
    assert logp_N.grad.tolist() == pytest.approx([-2, 0, -1, 3, 0, -2.5])
    assert not found.ratio_N.requires_grad and not found.clipped_N.requires_grad


def test_dual_clip_bounds_the_loss_of_negative_advantages_alone() -> None:
    logp_N, old_N = ratios(5.0, 2.0, 5.0)
    found = policy_loss(logp_N, old_N, f64(-1, -1, 1), 0.2, 0.28, dual_clip=3)
    # A=-1: r=5 → min(5, 3) = 3, bounded;  r=2 → 2;  A=1: r=5 → -1.28, by the ordinary clip
    assert found.loss_N.tolist() == pytest.approx([3, 2, -1.28])
    assert found.clipped_N.tolist() == [True, False, True]
    found.loss_N.sum().backward()
    assert logp_N.grad.tolist() == pytest.approx([0, 2, 0])


def test_importance_weight_is_truncated_and_has_no_gradient() -> None:
    trainer_N = (f64(0.5, 0.9, 0.2).log()).requires_grad_()
    weight_N = importance_weight(trainer_N, f64(0.4, 0.3, 0.4).log(), cap=2.0)
    assert weight_N.tolist() == pytest.approx([1.25, 2.0, 0.5])  # 0.9 / 0.3 = 3, cut to 2
    assert not weight_N.requires_grad


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        # reference 0.25, policy 0.5: r = 0.5, -log r = log 2
        ("k1", math.log(2), 1.0),
        ("k2", math.log(2) ** 2 / 2, math.log(2)),
        ("k3", 0.5 - 1 + math.log(2), 0.5),  # r - 1 - log r; d/d logp = 1 - r
    ],
)
def test_kl_estimators_by_hand(estimator: Estimator, value: float, slope: float) -> None:
    logp_N = f64(math.log(0.5), math.log(0.3), grad=True)
    kl_N = kl_penalty(estimator, logp_N, f64(math.log(0.25), math.log(0.3)))
    assert kl_N.tolist() == pytest.approx([value, 0])
    kl_N.sum().backward()
    assert logp_N.grad.tolist() == pytest.approx([slope, 1.0 if estimator == "k1" else 0])


def mean_gradient(estimator: Estimator, logits_V: Any, reference_V: Any) -> list[float]:
    """The gradient that a step gets on average: over all three words, as π samples them."""
    logp_V = logits_V.log_softmax(-1)
    kl_V = kl_penalty(estimator, logp_V, reference_V)
    (gradient_V,) = torch.autograd.grad((logp_V.detach().exp() * kl_V).sum(), logits_V)
    return list(gradient_V.tolist())


def test_kl_estimators_have_the_mean_gradients_that_their_docstring_says() -> None:
    logits_V, reference_V = f64(0.2, -1.0, 0.7, grad=True), f64(0.5, 0.2, 0.3).log()
    logp_V = logits_V.log_softmax(-1)
    forward = (logp_V.exp() * (logp_V - reference_V)).sum()  # KL(π ‖ reference)
    backward = (reference_V.exp() * (reference_V - logp_V)).sum()  # KL(reference ‖ π)
    (of_forward,) = torch.autograd.grad(forward, logits_V, retain_graph=True)
    (of_backward,) = torch.autograd.grad(backward, logits_V)
    assert mean_gradient("k1", logits_V, reference_V) == pytest.approx([0, 0, 0], abs=1e-12)
    assert mean_gradient("k2", logits_V, reference_V) == pytest.approx(of_forward.tolist())
    assert mean_gradient("k3", logits_V, reference_V) == pytest.approx(of_backward.tolist())
    assert of_forward.tolist() != pytest.approx(of_backward.tolist(), rel=0.1)


@pytest.mark.parametrize("temperature", [0.5, 0.7, 1.0, 2.0])
def test_importance_weights_make_the_samplers_mean_the_trainers(temperature: float) -> None:
    # three words: whatever a word is worth, weighing what the sampler draws at T gives the mean
    # under the trainer at T; ratios at temperature 1 would not
    trainer_V, sampler_V = f64(0.3, -0.4, 1.1), f64(-0.2, 0.5, 0.9)
    worth_V = f64(1.0, -2.0, 5.0)
    trainer_logp_V = (trainer_V / temperature).log_softmax(-1)
    sampler_logp_V = (sampler_V / temperature).log_softmax(-1)
    drawn_V, wanted_V = sampler_logp_V.exp(), trainer_logp_V.exp()
    weight_V = importance_weight(trainer_logp_V, sampler_logp_V, cap=100.0)
    mean = float((drawn_V * weight_V * worth_V).sum())
    assert mean == pytest.approx(float((wanted_V * worth_V).sum()))
    at_1_V = importance_weight(trainer_V.log_softmax(-1), sampler_V.log_softmax(-1), cap=100.0)
    off = float((drawn_V * at_1_V * worth_V).sum()) - mean
    assert (abs(off) > 0.02) == (temperature != 1)


PROBS = st.lists(st.floats(0.01, 1), min_size=2, max_size=6)


@given(PROBS, st.data())
def test_k3_is_never_negative_and_its_mean_over_the_policy_is_the_divergence(
    weights: list[float], data: st.DataObject
) -> None:
    others = data.draw(st.lists(st.floats(0.01, 1), min_size=len(weights), max_size=len(weights)))
    p_V, q_V = f64(*weights) / sum(weights), f64(*others) / sum(others)
    kl_V = kl_penalty("k3", p_V.log(), q_V.log())
    assert (kl_V >= -1e-12).all()
    # E_p[q/p - log(q/p) - 1] = sum q + sum p log(p/q) - 1 = KL(p ‖ q)
    exact = float((p_V * (p_V / q_V).log()).sum())
    assert float((p_V * kl_V).sum()) == pytest.approx(exact, abs=1e-9)
    # and the full-vocabulary divergence says the same, of logits shifted by any constant
    full_N = divergence((p_V.log() + 3)[None], (q_V.log() - 7)[None])
    assert full_N.tolist() == pytest.approx([exact], abs=1e-9)


def test_divergence_is_from_teacher_to_student_and_moves_the_student_alone() -> None:
    teacher_NV = f64(0.75, 0.25).log()[None].requires_grad_()
    student_NV = f64(0.5, 0.5).log()[None].requires_grad_()
    apart_N = divergence(teacher_NV, student_NV)
    # 0.75 log(0.75 / 0.5) + 0.25 log(0.25 / 0.5) = 0.30410 - 0.17329 = 0.13081
    # (the other way round: 0.5 log(0.5 / 0.75) + 0.5 log(0.5 / 0.25) = 0.14384)
    assert apart_N.tolist() == pytest.approx([0.130812], abs=1e-6)
    apart_N.sum().backward()
    assert teacher_NV.grad is None
    assert student_NV.grad[0].tolist() == pytest.approx([-0.25, 0.25])  # student - teacher


def test_imitation_is_weighted_cross_entropy() -> None:
    logp_N = f64(math.log(0.5), math.log(0.25), grad=True)
    loss_N = imitation_loss(logp_N, f64(1, 0.3))
    assert loss_N.tolist() == pytest.approx([math.log(2), 0.3 * math.log(4)])
    loss_N.sum().backward()
    assert logp_N.grad.tolist() == pytest.approx([-1, -0.3])


def test_aggregations_by_hand() -> None:
    # two sequences, token losses (1, 2, 3) and (6): token mean 12 / 4 = 3; mean of sums
    # (6 + 6) / 2 = 6; the same over a constant 8: 6 / 8 = 0.75
    total = 1 + 2 + 3 + 6
    assert total * token_weight("token_mean", 4, 2, 8) == 3
    assert total * token_weight("seq_mean_token_sum", 4, 2, 8) == 6
    assert total * token_weight("constant", 4, 2, 8) == 0.75
