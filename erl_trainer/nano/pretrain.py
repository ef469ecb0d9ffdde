"""Pre-training: conversations of one environment, the next token, one small model.

Sequences come in a few fixed shapes, so that the model compiles once for each. Weights are kept in
float32 and multiplied in bfloat16. A step's data are a function of (seed, step), so a resumed run
goes on as if it had not stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from erl_trainer.checkpoint import save_model, write_state
from erl_trainer.nano import games, questions
from erl_trainer.nano.boards import Game
from erl_trainer.nano.drills import drilling
from erl_trainer.nano.examples import LEARN, SHOWN, Example, Part, encode
from erl_trainer.nano.recipe import Recipe
from erl_trainer.nano.tokenizer import cells, places

SHAPES = (96, 192, 320, 512, 736, 896)
"""Sequence lengths; longer conversations are left out."""

SAVE_EVERY = 200
"""Steps."""

Draw = Callable[[np.random.Generator], list[Part]]


def _sources(game: Game) -> dict[str, Draw]:
    return {
        "turn": partial(games.acting, game, turns=1),
        "drill": partial(drilling, game),
        "act": partial(games.acting, game),
        "look": partial(games.looking, game),
        "glance": partial(games.reflecting, game, lengths=(1, 2)),
        "reflect": partial(games.reflecting, game),
    }


SOURCES: Mapping[str, Mapping[str, Draw]] = {
    "frozenlake": _sources("frozenlake"),
    "sokoban": {**_sources("sokoban"), "recount": games.recounting},
    "hotpotqa": {
        "turn": questions.asking,
        "drill": questions.quizzing,
        "act": questions.acting,
        "glance": questions.reflecting,
    },
}
"""Environment → source → how an example is drawn."""

FIRST = {"turn": 0.25, "drill": 0.25, "look": 0.25, "act": 0.25}
THEN = {
    "turn": 0.1,
    "drill": 0.1,
    "look": 0.05,
    "act": 0.2,
    "recount": 0.2,
    "glance": 0.2,
    "reflect": 0.25,
}
"""Each source's share of the steps, at first and once playing is learnt."""


class Batch(NamedTuple):
    """Fixed shapes: `ids_BT`; places and targets of the P tokens that are learnt, with weights."""

    ids_BT: torch.Tensor
    place_P: torch.Tensor
    target_P: torch.Tensor
    weight_P: torch.Tensor


def build_model(recipe: Recipe, tokenizer: Any) -> Any:
    """A fresh Llama model for the tokenizer."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=math.ceil(recipe.hidden * 8 / 3 / 32) * 32,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        # the usual .02 is for wide models: here attention would stay uniform for long
        initializer_range=0.12,
        # a row and a column are told by distances under a hundred; most frequencies serve those
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    _compose_cells(model.get_input_embeddings().weight.data, tokenizer)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def _compose_cells(embeddings_VD: torch.Tensor, tokenizer: Any) -> None:
    """Start a place's and a cell's token as the sum of its parts: what is alike is found anywhere.

    A row and a column of the same number are told apart by where in the vector they are put.
    """
    ids = tokenizer.get_vocab()
    for place in places():
        row, column = embeddings_VD[ids[place[0]]], embeddings_VD[ids[place[2]]]
        embeddings_VD[ids[place]] = (row.roll(1) + column.roll(2)) / 2**0.5
    for cell in cells():
        symbol, place = embeddings_VD[ids[cell[0]]], embeddings_VD[ids[cell[1:]]]
        embeddings_VD[ids[cell]] = (symbol + 2**0.5 * place) / 3**0.5


def collate(examples: Sequence[Example], length: int, rows: int, shown: float, rng: Any) -> Batch:
    """A batch of `rows` × `length`; a quarter of its tokens at most are learnt.

    What is to be said weighs 1 in all; a random part of what the world answers weighs `shown`.
    """
    room = rows * length // 4
    ids_BT = torch.zeros(rows, length, dtype=torch.long)
    kinds = np.zeros((rows, length), dtype=np.int8)
    for row, (ids, kind) in enumerate(examples):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        kinds[row, : len(kind)] = kind
    flat = kinds[:, 1:].reshape(-1)
    learn = np.flatnonzero(flat == LEARN)[:room]
    world = rng.permutation(np.flatnonzero(flat == SHOWN))[: room - len(learn)]
    place = np.zeros(room, dtype=np.int64)
    weight = np.zeros(room, dtype=np.float32)
    place[: len(learn)] = learn
    weight[: len(learn)] = 1 / max(len(learn), 1)
    place[len(learn) : len(learn) + len(world)] = world
    weight[len(learn) : len(learn) + len(world)] = shown / max(len(world), 1)
    place_P = torch.from_numpy(place)
    return Batch(ids_BT, place_P, ids_BT[:, 1:].reshape(-1)[place_P], torch.from_numpy(weight))


def draw_batch(recipe: Recipe, tokenizer: Any, step: int) -> tuple[str, Batch]:
    """The batch of a step: one source's examples of about the same length, and its name."""
    rng = np.random.default_rng([recipe.seed, step])
    sources = SOURCES["sokoban" if step < recipe.lead else recipe.env]
    mixture = FIRST if own_step(recipe, step) < recipe.playing else THEN
    names = [name for name in mixture if name in sources]
    shares = np.array([mixture[name] for name in names])
    name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    # a pool of twice the need, ordered by length: padding is small and lengths vary between steps
    pool: list[Example] = []
    while sum(len(example.ids) for example in pool) < 2 * recipe.tokens:
        pool += encode(tokenizer, [sources[name](rng) for _ in range(8)])
    pool = sorted((e for e in pool if len(e.ids) <= SHAPES[-1]), key=lambda e: len(e.ids))
    anchor = int(rng.integers(len(pool)))
    length = next(shape for shape in SHAPES if len(pool[anchor].ids) <= shape)
    rows = recipe.tokens // length
    fits = sum(len(example.ids) <= length for example in pool)
    return name, collate(pool[max(0, fits - rows) : fits], length, rows, recipe.shown, rng)


