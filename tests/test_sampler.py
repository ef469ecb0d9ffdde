"""Batched sampling gives each row what it would get alone, and reports the model's own numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny_models import tiny_model

from erl_envs.policies import prefill
from erl_envs.policies.base import Sampling
from erl_envs.policies.sampler import Sampled, pick, sample

MODEL = tiny_model()
PROMPTS = [
    np.random.default_rng(length).integers(0, 256, length).tolist() for length in (1, 17, 5, 40, 9)
]
STOPS = list(range(0, 297, 8))  # an eighth of all ids, so that rows end at different steps
PLAIN = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=16)
PAPER = Sampling(max_tokens=16)
GREEDY = Sampling(temperature=0.0, max_tokens=16)
ALMOST_ONE = math.nextafter(1.0, 0.0)


def run(
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_ids: Sequence[int] = STOPS,
    first_seed: int = 0,
    model: Any = MODEL,
) -> list[Sampled]:
    rngs = [np.random.default_rng(first_seed + row) for row in range(len(prompts))]
    rows: list[Sampled] = sample(model, prompts, rngs, sampling, stop_ids)
    return rows


def full_forward(ids: Sequence[int]) -> Any:
    """Log-probabilities after each id: one row, no cache, no padding."""
    with torch.inference_mode():
        return MODEL(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].log_softmax(-1)


class Recorder:
    """A model that notes the ids and positions that each forward call reads."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.ids: list[Any] = []
        self.positions: list[Any] = []

    @property
    def rows(self) -> list[int]:
        return [len(ids_BL) for ids_BL in self.ids]

    def __call__(self, **kwargs: Any) -> Any:
        self.ids.append(kwargs["input_ids"])
        self.positions.append(kwargs["position_ids"])
        return self.model(**kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


@pytest.mark.parametrize("sampling", [PLAIN, PAPER, GREEDY])
def test_a_row_samples_in_a_batch_what_it_samples_alone(sampling: Sampling) -> None:
    together = run(PROMPTS, sampling)
    lengths = [len(row.ids) for row in together]
    assert len(set(lengths)) > 1, "the rows must end at different steps for this to test anything"
    for row, prompt in enumerate(PROMPTS):
        [alone] = run([prompt], sampling, first_seed=row)
        assert together[row].ids == alone.ids
        assert together[row].stopped == alone.stopped
        assert np.allclose(together[row].logprobs, alone.logprobs, atol=1e-4)


def test_the_order_of_the_batch_does_not_matter() -> None:
    def at(order: Sequence[int]) -> dict[int, Sampled]:
        rngs = [np.random.default_rng(row) for row in order]
        rows = sample(MODEL, [PROMPTS[row] for row in order], rngs, PLAIN, STOPS)
        return dict(zip(order, rows, strict=True))

    forth, back = at(range(5)), at([3, 1, 4, 0, 2])
    assert all(forth[row].ids == back[row].ids for row in range(5))


def test_rows_that_ended_are_not_computed_any_further() -> None:
    model = Recorder(MODEL)
    rows = run(PROMPTS, PLAIN, model=model)
    longest = max(len(row.ids) for row in rows)
    assert model.rows == [sum(len(row.ids) > step for row in rows) for step in range(longest)]
    assert model.rows[0] == len(PROMPTS) > model.rows[-1]


def test_positions_count_from_each_rows_first_id() -> None:
    model = Recorder(MODEL)
    run(PROMPTS, PLAIN, stop_ids=[], model=model)
    for row, prompt in enumerate(PROMPTS):
        first, *later = [position_BL[row].tolist() for position_BL in model.positions]
        assert first[-len(prompt) :] == list(range(len(prompt)))
        assert later == [[len(prompt) + step] for step in range(PLAIN.max_tokens - 1)]


def test_what_was_read_before_need_not_be_read_again() -> None:
    told = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [], [10, 11]]
    first = run(PROMPTS, PLAIN)
    longer = [[*p, *row.ids, *more] for p, row, more in zip(PROMPTS, first, told, strict=True)]
    pasts = [row.past for row in first]
    pasts[1] = None  # a conversation that has just begun
    rngs = [np.random.default_rng(50 + row) for row in range(5)]
    model = Recorder(MODEL)

    kept = sample(model, longer, rngs, PLAIN, STOPS, pasts)
    anew = run(longer, PLAIN, first_seed=50)

    assert [row.ids for row in kept] == [row.ids for row in anew]
    for with_past, without in zip(kept, anew, strict=True):
        assert np.allclose(with_past.logprobs, without.logprobs, atol=1e-4)
    new = [1 + len(more) for more in told]  # the last sampled id was not read yet
    new[1] = len(longer[1])
    for ids_L, prompt, fresh in zip(model.ids[0].tolist(), longer, new, strict=True):
        assert ids_L == [0] * (max(new) - fresh) + prompt[-fresh:]


