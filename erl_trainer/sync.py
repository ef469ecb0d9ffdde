"""Who samples in training, and how it gets the trainer's weights after every update.

Whether it really got them is checked, not assumed: `verify` compares the log-probabilities of a
fixed prompt and of the sampler's answer to it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch
import torch.nn.functional as F

from erl_envs import registry
from erl_envs.core import Message
from erl_envs.policies.base import Conversation, PolicyError, Sampling
from erl_envs.policies.chat import ChatTokens
from erl_envs.policies.local import Generated, Local
from erl_envs.policies.openai import check_url
from erl_envs.policies.transformers import Transformers
from erl_trainer.config import Config
from erl_trainer.forward import bare
from erl_trainer.processes import rank_and_size

PROMPT, ANSWER = 320, 16
"""Tokens of the fixed prompt and of its answer. A prompt of more than two blocks of vLLM's prefix
cache (16 tokens each, 128 on a CPU) makes keys and values of old weights show in the answer."""

TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.05}
"""Greatest mean absolute difference of log-probabilities (nats a token) that is rounding.

In float32, vLLM and transformers differ by about 1e-6, and even one missed AdamW step at a learning
rate of 1e-6 moves nano by 0.002. A bfloat16 keeps 8 bits, so a logit between 8 and 16 is rounded
to a sixteenth: the two differ by 0.004 to 0.012 on nano and on 135 M parameters, where a missed
step at 1e-5 makes 0.007 and 0.2. Less than that cannot be told from rounding and does no more
harm than rounding; over steps it adds up, and is then seen."""

GPU_SHARE = 0.3
"""Of a GPU's memory for vLLM's weights and cache; the trainer in the same process has the rest."""

UNTIED = {"tie_word_embeddings": False}
"""What vLLM's configuration of a model needs on a CPU. Its kernels there keep a packed copy of the
output layer, and no reload renews that copy while the layer is tied to the embeddings."""

Score = Callable[[Sequence[int]], list[float]]
"""Ids to the log-probability (nats) of each but the first, after those before."""

_KEY = ("sync", "fixed prompt", 0, "attempt_1")


class StaleSampler(RuntimeError):
    """The sampler does not sample from the trainer's weights."""


class Sampler(ABC):
    """What samples for the training loop.

    Attributes:
        policy: To roll out with; it keeps token ids and their log-probabilities.
        dtype: It computes in.
        prompt: Ids that `verify` compares.
    """

    def __init__(self, policy: Local, dtype: torch.dtype) -> None:
        """Args: policy: what samples; dtype: it computes in."""
        self.policy, self.dtype = policy, dtype
        self.prompt = _fixed_prompt(policy)

    @abstractmethod
    def sync(self, model: Any) -> None:
        """Give it the model's weights as they are now, and forget what old ones computed.

        Where the trainer is several processes, all of them must call this.

        Raises:
            RuntimeError: It did not take them.
        """

    @abstractmethod
    def score(self, ids: Sequence[int]) -> list[float]:
        """Its log-probability (nats) of each id but the first, after those before."""


class Shared(Sampler):
    """The policy samples from the trained model itself, so there is nothing to copy."""

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        """Args: name: of the model; model: what is trained; tokenizer: its own.

        Raises:
            ValueError: Its weights are sharded over processes, or it is no chat model.
        """
        if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
            # each process samples until its own answers end, but a sharded model computes only
            # when all processes do
            raise ValueError(
                "a model sharded over processes cannot sample; take backend vllm or vllm-server"
            )
        policy = Transformers(name, model, tokenizer)
        super().__init__(policy, model.dtype)
        self._model = policy.model

    def sync(self, model: Any) -> None:
        """Leave training mode, in which gradient checkpointing would switch off the cache."""
        model.eval()

    def score(self, ids: Sequence[int]) -> list[float]:
        """Its log-probability (nats) of each id but the first, after those before."""
        return log_probs(self._model, ids)


class InProcessVllm(Sampler):
    """A vLLM engine in this process: weights go from the trainer's tensors into the engine's."""

    def __init__(self, model: Any, tokenizer: Any, dtype: torch.dtype) -> None:
        """Start the engine, its weights still random.

        Args:
            model: What is trained, loaded by `from_pretrained`.
            tokenizer: Its own.
            dtype: To compute in.

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
            policy = Vllm(folder, **options)
        super().__init__(policy, dtype)
        self._engine = policy.engine
        # it warns, at every sync, of each buffer that no checkpoint has; `verify` is the judge
        logging.getLogger("vllm.model_executor.model_loader.reload").setLevel(logging.ERROR)

    def sync(self, model: Any) -> None:
        """Load the weights one tensor at a time, then drop the prefix cache."""
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights(model)})
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop its prefix cache: a request is still running")

    def score(self, ids: Sequence[int]) -> list[float]:
        """Its log-probability (nats) of each id but the first, after those before."""
        import vllm

        params = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        [output] = self._engine.generate(
            [{"prompt_token_ids": list(ids)}], [params], use_tqdm=False
        )
        return [at[i].logprob for at, i in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]


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

        rank, size = rank_and_size()
        # every process gathers its shards, the first one writes; a copy of each tensor, because
        # the file format refuses tied ones
        tensors = {
            name: tensor.to("cpu", copy=True) for name, tensor in weights(model) if rank == 0
        }
        if rank == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            part = self._folder / "model.part"
            save_file(tensors, part)
            # the server may still have the old file mapped into its memory
            part.replace(self._folder / "model.safetensors")
            reload = {"method": "reload_weights", "kwargs": {"weights_path": str(self._folder)}}
            self.policy.ask("POST", "/collective_rpc", json=reload)
            if not self.policy.ask("POST", "/reset_prefix_cache")["success"]:
                raise RuntimeError(
                    f"the vLLM server at {self.policy.url} did not drop its prefix cache: "
                    "a request is still running"
                )
        if size > 1:
            torch.distributed.barrier()

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
        self.url, self._concurrency = check_url(url), concurrency
        # a whole batch may wait for its turn: the answer to one request can take minutes
        self._client = httpx.Client(
            base_url=self.url,
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
            response = self._client.request(method, path, **request)
            response.raise_for_status()
            return response.json()
        except httpx.HTTPStatusError as error:
            told = " ".join(error.response.text.split())[:300]
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


def load_sampler(
    config: Config, model: Any, tokenizer: Any, folder: Path, score: Score | None = None
) -> Sampler:
    """Who samples for a run, with the model's weights in it.

    Args:
        config: The run's; `backend`, `dtype`, `server_url` and `concurrency` decide.
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
    if config.backend == "transformers":
        sampler = Shared(config.model, model, tokenizer)
    elif config.backend == "vllm":
        sampler = InProcessVllm(model, tokenizer, getattr(torch, config.dtype))
    else:
        sampler = VllmServer(
            config.server_url, model, tokenizer, folder / "sampler", config.concurrency
        )
    sampler.sync(model)
    verify(sampler, model, score)
    return sampler