def loss_of(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted cross-entropy (a scalar), and that of each learnt token (shape P)."""
    hidden_BTD = model.model(input_ids=batch.ids_BT, use_cache=False).last_hidden_state
    hidden_ND = hidden_BTD[:, :-1].reshape(-1, hidden_BTD.shape[-1])
    logits_PV = model.lm_head(hidden_ND[batch.place_P]).float()
    losses_P = nn.functional.cross_entropy(logits_PV, batch.target_P, reduction="none")
    return (losses_P * batch.weight_P).sum(), losses_P.detach()


def own_step(recipe: Recipe, step: int) -> int:
    """The step counted from where the lead, or the environment's own part, began."""
    return step if step < recipe.lead else step - recipe.lead


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up, then a cosine to a tenth of the peak; anew after the lead. Then, if ever, to 0."""
    step = own_step(recipe, step)
    if step >= recipe.steps and recipe.cooling:
        return recipe.lr * 0.1 * (1 - (step - recipe.steps) / recipe.cooling)
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0))))


def pretrain(recipe: Recipe, tokenizer: Any, out: Path) -> Any:
    """Train in one thread, saving to `out` every `SAVE_EVERY` steps; goes on from what is there.

    Returns:
        The model, in float32.

    Raises:
        ValueError: What is there was made by another recipe.
        WriteError: The disk refuses; what was saved last is there still.
    """
    torch.set_num_threads(1)
    model = build_model(recipe, tokenizer)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    check_folder(recipe, out)
    first = _resume(model, optimizer, out)
    fast = build_model(recipe, tokenizer).to(torch.bfloat16)
    # on a CPU the fused attention's backward pass in bfloat16 takes longer than the whole matrices'
    fast.set_attn_implementation("eager")
    fast_weights = list(fast.parameters())
    compute = torch.compile(loss_of, dynamic=False) if recipe.compiled else loss_of
    seen: dict[str, list[float]] = {}
    began = time.perf_counter()
    last = recipe.lead + recipe.steps + recipe.cooling
    for step in range(first, last):
        with torch.no_grad():
            torch._foreach_copy_(fast_weights, weights)
        name, batch = draw_batch(recipe, tokenizer, step)
        loss, losses_P = compute(fast, batch)
        loss.backward()
        for weight, quick in zip(weights, fast_weights, strict=True):
            weight.grad = None if quick.grad is None else quick.grad.float()
            quick.grad = None
        norm = nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        if math.isfinite(norm):
            optimizer.step()
        said = batch.weight_P == batch.weight_P[0]
        seen.setdefault(name, []).append(losses_P[said].mean().item())
        if (step + 1) % 100 == 0:
            line = {k: round(float(np.mean(v)), 4) for k, v in sorted(seen.items())}
            rate = recipe.tokens * (step + 1 - first) / (time.perf_counter() - began)
            told = {"env": recipe.env, "step": step + 1, **line, "tokens_per_s": int(rate)}
            print(json.dumps(told), flush=True)
            seen.clear()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == last:
            _save(model, optimizer, recipe, tokenizer, step + 1, out)
    return model


def _save(model: Any, optimizer: Any, recipe: Recipe, tokenizer: Any, step: int, out: Path) -> None:
    save_model(model, tokenizer, out / "model")
    state = {
        "step": step,
        "recipe": asdict(recipe),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    write_state(state, out / "state.pt")


def check_folder(recipe: Recipe, out: Path) -> None:
    """Compare a recipe with the one that made what a folder holds.

    Raises:
        ValueError: It is another.
    """
    if not (out / "state.pt").exists():
        return
    # a field that came later has its default
    held = asdict(Recipe()) | torch.load(out / "state.pt", weights_only=True)["recipe"]
    own = asdict(recipe)
    if differing := [k for k in own if k != "compiled" and held[k] != own[k]]:
        raise ValueError(f"{out} holds a model with another {differing[0]}; give another --out")


def _resume(model: Any, optimizer: Any, out: Path) -> int:
    path = out / "state.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