def test_prompts_read_a_few_at_a_time_are_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    together, apart, later = Recorder(MODEL), Recorder(MODEL), Recorder(MODEL)
    at_once = run(PROMPTS, PLAIN, model=together)
    monkeypatch.setattr(prefill, "TOKENS", 20)
    in_parts = run(PROMPTS, PLAIN, model=apart)

    assert together.ids[0].shape == (5, 40)
    # of 1, 17, 5, 40 and 9 ids: the longest alone, so is the next; 9 and 5 together; then 1
    assert [ids_BL.shape for ids_BL in apart.ids[:4]] == [(1, 40), (1, 17), (2, 9), (1, 1)]
    for one, other in zip(at_once, in_parts, strict=True):
        assert one.ids == other.ids
        assert np.allclose(one.logprobs, other.logprobs, atol=1e-4)
        assert one.past is not None and other.past is not None
        for held, theirs in zip(one.past, other.past, strict=True):
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(held, theirs, strict=True))

    # once something is held, the rest is read in one pass
    longer = [[*p, *row.ids, 7] for p, row in zip(PROMPTS, in_parts, strict=True)]
    rngs = [np.random.default_rng(row) for row in range(5)]
    sample(later, longer, rngs, PLAIN, STOPS, [row.past for row in in_parts])
    assert later.ids[0].shape == (5, 2)


def test_equal_prompts_are_read_once_and_sampled_apart() -> None:
    prompts = [PROMPTS[1], PROMPTS[2], PROMPTS[1], PROMPTS[1], PROMPTS[2]]
    rngs = [np.random.default_rng(row) for row in range(5)]
    model = Recorder(MODEL)
    together = sample(model, prompts, rngs, PLAIN, STOPS)
    assert model.ids[0].shape == (2, 17)
    assert len({tuple(together[row].ids) for row in (0, 2, 3)}) == 3
    for row, prompt in enumerate(prompts):
        [alone] = sample(MODEL, [prompt], [np.random.default_rng(row)], PLAIN, STOPS)
        assert together[row].ids == alone.ids
        assert np.allclose(together[row].logprobs, alone.logprobs, atol=1e-4)


def test_temperature_zero_is_the_argmax_of_the_full_forward() -> None:
    for prompt, row in zip(PROMPTS, run(PROMPTS, GREEDY, stop_ids=[]), strict=True):
        ids = list(prompt)
        for _ in range(GREEDY.max_tokens):
            ids.append(int(full_forward(ids)[-1].argmax()))
        assert row.ids == ids[len(prompt) :]


@pytest.mark.parametrize("sampling", [PLAIN, PAPER, GREEDY])
def test_logprobs_are_the_full_forwards_at_the_temperature_before_any_cut(
    sampling: Sampling,
) -> None:
    for prompt, row in zip(PROMPTS, run(PROMPTS, sampling), strict=True):
        logp_LV = full_forward([*prompt, *row.ids])[len(prompt) - 1 : -1]
        logp_LV = (logp_LV / (sampling.temperature or 1.0)).log_softmax(-1)
        expected = logp_LV.gather(1, torch.tensor(row.ids)[:, None])[:, 0]
        assert np.allclose(row.logprobs, expected, atol=1e-4)


def test_a_stop_id_ends_its_row_and_is_kept_as_the_last_id() -> None:
    rows = [row for seed in range(4) for row in run(PROMPTS, PLAIN, first_seed=10 * seed)]
    stopped, cut_off = [r for r in rows if r.stopped], [r for r in rows if not r.stopped]
    assert stopped and cut_off
    assert all(row.ids[-1] in STOPS for row in stopped)
    assert all(len(row.ids) == PLAIN.max_tokens for row in cut_off)
    assert all(not set(row.ids[:-1]) & set(STOPS) for row in rows)
    assert all(row.ids[-1] not in STOPS for row in cut_off)


def test_a_full_context_ends_its_row_alone() -> None:
    short = tiny_model(context=44)
    rows = run(PROMPTS, PLAIN, stop_ids=[], model=short)
    assert [len(row.ids) for row in rows] == [16, 16, 16, 4, 16]  # the fourth prompt has 40 ids
    assert not any(row.stopped for row in rows)


# `pick`: ids 0 to 3 have these probabilities; from most to least likely they are 1, 3, 0, 2
PROBS = [0.15, 0.5, 0.05, 0.3]


