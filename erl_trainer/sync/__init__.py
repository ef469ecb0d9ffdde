"""Who samples in training, and how it gets the trainer's weights after every update.

Whether it really got them is checked, not assumed: `verify` compares the log-probabilities of a
fixed prompt and of the sampler's answer to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from erl_trainer.config import Config
from erl_trainer.sync.in_process import InProcessVllm
from erl_trainer.sync.sampler import ChatOptions, Sampler, Score, Shared, StaleSampler, verify
from erl_trainer.sync.server import VllmServer

__all__ = ["Sampler", "StaleSampler", "load_sampler", "verify"]


def load_sampler(
    config: Config, model: Any, tokenizer: Any, folder: Path, score: Score | None = None
) -> Sampler:
    """Who samples for a run, with the model's weights in it.

    Args:
        config: The run's; `backend`, `dtype`, `server_url`, `concurrency`, `thoughts` and
            `template` decide.
        model: What is trained, as the learner has it.
        tokenizer: Its own.
        folder: The run's; a `vllm-server` finds weights in `sampler/` of it.
        score: The trainer's, for `verify`.

    Raises:
        ValueError: The backend is not installed or cannot load the model; one line.
        PolicyError: The server does not answer or refuses.
        StaleSampler: It samples from other weights even now.
    """
    sampler: Sampler
    chat: ChatOptions = {"thoughts": config.history, "template": config.template}
    if config.backend == "transformers":
        sampler = Shared(config.model, model, tokenizer, **chat)
    elif config.backend == "vllm":
        sampler = InProcessVllm(model, tokenizer, getattr(torch, config.dtype), **chat)
    else:
        sampler = VllmServer(
            config.server_url, model, tokenizer, folder / "sampler", config.concurrency, **chat
        )
    sampler.sync(model)
    verify(sampler, model, score)
    return sampler