def verify(sampler: Sampler, model: Any, score: Score | None = None) -> float:
    """Check that the sampler holds the model's weights.

    Where the trainer is several processes, all of them must call this.

    Args:
        sampler: Who samples.
        model: What is trained.
        score: Its log-probabilities; None asks the model itself, which cannot tell while it is
            sharded as a part of another module.

    Returns:
        How far the log-probabilities of sampler and model lie apart: the mean absolute difference
        (nats a token) over the fixed prompt or over the answer, whichever is greater. The answer
        is what shows a prefix cache of old weights: vLLM scores a prompt without the cache.

    Raises:
        StaleSampler: By more than rounding; the message tells both mean log-probabilities.
    """
    prompt = sampler.prompt
    conversation = Conversation([], _KEY, seed=0, ids=list(prompt))
    greedy = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=ANSWER)
    [answer] = sampler.policy.generate([conversation], greedy)
    theirs_T = torch.tensor([*sampler.score(prompt), *answer.logprobs])
    ids = [*prompt, *answer.ids]
    ours_T = torch.tensor(score(ids) if score else log_probs(model, ids))
    apart_T = (theirs_T - ours_T).abs()
    begin = len(prompt) - 1
    gap = float(torch.maximum(apart_T[:begin].mean(), apart_T[begin:].mean()))
    tolerance = max(TOLERANCE[sampler.dtype], TOLERANCE[model.dtype])
    if not gap <= tolerance:  # a NaN is no pass
        raise StaleSampler(
            "the sampler does not have the trainer's weights: the mean log-probability of a fixed "
            f"prompt and its answer is {theirs_T.mean():.4f} by the sampler and "
            f"{ours_T.mean():.4f} by the trainer; a token's lie {gap:.2g} apart, at most "
            f"{tolerance:g} is rounding"
        )
    return gap


@torch.no_grad()  # type: ignore[untyped-decorator]
def weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors as a plain checkpoint of the model has them, one whole tensor at a time.

    LoRA is merged into what it adapts, in a copy; shards of other processes are gathered, so all
    processes must iterate. A tied tensor comes under each of its names.
    """
    base = bare(model)
    for name, parameter in base.named_parameters(remove_duplicate=False):
        if ".lora_" in name:
            continue
        tensor = _whole(parameter)
        layer, adapted, rest = name.partition(".base_layer.")
        if adapted and rest == "weight":
            module = base.get_submodule(layer)
            for adapter in module.active_adapters:
                delta = _whole(module.get_delta_weight(adapter))
                tensor = (tensor + delta).to(tensor.dtype)
        yield (f"{layer}.{rest}" if adapted else name), tensor


def log_probs(model: Any, ids: Sequence[int]) -> list[float]:
    """A transformers model's log-probability (nats) of each id but the first."""
    was_training = model.training
    model.eval()
    ids_T = torch.tensor(ids, device=model.device)
    with torch.no_grad():
        logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
    model.train(was_training)
    if hasattr(model, "reshard"):
        # FSDP leaves the root's weights whole after a forward pass that no backward pass follows;
        # an optimizer or a checkpoint would take these copies for the weights
        model.reshard()
    losses_T = F.cross_entropy(logits_TV.float(), ids_T[1:], reduction="none")
    return [-loss for loss in losses_T.tolist()]


def _whole(tensor: Any) -> torch.Tensor:
    """All of a tensor whose shards may lie on several processes (FSDP's DTensor)."""
    whole: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach()


def _fixed_prompt(policy: Local) -> list[int]:
    """A first prompt of FrozenLake, again and again up to `PROMPT` tokens."""
    env = registry.make("frozenlake", rules="shown", prompt_style="compact")
    observation, _ = env.reset(seed=0)
    messages: list[Message] = [
        {"role": "system", "content": env.system_prompt},
        {"role": "user", "content": observation},
    ]
    ids = policy.chat.new_ids(Conversation(messages, _KEY, seed=0))
    length = min(PROMPT, policy.context // 2)
    return (ids * length)[:length]


def _no_such_path(error: httpx.HTTPStatusError) -> bool:
    return error.response.status_code == httpx.codes.NOT_FOUND
