"""Micro-batches of a token budget: they change how much memory a batch takes, not its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from erl_envs.packing import pack
from erl_trainer.processes import rank_and_size, share
from erl_trainer.types import Kind, Sample


class Rows(NamedTuple):
    """Sequences padded on the right, and which of their tokens are learnt.

    Attributes:
        ids_BT: Token ids.
        at_N: Where each learnt token is predicted, the place before it: an index into B * T.
        target_N: Each learnt token's id, sequence after sequence.
    """

    ids_BT: torch.Tensor
    at_N: torch.Tensor
    target_N: torch.Tensor


class MicroBatch(NamedTuple):
    """Samples of one kind that are forwarded together.

    Attributes:
        kind: How they are learnt from.
        tasks: Their task ids.
        rows: Their ids.
        teacher: Of kind `match`, the same learnt tokens after the teacher's prompts.
        temperature_N: What each learnt token was sampled at; None where it is 1 for all.
        sampler_logp_N: The sampler's log-probability of each learnt token (nats), at that.
        adv_N: Each learnt token's advantage.
    """

    kind: Kind
    tasks: tuple[str, ...]
    rows: Rows
    teacher: Rows | None
    temperature_N: torch.Tensor | None
    sampler_logp_N: torch.Tensor
    adv_N: torch.Tensor


def micro_batches(
    samples: Sequence[Sample], kind: Kind, token_budget: int, pad_id: int, device: Any
) -> list[MicroBatch]:
    """This process's part of the samples of one kind, longest first.

    Processes wait for each other in every pass: all have as many, and those of a pass are about
    as large.

    Args:
        samples: The same on all processes.
        kind: Theirs.
        token_budget: Most tokens of one, padding included; a longer sample is alone.
        pad_id: What fills up rows.
        device: Where the tensors go.
    """
    packs = pack([max(len(s.ids), len(s.teacher_ids)) for s in samples], token_budget)
    _, size = rank_and_size()
    packs += [[]] * (-len(packs) % size)
    return [collate([samples[i] for i in places], kind, pad_id, device) for places in share(packs)]


def collate(samples: Sequence[Sample], kind: Kind, pad_id: int, device: Any) -> MicroBatch:
    """One micro-batch of samples; of none, one of a padding token with nothing to learn.

    Raises:
        ValueError: A sample's `ids`, `sampled` and `logprobs` differ in length.
    """
    logps, advs, temperatures = [], [], []
    for s in samples:
        own = [p for p, learnt in zip(s.logprobs, s.sampled, strict=True) if learnt]
        logps += own
        advs += [s.advantage] * len(own)
        temperatures += [s.temperature] * len(own)
    return MicroBatch(
        kind=kind,
        tasks=tuple(s.task for s in samples),
        rows=pad([(s.ids, s.sampled) for s in samples], pad_id, device),
        teacher=pad([(s.teacher_ids, s.teacher_sampled) for s in samples], pad_id, device)
        if kind == "match"
        else None,
        # at 1 the logits are not copied to be divided
        temperature_N=torch.tensor(temperatures, dtype=torch.float32, device=device)
        if any(t != 1 for t in temperatures)
        else None,
        sampler_logp_N=torch.tensor(logps, dtype=torch.float32, device=device),
        adv_N=torch.tensor(advs, dtype=torch.float32, device=device),
    )


def pad(
    sequences: Sequence[tuple[Sequence[int], Sequence[bool]]], pad_id: int, device: Any
) -> Rows:
    """Ids, and for each whether it is learnt, as padded rows.

    Raises:
        ValueError: Ids and flags differ in length, or a first id is learnt: nothing predicts it.
    """
    sequences = sequences or [([pad_id], [False])]
    width = max(len(ids) for ids, _ in sequences)
    at, target = [], []
    ids_BT = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    for row, (ids, sampled) in enumerate(sequences):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        learnt = [t for t, (_, was) in enumerate(zip(ids, sampled, strict=True)) if was]
        if learnt and learnt[0] == 0:
            raise ValueError("the first id of a sample is marked as sampled: nothing predicts it")
        at += [row * width + t - 1 for t in learnt]
        target += [ids[t] for t in learnt]
    return Rows(
        ids_BT.to(device),
        torch.tensor(at, dtype=torch.long, device=device),
        torch.tensor(target, dtype=torch.long, device=device),
    )


def pad_id(tokenizer: Any) -> int:
    """The token id that fills up rows; any will do, for no loss falls on it."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)
