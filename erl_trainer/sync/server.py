"""A vLLM server: token ids in and out, and weights through a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch

from erl_envs.policies.base import Conversation, PolicyError, Sampling
from erl_envs.policies.chat import ChatTokens
from erl_envs.policies.local import Generated, Local
from erl_envs.policies.openai import check_url
from erl_envs.secrets import redact_error
from erl_envs.web import join
from erl_trainer.forward import bare
from erl_trainer.processes import failing_together, is_first
from erl_trainer.sync.sampler import Sampler, StaleSampler
from erl_trainer.sync.weights import UNTIED, weights


class VllmServer(Sampler):
    """A vLLM server, which loads the weights from a folder that it and the trainer can read.

    Start it with `VLLM_SERVER_DEV_MODE=1`, without which it takes no weights, and with `--dtype`
    of the trainer. On a CPU it also needs `--no-enable-chunked-prefill` with
    `--max-num-batched-tokens` of at least the context, and for a model with tied embeddings
    `--hf-overrides '{"tie_word_embeddings": false}'`.
    """

    policy: ServedVllm

    def __init__(
        self, url: str, model: Any, tokenizer: Any, folder: Path, concurrency: int
    ) -> None:
        """Look at the server.

        Args:
            url: Of the server, without `/v1`.
            model: What is trained.
            tokenizer: Its own.
            folder: To save weights in.
            concurrency: Most requests at a time.

        Raises:
            ValueError: A bad URL, or a server that could not renew its output layer.
            PolicyError: The server does not answer, or is not in development mode.
        """
        policy = ServedVllm(url, tokenizer, concurrency)
        info = policy.ask("GET", "/server_info", params={"config_format": "json"})["vllm_config"]
        served = info["model_config"]
        tied = bare(model).config.tie_word_embeddings and served["hf_overrides"] != UNTIED
        if tied and info["device_config"]["device"] == "cpu":
            raise ValueError(
                "vLLM on a CPU cannot renew an output layer that is tied to the embeddings; "
                f"start the server with --hf-overrides '{json.dumps(UNTIED)}'"
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
            part = self._folder / "model.part"
            save_file(tensors, part)
            # the server may still have the old file mapped into its memory
            part.replace(self._folder / "model.safetensors")
            reload = {"method": "reload_weights", "kwargs": {"weights_path": str(self._folder)}}
            self.policy.ask("POST", "/collective_rpc", json=reload)
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

    def __init__(self, url: str, tokenizer: Any, concurrency: int) -> None:
        """Look at what is served.

        Args:
            url: Of the server, without `/v1`.
            tokenizer: The model's.
            concurrency: Most requests at a time.

        Raises:
            ValueError: A bad URL, or a tokenizer without a chat template.
            PolicyError: The server does not answer.
        """
        self._url, self._concurrency = check_url(url), concurrency
        self.url = redact_error(self._url)
        # a whole batch may wait for its turn: the answer to one request can take minutes
        self._client = httpx.Client(
            timeout=httpx.Timeout(600.0, connect=10.0, pool=None),
            transport=httpx.HTTPTransport(retries=3),
        )
        [served, *_] = self.ask("GET", "/v1/models")["data"]
        self.spec, self.revision = f"vllm-server:{self.url}", served["id"]
        self.tokenizer, self.context = tokenizer, served["max_model_len"]
        self.chat = ChatTokens(tokenizer, [tokenizer.eos_token_id], self.revision)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        """Continue the ids of each, in a request of its own.

        Raises:
            PolicyError: The server failed; training cannot go on without it.
        """

        def generated(conversation: Conversation) -> Generated:
            choice = self.continue_ids(
                conversation.ids,
                max_tokens=min(sampling.max_tokens, self.context - len(conversation.ids)),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=0.0,  # else these two come from the model's generation config
                repetition_penalty=1.0,
                seed=int(conversation.rng.integers(1 << 31)),
                stop_token_ids=list(self.chat.stop_ids),
            )
            logprobs = choice["logprobs"]["token_logprobs"]
            return Generated(choice["token_ids"], logprobs, choice["finish_reason"] == "stop")

        with ThreadPoolExecutor(self._concurrency) as threads:
            return list(threads.map(generated, conversations))

    def continue_ids(self, ids: Sequence[int], **options: Any) -> dict[str, Any]:
        """The server's completion of a prompt of ids, with ids and their log-probabilities."""
        body = {
            "model": self.revision,
            "prompt": list(ids),
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
            **options,
        }
        choice: dict[str, Any] = self.ask("POST", "/v1/completions", json=body)["choices"][0]
        return choice

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """The server's answer.

        Raises:
            PolicyError: It does not answer, or refuses; one line that says why.
        """
        try:
            response = self._client.request(method, join(self._url, path), **request)
            response.raise_for_status()
            return response.json()
        except httpx.HTTPStatusError as error:
            told = " ".join(redact_error(error.response.text).split())[:300]
            hint = "; start it with VLLM_SERVER_DEV_MODE=1" if _no_such_path(error) else ""
            reason = f"refused {path}: status {error.response.status_code}: {told}{hint}"
        except httpx.HTTPError as error:
            reason = f"does not answer: {type(error).__name__}: {error}"
        except ValueError:
            reason = f"answers {path} with no JSON; is it vLLM?"
        raise PolicyError(f"the vLLM server at {self.url} {reason}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _no_such_path(error: httpx.HTTPStatusError) -> bool:
    return error.response.status_code == httpx.codes.NOT_FOUND
