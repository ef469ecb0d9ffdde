"""A vLLM engine in the trainer's process."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any, Unpack

import torch

from erl_trainer.forward import bare
from erl_trainer.processes import rank_and_size
from erl_trainer.sync.sampler import ChatOptions, Sampler, StaleSampler
from erl_trainer.sync.weights import UNTIED, weights

GPU_SHARE = 0.3
"""Of a GPU's memory for vLLM's weights and cache; the trainer in the same process has the rest."""


class InProcessVllm(Sampler):
    """A vLLM engine in this process: weights go from the trainer's tensors into the engine's."""

    def __init__(
        self, model: Any, tokenizer: Any, dtype: torch.dtype, **chat: Unpack[ChatOptions]
    ) -> None:
        """Start the engine, its weights still random.

        Args:
            model: What is trained, loaded by `from_pretrained`.
            tokenizer: Its own.
            dtype: To compute in.
            **chat: What the chat template does.

        Raises:
            ValueError: vLLM is not installed, or cannot load the model.
        """
        from erl_envs.policies.vllm import Vllm

        # in a process of its own, the engine could be given files or pickles only
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        options: dict[str, Any] = {
            "dtype": str(dtype).removeprefix("torch."),
            "load_format": "dummy",
            "gpu_memory_utilization": GPU_SHARE,
            "max_model_len": -1,  # as much of the model's context as fits into the cache
        }
        if not torch.cuda.is_available():
            options["hf_overrides"] = UNTIED
        if rank_and_size()[1] > 1:
            # each process has an engine of its own on its own device
            options["distributed_executor_backend"] = "external_launcher"
        with tempfile.TemporaryDirectory() as folder:
            base = bare(model)
            base.config.save_pretrained(folder)
            base.generation_config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            policy = Vllm(folder, **chat, **options)
        super().__init__(policy, dtype)
        self._engine = policy.engine
        # it warns, at every sync, of each buffer that no checkpoint has; `verify` is the judge
        logging.getLogger("vllm.model_executor.model_loader.reload").setLevel(logging.ERROR)

    def sync(self, model: Any) -> None:
        """Load the weights one tensor at a time, then drop the prefix cache."""
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights(model)})
        if not self._engine.reset_prefix_cache():
            raise StaleSampler("vLLM did not drop its prefix cache: a request is still running")

    def score(self, ids: Sequence[int]) -> list[float]:
        """Its log-probability (nats) of each id but the first, after those before."""
        import vllm

        params = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        [output] = self._engine.generate(
            [{"prompt_token_ids": list(ids)}], [params], use_tqdm=False
        )
        return [at[i].logprob for at, i in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]