def picked(draw: float, **sampling: Any) -> int:
    cuts = Sampling(**{"temperature": 1.0, "top_p": 1.0, "top_k": 0, **sampling})
    return int(pick(torch.tensor([PROBS]).log(), torch.tensor([draw]), cuts)[0])


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        # cumulated in the order of ids: .15 .65 .70 1
        ({}, {0.0: 0, 0.14: 0, 0.16: 1, 0.64: 1, 0.66: 2, 0.69: 2, 0.71: 3, ALMOST_ONE: 3}),
        # kept: 1 and 3, which is .5 / .8 = .625, then 1
        ({"top_k": 2}, {0.0: 1, 0.62: 1, 0.63: 3, ALMOST_ONE: 3}),
        ({"top_k": 1}, {0.0: 1, ALMOST_ONE: 1}),
        # more than there are: all, from most to least likely: .5 .8 .95 1
        ({"top_k": 9}, {0.0: 1, 0.49: 1, 0.51: 3, 0.79: 3, 0.81: 0, 0.94: 0, 0.96: 2}),
        # .5 alone is less than .75, .5 + .3 is enough
        ({"top_p": 0.75}, {0.0: 1, 0.62: 1, 0.63: 3, ALMOST_ONE: 3}),
        # .5 + .3 is less than .85, so 0 is kept: .5 / .95 = .526, .8 / .95 = .842, then 1
        ({"top_p": 0.85}, {0.0: 1, 0.52: 1, 0.53: 3, 0.84: 3, 0.85: 0, ALMOST_ONE: 0}),
        ({"top_p": 0.01}, {0.0: 1, ALMOST_ONE: 1}),
        # top-p over what top-k left: 1 then has .5 / .95 = .526, which is enough for .52
        ({"top_k": 3, "top_p": 0.52}, {0.0: 1, ALMOST_ONE: 1}),
        # .526 is less than .6, .842 is enough
        ({"top_k": 3, "top_p": 0.6}, {0.0: 1, 0.62: 1, 0.63: 3, ALMOST_ONE: 3}),
        # squares .0225 .25 .0025 .09, together .365: .0616 .7466 .7534 1
        ({"temperature": 0.5}, {0.0: 0, 0.06: 0, 0.07: 1, 0.74: 1, 0.75: 2, 0.76: 3}),
        # top-p after temperature: .25 / .365 = .685 is enough for .6
        ({"temperature": 0.5, "top_p": 0.6}, {0.0: 1, ALMOST_ONE: 1}),
        ({"temperature": 0.0}, {0.0: 1, ALMOST_ONE: 1}),
    ],
)
def test_pick_by_hand(sampling: dict[str, Any], expected: dict[float, int]) -> None:
    assert {draw: picked(draw, **sampling) for draw in expected} == expected


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20, width=32) | st.just(-math.inf), min_size=1, max_size=12),
    likely=st.floats(-20, 20, width=32),
    place=st.integers(0, 12),
    draw=st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, ALMOST_ONE]),
    temperature=st.floats(0.05, 5) | st.just(0.0),
    top_k=st.integers(0, 14),
    top_p=st.floats(0.01, 1) | st.just(1.0),
)
def test_pick_never_leaves_what_the_cuts_keep(
    logits: list[float],
    likely: float,
    place: int,
    draw: float,
    temperature: float,
    top_k: int,
    top_p: float,
) -> None:
    logits.insert(place, likely)  # so that one is finite
    cuts = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    token = int(pick(torch.tensor([logits]), torch.tensor([draw]), cuts)[0])

    more_likely = sorted((x for x in logits if x > logits[token]), reverse=True)
    assert logits[token] > -math.inf
    if temperature == 0:
        assert not more_likely
        return
    if top_k:
        assert len(more_likely) < top_k
    weights = np.exp((np.array(logits) - max(logits)) / temperature)
    assert weights[token] > 0
    kept = np.sort(weights)[::-1][: top_k or None]
    mass_before = np.sum(kept[: len(more_likely)]) / np.sum(kept)
    assert mass_before < top_p + 1e-5


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({}, PROBS),
        ({"temperature": 0.5}, [0.0225 / 0.365, 0.25 / 0.365, 0.0025 / 0.365, 0.09 / 0.365]),
        ({"top_k": 3, "top_p": 0.9}, [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]),
        ({"top_p": 0.75}, [0, 0.625, 0, 0.375]),
    ],
)
def test_pick_draws_from_the_distribution(sampling: dict[str, Any], expected: list[float]) -> None:
    draws, cuts = 50_000, Sampling(**{"temperature": 1.0, "top_p": 1.0, "top_k": 0, **sampling})
    uniform = torch.from_numpy(np.random.default_rng(0).random(draws))
    tokens = pick(torch.tensor(PROBS).log().expand(draws, -1), uniform, cuts)
    counts = np.bincount(tokens, minlength=4)
    means = draws * np.array(expected)
    possible = means > 0
    assert counts[~possible].sum() == 0
    chi_square = ((counts - means)[possible] ** 2 / means[possible]).sum()
    assert chi_square < 21.1  # exceeded once in 10,000 at 3 degrees of freedom


def test_each_row_uses_its_own_draw() -> None:
    logp_BV = torch.tensor([PROBS, PROBS, PROBS[::-1]]).log()
    draws_B = torch.tensor([0.1, 0.72, 0.1])
    assert pick(logp_BV, draws_B, PLAIN).tolist() == [0, 3, 0]
    assert pick(logp_BV, draws_B, PAPER).tolist() == [1, 3, 2]
