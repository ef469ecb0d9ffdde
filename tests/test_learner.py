"""The learner against the plainest possible one: full logits, one sample at a time, no tricks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from launching import together
from learner_two_processes import MORE, SAMPLES, model, sample
from tiny_models import tiny_model

from erl_envs.policies.transformers import load as load_model
from erl_trainer import batching, checkpoint, forward, learner, objective, optimizer, processes
from erl_trainer.batching import micro_batches, pad
from erl_trainer.config import Config
from erl_trainer.learner import Learner
from erl_trainer.types import NotFinite, Sample

FOLDER = Path(__file__).parent
POLICY, IMITATE, MATCH = SAMPLES[:4], SAMPLES[4:6], SAMPLES[6:]
COLD = [replace(s, temperature=t) for s, t in zip(POLICY, (0.7, 0.5, 1.0, 0.7), strict=True)]
"""Sampled at several temperatures, as attempts and reflections are."""


def logits(net: Any, ids: Sequence[int]) -> Any:
    """After each id; all of them."""
    return net(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def places(sampled: Sequence[bool]) -> list[int]:
    """Where the learnt tokens are predicted: one before each."""
    return [t - 1 for t, was in enumerate(sampled) if was]


def logp(net: Any, s: Sample, temperature: float = 1.0) -> Any:
    targets = [token for token, was in zip(s.ids, s.sampled, strict=True) if was]
    scaled = logits(net, s.ids)[places(s.sampled)] / temperature
    return scaled.log_softmax(-1)[range(len(targets)), targets]


def naive_loss(
    net: Any, samples: Sequence[Sample], cfg: Config, old: Any = None, start: Any = None
) -> Any:
    """The whole batch's loss; `old` made the old log-probabilities, `start` is the reference."""
    old, total = old or copy.deepcopy(net), torch.zeros((), dtype=torch.float64)
    for s in samples:
        alike = [other for other in samples if other.kind == s.kind]
        over = {
            "token_mean": sum(sum(other.sampled) for other in alike),
            "seq_mean_token_sum": sum(other.share for other in alike),
            "constant": sum(other.share for other in alike) * cfg.constant,
        }[cfg.aggregation]
        if s.kind == "imitate":
            total = total - cfg.distill_weight * s.advantage * logp(net, s).sum() / over
        elif s.kind == "match":
            teacher = logits(net, s.teacher_ids)[places(s.teacher_sampled)].detach().softmax(-1)
            student = logits(net, s.ids)[places(s.sampled)].log_softmax(-1)
            apart = (teacher * (teacher.log() - student)).sum()
            total = total + cfg.distill_weight * s.advantage * apart / over
        else:
            before = logp(old, s, s.temperature).detach()
            ratio = (logp(net, s, s.temperature) - before).exp()
            bound = ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
            losses = -torch.minimum(ratio * s.advantage, bound * s.advantage)
            if cfg.kl_weight:
                gap = logp(start, s, s.temperature).detach() - logp(net, s, s.temperature)
                kl = {"k1": -gap, "k2": gap**2 / 2, "k3": gap.exp() - gap - 1}[cfg.kl]
                losses = losses + cfg.kl_weight * kl
            if cfg.importance_cap is not None:
                sampler = torch.tensor(
                    [p for p, was in zip(s.logprobs, s.sampled, strict=True) if was]
                )
                losses = losses * (before - sampler).exp().clamp(max=cfg.importance_cap)
            total = total + losses.sum() / over
    return total


def gradients(trainer: Learner, samples: Sequence[Sample], monkeypatch: Any) -> dict[str, Any]:
    """What an update would step by; no step is made."""
    found: dict[str, Any] = {}

    def record(lr: float, norm: float, greatest: float) -> None:
        masters = trainer._optimizer.masters
        found.update({name: m.grad.clone() for name, m in masters.items()})
        trainer._optimizer.clear()

    with monkeypatch.context() as patch:
        patch.setattr(trainer._optimizer, "step", record)
        trainer.update(samples)
    return found


