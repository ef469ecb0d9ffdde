"""Samples for tests of the learner, and, as a script, two processes that learn them together."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_model, tiny_tokenizer

from erl_trainer.types import Kind, NotFinite, Sample, Stage


def model(seed: int = 0) -> Any:
    """In float64, so that what ought to be equal is."""
    return tiny_model(seed=seed).double()


def sample(
    kind: Kind,
    length: int,
    advantage: float,
    seed: int,
    logprobs: Sequence[float] | None = None,
    task: str = "task",
) -> Sample:
    """Random ids; about half are sampled, in two runs; `logprobs` are those of the sampled."""
    rng = random.Random(f"{length} {seed}")
    ids = [rng.randrange(256) for _ in range(length)]
    sampled = [t >= length // 3 and t != length // 2 for t in range(length)]
    given = iter(logprobs or [rng.uniform(-6, -4) for _ in ids])
    prompt = [7, 8, 9] if kind == "match" else []
    return Sample(
        stage=Stage.ATTEMPT_1,
        task=task,
        kind=kind,
        ids=ids,
        sampled=sampled,
        logprobs=[next(given) if was else 0.0 for was in sampled],
        reward=1.0,
        advantage=advantage,
        teacher_ids=[*prompt, *ids] if prompt else (),
        teacher_sampled=[*[False] * len(prompt), *sampled] if prompt else (),
    )


SAMPLES = [
    sample("policy", 19, 1.0, 0),
    sample("policy", 6, -0.5, 1),
    sample("policy", 12, 0.25, 2),
    sample("policy", 9, -1.0, 3),
    sample("imitate", 14, 1.0, 4),
    sample("imitate", 8, 0.5, 5),
    sample("match", 10, 1.0, 6),
    sample("match", 17, 0.5, 7),
]
MORE = [sample("policy", 15, 1.0, 8), sample("policy", 9, -1.0, 9)]


def sharding_accelerator() -> Any:
    """Accelerate with FSDP2 on the CPU; it offers FSDP on GPUs alone, and ignores it elsewhere."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    accelerator = Accelerator(cpu=True)
    shared = AcceleratorState._shared_state
    shared["fsdp_plugin"] = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    shared["distributed_type"] = DistributedType.FSDP
    return accelerator


def learn(path: Path, shard: bool) -> None:
    """Learn the samples together; the first process writes what came of it."""
    from erl_trainer.checkpoint import load, save, save_model
    from erl_trainer.config import Config
    from erl_trainer.learner import Learner
    from erl_trainer.processes import gather, rank_and_size

    config = Config(lr=1e-2, token_budget=20, kl_weight=0.1)
    learner = Learner(model(), config, 0, sharding_accelerator() if shard else None)
    rank, size = rank_and_size()
    assert size == 2
    metrics = [learner.update(samples) for samples in (SAMPLES, MORE, [])]
    weights = {
        name: weight.full_tensor() if hasattr(weight, "full_tensor") else weight.detach().clone()
        for name, weight in learner.model.named_parameters()
    }
    try:
        learner.update([MORE[0], sample("imitate", 9, float("inf"), 0, task="bad")])
        fault = "none"
    except NotFinite as error:
        fault = str(error)
    faults = gather([fault])
    save_model(learner.model, tiny_tokenizer(), path.with_name("model"))
    checkpoint = save(path.with_name("checkpoints"), 3, {"learner": learner.state_dict()})
    torch.distributed.barrier()
    resumed = Learner(model(), config, 0, sharding_accelerator() if shard else None)
    resumed.load_state_dict(load(checkpoint)["learner"])
    went_on = [each.update(MORE)["grad_norm"] for each in (learner, resumed)]
    probe = [each.log_probs([5, 6, 7, 8]) for each in (learner, resumed)]
    if rank == 0:
        found = {"metrics": metrics, "weights": weights, "fault": faults}
        found |= {"went_on": went_on, "probe": probe}
        torch.save({"wrapper": type(learner._scorer).__name__, **found}, path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    learn(Path(sys.argv[1]), shard=sys.argv[2] == "fsdp2")
    torch.distributed.barrier()
    # what was learnt is written; gloo's own end sometimes hangs or aborts, and is not tested here
    sys.stderr.flush()
    os._exit(0)
