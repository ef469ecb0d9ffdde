"""A vLLM server: token ids in and out, and weights through a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import torch

from erl_envs.calls import Bounds, FinalError, ServerError
from erl_envs.files import replacing
from erl_envs.policies.base import Conversation, PolicyError, Sampling, Thoughts
from erl_envs.policies.chat import ChatTokens
from erl_envs.policies.local import Generated, Local
from erl_envs.policies.openai import check_url
from erl_envs.policies.vllm import LOGPROBS_MODE
from erl_envs.secrets import redact_error
from erl_envs.web import Client, join
from erl_trainer.forward import bare
from erl_trainer.processes import failing_together, is_first
from erl_trainer.sync.sampler import ChatOptions, Sampler, StaleSampler
from erl_trainer.sync.weights import UNTIED, weights

TIMEOUT = 600.0
"""Seconds for one try of a request: a server that works through a batch can take minutes."""

MAX_ANSWER = 64 << 20
"""Bytes of an answer: each id comes with its text and its log-probabilities."""


class VllmServer(Sampler):
    """A vLLM server, which loads the weights from a folder that it and the trainer can read.

    Start it with `VLLM_SERVER_DEV_MODE=1`, without which it takes no weights, with `--dtype` of the
    trainer, and with `--logprobs-mode processed_logprobs`: at the temperature of the sampling. On a
    CPU it also needs `--no-enable-chunked-prefill` with `--max-num-batched-tokens` of at least the
    context, and for a model with tied embeddings `--hf-overrides '{"tie_word_embeddings": false}'`.
    """

    policy: ServedVllm

    def __init__(
        self,
        url: str,
        model: Any,
        tokenizer: Any,
        folder: Path,
        concurrency: int,
        **chat: Unpack[ChatOptions],
    ) -> None:
        """Look at the server.

        Args:
            url: Of the server, without `/v1`.
            model: What is trained.
            tokenizer: Its own.
            folder: To save weights in.
            concurrency: Most requests at a time.
            **chat: What the chat template does.

        Raises:
            ValueError: A bad URL, or a server that could not renew its output layer or tells other
                log-probabilities than those of the sampling.
            PolicyError: The server does not answer, or is not in development mode.
        """
        policy = ServedVllm(url, tokenizer, concurrency, **chat)
        info = policy.ask("GET", "/server_info?config_format=json")["vllm_config"]
        served = info["model_config"]
        tied = bare(model).config.tie_word_embeddings and served["hf_overrides"] != UNTIED
        if tied and info["device_config"]["device"] == "cpu":
            raise ValueError(
                "vLLM on a CPU cannot renew an output layer that is tied to the embeddings; "
                f"start the server with --hf-overrides '{json.dumps(UNTIED)}'"
            )
        if served["logprobs_mode"] != LOGPROBS_MODE:
            raise ValueError(
                f"the vLLM server at {policy.url} tells log-probabilities as "
                f"{served['logprobs_mode']!r}; start it with --logprobs-mode {LOGPROBS_MODE}"
            )
        super().__init__(policy, getattr(torch, served["dtype"].removeprefix("torch.")))
        self._folder = folder.resolve()

    def sync(self, model: Any) -> None:
        """Save the weights, have the server load them, then drop its prefix cache."""
        from safetensors.torch import save_file

        first = is_first()
        # every process gathers its shards, the first one writes; a copy of each tensor, because
        # the file format refuses tied ones
        tensors = {name: tensor.to("cpu", copy=True) for name, tensor in weights(model) if first}
        with failing_together(PolicyError, StaleSampler, OSError):
            if not first:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            # replaced: the server may still have the old file mapped into its memory
            with replacing(self._folder / "model.safetensors") as part:
                save_file(tensors, part)
            reload = {"method": "reload_weights", "kwargs": {"weights_path": str(self._folder)}}
            self.policy.ask("POST", "/collective_rpc", reload)
            if not self.policy.ask("POST", "/reset_prefix_cache")["success"]:
                raise StaleSampler(
                    f"the vLLM server at {self.policy.url} did not drop its prefix cache: "
                    "a request is still running"
                )

    def score(self, ids: Sequence[int]) -> list[float]:
        """Its log-probability (nats) of each id but the first, after those before."""
        found = self.policy.continue_ids(ids, max_tokens=1, prompt_logprobs=0)["prompt_logprobs"]
        return [at[str(i)]["logprob"] for at, i in zip(found[1:], ids[1:], strict=True)]


class ServedVllm(Local):
    """A model behind a vLLM server, which takes and gives token ids."""

    def __init__(
        self,
        url: str,
        tokenizer: Any,
        concurrency: int,
        thoughts: Thoughts | None = None,
        template: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Look at what is served.

        Args:
            url: Of the server, without `/v1`.
            tokenizer: The model's.
            concurrency: Most requests at a time.
            thoughts: What becomes of earlier turns' thoughts; None for what the template does.
            template: What the chat template is told beside the messages.

        Raises:
            ValueError: A bad URL, or a tokenizer without a chat template.
            PolicyError: The server does not answer.
        """
        self._url = check_url(url)
        self.url = redact_error(self._url)
        self._client = Client(
            f"the vLLM server at {self.url}",
            Bounds(TIMEOUT, retries=2, backoff=0.5, concurrency=concurrency),
            limit=MAX_ANSWER,
        )
        [served, *_] = self.ask("GET", "/v1/models")["data"]
        self.spec, self.revision = f"vllm-server:{self.url}", served["id"]
        self.context = served["max_model_len"]
        stop_ids = [tokenizer.eos_token_id]
        self.take_chat(ChatTokens(tokenizer, stop_ids, self.revision, thoughts, template))

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        """Continue the ids of each, in a request of its own.

        Raises:
            PolicyError: The server failed; training cannot go on without it.
        """
        asked = [(c.ids, self._options(c, sampling)) for c in conversations]
        found = []
        for choice in self.continue_all(asked):
            logprobs = choice["logprobs"]["token_logprobs"]
            found.append(
                Generated(choice["token_ids"], logprobs, choice["finish_reason"] == "stop")
            )
        return found

    def _options(self, conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
        return {
            "max_tokens": min(sampling.max_tokens, self.context - len(conversation.ids)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,  # else these two come from the model's generation config
            "repetition_penalty": 1.0,
            "seed": int(conversation.rng.integers(1 << 31)),
            "stop_token_ids": list(self.chat.stop_ids),
        }

    def continue_ids(self, ids: Sequence[int], **options: Any) -> dict[str, Any]:
        """The server's completion of one prompt; see `continue_all`."""
        [choice] = self.continue_all([(ids, options)])
        return choice

    def continue_all(
        self, asked: Sequence[tuple[Sequence[int], dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """The server's completions of prompts of ids, with ids and their log-probabilities.

        Args:
            asked: Prompts, and what else each request says.

        Raises:
            PolicyError: It does not answer one of them, or refuses; one line that says why.
        """
        bodies = [
            {
                "model": self.revision,
                "prompt": list(ids),
                "logprobs": 0,
                "return_token_ids": True,
                "skip_special_tokens": False,
                **options,
            }
            for ids, options in asked
        ]
        replies = self._ask_all("POST", "/v1/completions", bodies)
        return [reply["choices"][0] for reply in replies]

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The server's answer.

        Raises:
            PolicyError: It does not answer, or refuses; one line that says why.
        """
        [reply] = self._ask_all(method, path, [body])
        return reply

    def _ask_all(self, method: str, path: str, bodies: Sequence[object]) -> list[Any]:
        answers = self._client.call_all([partial(self._once, method, path, b) for b in bodies])
        for answer in answers:
            if isinstance(answer, ServerError):
                raise PolicyError(str(answer)) from answer
        return answers

    async def _once(self, method: str, path: str, body: object) -> Any:
        response = await self._client.send(method, join(self._url, path), body)
        try:
            return response.json()
        except FinalError as error:
            hint = "; start it with VLLM_SERVER_DEV_MODE=1" if response.status == 404 else ""
            raise FinalError(f"at {path} {error}{hint}") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