def naive_gradients(net: Any, samples: Sequence[Sample], cfg: Config, **more: Any) -> Any:
    net.zero_grad()
    naive_loss(net, samples, cfg, **more).backward()
    return {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("aggregation", ["token_mean", "seq_mean_token_sum", "constant"])
def test_an_attempt_in_two_stretches_counts_as_one(
    aggregation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one attempt a stretch for each of its two answers, here after the same ids."""
    cfg = Config(aggregation=aggregation)
    first, *others = POLICY
    gap = 19 // 2  # the id between its two runs of sampled ones
    parts = [
        replace(first, sampled=[was and early == (t < gap) for t, was in enumerate(first.sampled)])
        for early in (True, False)
    ]
    parts = [
        replace(p, logprobs=[v * was for v, was in zip(p.logprobs, p.sampled, strict=True)])
        for p in parts
    ]
    halves = [replace(p, share=0.5) for p in parts]
    whole = gradients(Learner(model(), cfg, 0), [first, *others], monkeypatch)
    split = gradients(Learner(model(), cfg, 0), [*halves, *others], monkeypatch)
    assert_close(split, whole)
    assert_close(split, naive_gradients(model(), [*halves, *others], cfg))


def assert_close(ours: dict[str, Any], theirs: dict[str, Any], rtol: float = 1e-6) -> None:
    assert ours.keys() == theirs.keys()
    size = max(float(value.abs().max()) for value in theirs.values())
    assert size > 0
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=rtol, atol=rtol * size, msg=name)


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (POLICY, {}),
        (POLICY, {"importance_cap": None, "aggregation": "seq_mean_token_sum"}),
        (POLICY, {"aggregation": "constant", "constant": 7}),
        (COLD, {}),
        (COLD, {"kl_weight": 0.5}),
        (COLD, {"kl_weight": 0.5, "kl": "k2", "importance_cap": None}),
        (COLD, {"kl_weight": 0.5, "kl": "k1"}),
        (IMITATE, {"distill_weight": 0.3}),
        (IMITATE, {"aggregation": "seq_mean_token_sum"}),
        (MATCH, {"distill_weight": 0.3}),
        (MATCH, {"aggregation": "constant", "constant": 7}),
        (SAMPLES, {"kl_weight": 0.1, "aggregation": "seq_mean_token_sum"}),
        (SAMPLES, {"gradient_checkpointing": True}),
    ],
)
def test_gradients_are_those_of_full_logits(
    samples: list[Sample], options: dict[str, Any], monkeypatch: Any
) -> None:
    start, net = model(seed=1), model()
    cfg = Config(token_budget=64, logit_chunk=5, **options)
    trainer = Learner(start, cfg, pad_id=0)  # the reference is another than what learns
    with torch.no_grad():
        for own, other in zip(start.parameters(), net.parameters(), strict=True):
            own.copy_(other)
    ours = gradients(trainer, samples, monkeypatch)
    assert_close(ours, naive_gradients(net, samples, cfg, start=model(seed=1)))
    # the sampler must find no dropout, and no checkpointing, which forbids a cache
    assert not any(module.training for module in start.modules())


TRAINER = Learner(model(), Config(), pad_id=0)
WHOLE: dict[str, Any] = {}


@settings(max_examples=15, deadline=None)
@given(budget=st.integers(1, 400), chunk=st.integers(1, 80), order=st.permutations(SAMPLES))
def test_no_budget_chunk_or_order_changes_the_gradient(
    budget: int, chunk: int, order: list[Sample]
) -> None:
    patch = pytest.MonkeyPatch()
    whole = WHOLE or gradients(TRAINER, SAMPLES, patch)
    WHOLE.update(whole)
    with patch.context() as inner:
        inner.setattr(TRAINER, "_config", Config(token_budget=budget))
        inner.setattr(TRAINER._scorer, "chunk", chunk)
        assert_close(gradients(TRAINER, order, patch), whole, rtol=1e-9)


def test_no_more_logits_than_a_chunk_exist_at_a_time() -> None:
    net, rows = model(), []
    trainer = Learner(net, Config(logit_chunk=6, kl_weight=0.1, temperature=0.5), pad_id=0)
    for head in (net.lm_head, trainer._objective._frozen.head):
        head.register_forward_hook(lambda _, __, out: rows.append(out.shape[:-1].numel()))
    trainer.update(SAMPLES)
    assert max(rows) == 6
    # forward and again for the gradient, of learnt tokens only: policy 2 + 1 reference,
    # imitate 2, match 2 of the student and 2 of the teacher
    count = [sum(sum(s.sampled) for s in part) for part in (POLICY, IMITATE, MATCH)]
    assert sum(rows) == 3 * count[0] + 2 * count[1] + 4 * count[2]


def adamw(net: Any, cfg: Config) -> Any:
    return torch.optim.AdamW(net.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)


def naive_step(
    net: Any, adam: Any, samples: Sequence[Sample], cfg: Config, old: Any = None
) -> float:
    adam.zero_grad()
    naive_loss(net, samples, cfg, old=old).backward()
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), cfg.grad_clip)
    adam.step()
    return float(norm)


def test_an_update_is_one_step_of_clipped_adamw() -> None:
    cfg = Config(lr=1e-2, weight_decay=0.5, grad_clip=0.3)
    ours, theirs = model(), model()
    trainer, adam = Learner(ours, cfg, pad_id=0), adamw(theirs, cfg)
    for _ in range(2):
        found = trainer.update(SAMPLES)
        assert found["grad_norm"] == pytest.approx(naive_step(theirs, adam, SAMPLES, cfg), rel=1e-5)
        assert found["grad_norm"] > cfg.grad_clip
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)
    assert trainer.updates == 2


def test_minibatches_compare_with_the_policy_before_the_first() -> None:
    cfg = Config(lr=1e-2, minibatches=2, temperature=0.7, seed=3)
    ours, theirs, old = model(), model(), model()
    adam = adamw(theirs, cfg)
    found = Learner(ours, cfg, pad_id=0).update(POLICY)
    order = np.random.default_rng([3, 0]).permutation(len(POLICY))
    halves = [[POLICY[i] for i in order[n::2]] for n in range(2)]
    norms = [naive_step(theirs, adam, half, cfg, old) for half in halves]
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)
    assert found["updates"] == 2
    assert found["tokens"] == sum(sum(s.sampled) for s in POLICY)
    assert found["grad_norm"] == pytest.approx(sum(norms) / 2, rel=1e-5)
    assert found["ratio"] != pytest.approx(1, abs=1e-4), "the second half's policy has moved"


def test_metrics_of_an_update() -> None:
    net = model()
    first, second = sample("policy", 9, 1.0, 0), sample("policy", 6, -1.0, 1)
    shifted = [
        sample("policy", 9, 1.0, 0, [p + 0.5 for p in logp(net, first).tolist()]),
        sample("policy", 6, -1.0, 1, [p - 1.0 for p in logp(net, second).tolist()]),
    ]
    a, b = sum(first.sampled), sum(second.sampled)
    found = Learner(net, Config(lr=1e-3, kl_weight=0.1), pad_id=0).update(shifted)
    # weights e^-0.5 = 0.60653 and min(e^1, 2) = 2; ratios 1, so losses -A * weight
    expected = {
        "tokens": a + b,
        "updates": 1,
        "skipped": 0,
        "lr": 1e-3,
        "ratio": 1,
        "clip_share": 0,
        "sampler_gap": (0.5 * a + 1.0 * b) / (a + b),
        "importance": (0.60653 * a + 2 * b) / (a + b),
        "loss/policy": (-0.60653 * a + 2 * b) / (a + b),
        "kl": 0,
    }
    assert found.pop("grad_norm") > 0
    assert found == pytest.approx(expected, abs=1e-5)


def test_clipped_tokens_are_counted() -> None:
    cfg = Config(lr=0.05, minibatches=2, clip_low=1e-4, clip_high=1e-4)
    found = Learner(model(), cfg, pad_id=0).update(POLICY)
    # nothing is clipped in the first half; so narrow bounds clip some of the second's
    assert 0 < found["clip_share"] <= 0.5


def test_warmup_reaches_the_rate_and_stays() -> None:
    trainer = Learner(model(), Config(lr=1e-3, warmup=4), pad_id=0)
    rates = [trainer.update(POLICY)["lr"] for _ in range(6)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def state(net: Any) -> list[Any]:
    return [p.detach().clone() for p in net.parameters()]


def test_without_credit_momentum_moves_nothing() -> None:
    net = model()
    trainer = Learner(net, Config(lr=1e-2, distill_weight=0.0), pad_id=0)
    trainer.update(POLICY)
    before = state(net)
    nothing = [sample("policy", 9, 0.0, 0), sample("imitate", 9, 1.0, 1)]
    for samples in (nothing, []):
        assert trainer.update(samples) == {"tokens": 0, "updates": 0, "skipped": 1}
    assert all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))
    assert trainer.updates == 1


def test_the_kl_term_of_samples_without_credit_is_a_choice() -> None:
    flat = [sample("policy", 9, 0.0, 0), sample("policy", 12, 0.0, 1)]
    for without_credit in (True, False):
        cfg = Config(lr=1e-2, kl_weight=0.1, kl_without_credit=without_credit)
        net = model()
        trainer = Learner(net, cfg, pad_id=0)
        trainer.update(POLICY)  # away from the reference
        before = state(net)
        assert trainer.update(flat)["updates"] == without_credit
        moved = not all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))
        assert moved == without_credit


def test_samples_without_credit_count_in_means_only(monkeypatch: Any) -> None:
    cfg, net = Config(), model()
    trainer = Learner(net, cfg, pad_id=0)
    samples = [*POLICY, sample("policy", 21, 0.0, 0), sample("imitate", 11, 0.0, 1), *IMITATE]
    widths: list[int] = []
    net.model.register_forward_hook(lambda _, __, out: widths.append(out[0].shape[1]))
    ours = gradients(trainer, samples, monkeypatch)
    assert 21 not in widths
    assert_close(ours, naive_gradients(net, samples, cfg))
    found = trainer.update(samples)
    assert found["ratio"] == pytest.approx(1), "a mean over what was looked at"
    assert found["tokens"] == sum(sum(s.sampled) for s in (*POLICY, *IMITATE))


@pytest.mark.parametrize("kind", ["policy", "imitate", "match"])
def test_a_loss_that_is_not_finite_stops_before_the_step(kind: Any) -> None:
    net = model()
    trainer = Learner(net, Config(lr=1e-2, token_budget=1), pad_id=0)
    trainer.update(SAMPLES)
    before, known = state(net), copy.deepcopy(trainer.state_dict())
    bad = sample(kind, 7, float("inf"), 0, task="board-7")
    said = rf"loss is (-inf|inf|nan) in the micro-batch of tasks board-7 \({kind}\)"
    with pytest.raises(NotFinite, match=said):
        trainer.update([*SAMPLES, bad])
    assert all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))
    # as if the bad samples had never come: the same next update to the last bit
    other = Learner(model(), Config(lr=1e-2, token_budget=1), pad_id=0)
    other.load_state_dict(known)
    assert trainer.update(SAMPLES) == other.update(SAMPLES)
    assert all(torch.equal(*p) for p in zip(state(net), state(other.model), strict=True))


def test_a_gradient_that_is_not_finite_names_the_first_micro_batch() -> None:
    net, calls = model(), []

    def overflow(grad: Any) -> Any:
        calls.append(1)
        return grad * float("inf") if len(calls) >= 2 else grad

    trainer = Learner(net, Config(token_budget=1), pad_id=0)
    net.model.norm.weight.register_hook(overflow)
    before = state(net)
    # longest first: 13 tokens, then 9, then 5
    samples = [sample("policy", n, 1.0, n, task=f"length-{n}") for n in (5, 9, 13)]
    with pytest.raises(NotFinite, match=r"gradient norm is (inf|nan) .* length-9 \(policy\)"):
        trainer.update(samples)
    assert all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))


def widened(net: Any, dtype: str) -> Any:
    return net.to(getattr(torch, dtype))


@pytest.mark.parametrize(
    "options",
    [{}, {"dtype": "bfloat16"}, {"lora_rank": 2, "kl_weight": 0.1}, {"minibatches": 2}],
)
def test_two_and_two_updates_are_four(options: dict[str, Any], tmp_path: Path) -> None:
    cfg = Config(lr=1e-2, warmup=3, **options)

    def fresh() -> Learner:
        return Learner(widened(tiny_model(), cfg.dtype), cfg, pad_id=0)

    straight, first = fresh(), fresh()
    for _ in range(4):
        straight.update(SAMPLES)
    for _ in range(2):
        first.update(SAMPLES)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = fresh()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        second.update(SAMPLES)
    assert second.updates == straight.updates > 0
    ours, theirs = state(second.model), state(straight.model)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(ours, state(fresh().model), strict=True))


def test_another_models_state_is_refused() -> None:
    lora = Learner(tiny_model(), Config(lora_rank=2), pad_id=0)
    with pytest.raises(ValueError, match="not those that this model trains"):
        Learner(tiny_model(), Config(), pad_id=0).load_state_dict(lora.state_dict())


def test_small_steps_are_not_lost_in_bfloat16() -> None:
    net = widened(tiny_model(), "bfloat16")
    trainer = Learner(net, Config(lr=1e-6, dtype="bfloat16", weight_decay=0.0), pad_id=0)
    masters = trainer._optimizer.masters
    before, kept = state(net), {name: m.clone() for name, m in masters.items()}
    trainer.update(SAMPLES)
    moved = torch.cat([(m - kept[name]).abs().flatten() for name, m in masters.items()])
    # Adam's first step is lr in size wherever there is a gradient
    assert ((moved > 0.5e-6) & (moved < 1.5e-6)).float().mean() > 0.5
    changed = [(a != b).float().mean() for a, b in zip(before, state(net), strict=True)]
    assert max(changed) < 0.1, "most of these steps are below bfloat16's rounding"
    for name, weight in net.named_parameters():
        assert weight.dtype == torch.bfloat16 and masters[name].dtype == torch.float32
        assert torch.equal(weight, masters[name].bfloat16())


def test_bfloat16_gradients_add_up_in_float32(monkeypatch: Any) -> None:
    net = widened(tiny_model(), "bfloat16")
    one = [POLICY[0]]
    trainer = Learner(net, Config(dtype="bfloat16", token_budget=1), pad_id=0)
    single = gradients(trainer, one, monkeypatch)
    # 300 equal micro-batches of 1/300 each; in bfloat16 a sum stops growing at 256 equal terms
    summed = gradients(trainer, one * 300, monkeypatch)
    assert_close(summed, single, rtol=2e-2)
    assert summed["lm_head.weight"].dtype == torch.float32


def test_lora_trains_adapters_alone_in_float32() -> None:
    net = widened(tiny_model(), "bfloat16")
    before = {name: p.clone() for name, p in net.named_parameters()}
    trainer = Learner(net, Config(lora_rank=2, lr=1e-2, dtype="bfloat16"), pad_id=0)
    asked = logits(trainer.model, range(9)).detach()
    assert torch.equal(asked, logits(tiny_model().bfloat16(), range(9)))  # adapters start at zero
    trainer.update(SAMPLES)
    assert not torch.equal(asked, logits(trainer.model, range(9)))
    trained = [(n, p) for n, p in trainer.model.named_parameters() if p.requires_grad]
    # 7 linear layers in each of 2 blocks, two matrices each, no lm_head
    assert len(trained) == 28 and all("lora_" in name for name, _ in trained)
    assert all(p.dtype == torch.float32 for _, p in trained)
    base = {n.replace("base_model.model.", "").replace(".base_layer", ""): p
            for n, p in trainer.model.named_parameters() if "lora_" not in n}  # fmt: skip
    assert base.keys() == before.keys()
    assert all(torch.equal(base[name], before[name]) for name in before)


@pytest.mark.parametrize("rank", [0, 2])
def test_kl_is_from_the_model_before_training(rank: int) -> None:
    cfg = Config(kl_weight=0.1, lora_rank=rank, lr=1e-2)
    trainer = Learner(tiny_model(), cfg, pad_id=0)
    assert trainer.update(POLICY)["kl"] == pytest.approx(0, abs=1e-6)
    start, now = tiny_model(), trainer.model
    with torch.no_grad():
        gaps = torch.cat([logp(start, s) - logp(now, s) for s in POLICY])
    expected = float((gaps.exp() - gaps - 1).mean())
    assert expected > 1e-5
    assert trainer.update(POLICY)["kl"] == pytest.approx(expected, rel=1e-3)


def test_checkpointing_recomputes_the_layers() -> None:
    def passes(on: bool) -> int:
        net, calls = model(), []
        net.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        trainer = Learner(net, Config(gradient_checkpointing=on), pad_id=0)
        calls.clear()
        trainer.update(POLICY)
        return len(calls)

    assert passes(on=True) == 2 * passes(on=False) == 2


def test_a_sample_longer_than_the_context_is_refused() -> None:
    trainer = Learner(tiny_model(context=8), Config(), pad_id=0)
    with pytest.raises(ValueError, match=r"task t has 9 tokens but the model reads 8"):
        trainer.update([sample("policy", 9, 1.0, 0, task="t")])
    with pytest.raises(ValueError, match=r"has 10 tokens"):  # 3 more before a teacher
        trainer.update([sample("match", 7, 1.0, 0)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampled": [True, *[False] * 6]}, "first id of a sample"),
        ({"sampled": [False] * 7}, "no sampled token"),
        ({"sampled": [False, True]}, "argument"),
        ({"kind": "match", "teacher_ids": [1, 2], "teacher_sampled": [False, True]}, "teacher"),
    ],
)
def test_malformed_samples_are_refused(change: dict[str, Any], said: str) -> None:
    good = sample("policy", 7, 1.0, 0)
    bad = Sample(**{**vars(good), **change})
    with pytest.raises(ValueError, match=said):
        Learner(model(), Config(), pad_id=0).update([bad])


def test_models_whose_logits_are_not_their_heads_are_refused() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tiny = Gemma2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=1.0,
    )
    with pytest.raises(ValueError, match=r"cannot train Gemma2ForCausalLM: .* scale or cap"):
        Learner(Gemma2ForCausalLM(tiny).eval(), Config(), pad_id=0)
    tiny.final_logit_softcapping = None
    Learner(Gemma2ForCausalLM(tiny).eval(), Config(), pad_id=0)


def test_rows_by_hand() -> None:
    rows = pad([([5, 6, 7], [False, True, True]), ([8, 9], [False, True])], pad_id=0, device="cpu")
    assert rows.ids_BT.tolist() == [[5, 6, 7], [8, 9, 0]]
    # 6 is predicted at 0, 7 at 1; 9 at the second row's first place, 3
    assert rows.at_N.tolist() == [0, 1, 3]
    assert rows.target_N.tolist() == [6, 7, 9]
    [batch] = micro_batches(
        [sample("policy", 5, 0.5, 0, [-1.0, -2.0, -3.0])], "policy", 9, 0, "cpu"
    )
    assert batch.sampler_logp_N.tolist() == [-1, -2, -3]
    assert batch.adv_N.tolist() == [0.5, 0.5, 0.5]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(3, 50), max_size=30), st.integers(1, 4))
def test_processes_learn_everything_once_and_equal_shares(lengths: list[int], count: int) -> None:
    samples = [sample("policy", n, 1.0, i, task=str(i)) for i, n in enumerate(lengths)]
    shares = []
    for rank in range(count):
        with pytest.MonkeyPatch.context() as patch:
            for module in (processes, batching):
                patch.setattr(module, "rank_and_size", lambda rank=rank: (rank, count))
            shares.append(micro_batches(samples, "policy", 60, 0, "cpu"))
    learnt = sorted(int(task) for batches in shares for batch in batches for task in batch.tasks)
    assert learnt == list(range(len(lengths)))
    longest = max(lengths, default=0)
    for together_ in zip(*shares, strict=True):
        sizes = [batch.rows.ids_BT.numel() for batch in together_ if batch.tasks]
        # a pack lacks less than a row of the budget, but for the last one
        assert len(sizes) < count or together_[-1] is shares[-1][-1] or min(sizes) > 60 - longest


@pytest.mark.parametrize("module", [batching, forward, learner, objective, optimizer])
def test_what_learns_does_not_look_where_samples_come_from(module: Any) -> None:
    assert "stage" not in Path(module.__file__).read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    ("how", "wrapper"), [("ddp", "DistributedDataParallel"), ("fsdp2", "FSDPScorer")]
)
def test_two_processes_learn_what_one_does(how: str, wrapper: str, tmp_path: Path) -> None:
    together([str(FOLDER / "learner_two_processes.py"), str(tmp_path / "found.pt"), how])
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert found["wrapper"] == wrapper
    alone = Learner(model(), Config(lr=1e-2, token_budget=20, kl_weight=0.1), pad_id=0)
    for theirs, samples in zip(found["metrics"], (SAMPLES, MORE, []), strict=True):
        assert alone.update(samples) == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    for name, weight in alone.model.named_parameters():
        torch.testing.assert_close(found["weights"][name], weight.detach(), rtol=1e-6, atol=1e-8)
    # one process's share was bad; both said so, and nobody waits for ever
    assert found["fault"] == ["loss is inf in the micro-batch of tasks bad (imitate)"] * 2
    saved, _ = load_model(str(tmp_path / "model"))
    for name, weight in saved.named_parameters():
        torch.testing.assert_close(found["weights"][name], weight.detach(), rtol=0, atol=0)
    state = checkpoint.load(tmp_path / "checkpoints" / "step-000003.pt")["learner"]
    alone.load_state_dict(state)  # several processes' checkpoint is one process's
    alone.update(MORE)
    assert found["probe"][0] == pytest.approx(alone.log_probs([5, 6, 7, 8]), rel=1e-6)
    assert found["probe"][1] == pytest.approx(found["probe"][0], rel=1e-12)
    assert found["went_on"][1] == pytest.approx(found["went_on"][0], rel=1e-12)
