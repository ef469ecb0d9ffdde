"""Local models through vLLM, in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from erl_envs.extras import missing_extra
from erl_envs.policies.base import Conversation, Sampling, Thoughts
from erl_envs.policies.chat import ChatTokens
from erl_envs.policies.local import Generated, Local

LOGPROBS_MODE = "processed_logprobs"
"""vLLM's name for log-probabilities at the temperature of the sampling, after its cuts."""


class Vllm(Local):
    """A model in vLLM's engine, which takes and gives token ids."""

    def __init__(
        self,
        name: str,
        thoughts: Thoughts | None = None,
        template: Mapping[str, Any] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        """Load a model.

        Args:
            name: A folder or a hub id.
            thoughts: What becomes of earlier turns' thoughts; None for what its template does.
            template: What its chat template is told beside the messages.
            options: Of vLLM's engine, as `vllm.LLM` takes them.

        Raises:
            ValueError: vLLM is not installed, or cannot load the model.
        """
        self.spec = f"vllm:{name}"
        self.revision = name
        try:
            import vllm
        except ImportError as error:
            raise missing_extra("vllm policies", "vllm", error) from error
        try:
            usual = {"enable_prefix_caching": True, "logprobs_mode": LOGPROBS_MODE}
            options = {**usual, **_for_cpu(name), **options}
            self.engine: Any = vllm.LLM(name, **options)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"vLLM cannot load the model {name!r}: {reason}") from error
        tokenizer = self.engine.get_tokenizer()
        stop_ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.take_chat(ChatTokens(tokenizer, stop_ids, name, thoughts, template))
        self.context = int(self.engine.llm_engine.model_config.max_model_len)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        """Hand vLLM all conversations at once; it batches them."""
        import vllm

        params = [
            vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=min(sampling.max_tokens, self.context - len(c.ids)),
                seed=int(c.rng.integers(1 << 31)),
                logprobs=0,
                stop_token_ids=list(self.chat.stop_ids),
                skip_special_tokens=False,
                detokenize=False,
            )
            for c in conversations
        ]
        prompts = [{"prompt_token_ids": list(c.ids)} for c in conversations]
        outputs = self.engine.generate(prompts, params, use_tqdm=False)
        return [_generated(output.outputs[0]) for output in outputs]


def _generated(output: Any) -> Generated:
    ids = list(output.token_ids)
    logprobs = [at[token].logprob for at, token in zip(output.logprobs, ids, strict=True)]
    return Generated(ids, logprobs, output.finish_reason == "stop")


def _for_cpu(name: str) -> dict[str, Any]:
    """What vLLM's CPU build needs: it fails on seeded requests whose prompt it splits."""
    from transformers import AutoConfig
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    config = AutoConfig.from_pretrained(name).get_text_config()
    whole = max(16_384, getattr(config, "max_position_embeddings", 0))
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": whole}
