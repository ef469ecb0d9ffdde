"""Samplers get the trainer's weights, and one that did not is found out.

Those of vLLM need it installed (`make test-slow`); a stand-in for its server is tested everywhere.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, multiprocessing
from transformers import LlamaConfig, LlamaForCausalLM

from erl_envs.core import Task
from erl_envs.policies import PolicyError, Sampling
from erl_envs.policies.sampler import sample
from erl_envs.policies.transformers import Transformers
from erl_envs.rollout import EnvPool, Job, Player, rollout
from erl_trainer.__main__ import main
from erl_trainer.config import Config
from erl_trainer.forward import Scorer, logprobs
from erl_trainer.nano import tokenizer as nano_tokenizer
from erl_trainer.processes import leave
from erl_trainer.sync import Sampler, StaleSampler, load_sampler, verify
from erl_trainer.sync.sampler import Shared, log_probs
from erl_trainer.sync.weights import UNTIED, weights
from erl_trainer.types import NotFinite

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"
)
TOKENIZER = nano_tokenizer.build()


def small_model(tied: bool = True, seed: int = 0) -> Any:
    """Of nano's kind: vLLM's CPU kernels want heads of 64."""
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=1024,
        initializer_range=0.1,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=TOKENIZER.eos_token_id,
        architectures=["LlamaForCausalLM"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def with_lora(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear"))
    shake(parameter for name, parameter in adapted.named_parameters() if ".lora_B." in name)
    return adapted


def shake(parameters: Any, size: float = 0.05) -> None:
    """A large update."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def step(model: Any, lr: float) -> None:
    """One optimizer update on some text."""
    ids_T = torch.tensor([TOKENIZER.encode("A is you, B the goal, C a hole, D safe ice.")])
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model(input_ids=ids_T, labels=ids_T).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


class Copied(Sampler):
    """A sampler with weights of its own, as vLLM's are."""

    def __init__(self, model: Any) -> None:
        self.model = copy.deepcopy(model)
        super().__init__(Transformers("copy", self.model, TOKENIZER), self.model.dtype)

    def sync(self, model: Any) -> None:
        self.model.load_state_dict(dict(weights(model)))

    def score(self, ids: Sequence[int]) -> list[float]:
        return log_probs(self.model, ids)


def episodes(policy: Any, temperature: float = 0.0) -> list[Any]:
    """Ids, masks and log-probabilities of some attempts."""
    jobs = [Job(Task("frozenlake", {"desc": ["SFFG", "FFFF"]}), n, 0) for n in range(3)]
    pool = EnvPool({"frozenlake": {"prompt_style": "compact", "max_turns": 3}})
    players: Any = {"actor": Player(policy, Sampling(temperature, 1.0, 0, max_tokens=8))}
    played = sorted(rollout(jobs, pool, players), key=lambda e: e.sample)
    assert all(episode.valid for episode in played), played[0].attempts[0].error
    return [episode.attempts[0].tokens[0] for episode in played]


def follows(sampler: Sampler, model: Any) -> None:
    """A sampler in step; it misses a large update, and is found out; it catches up."""
    assert verify(sampler, model) < 1e-5
    shake(model.parameters())
    with pytest.raises(StaleSampler, match=r"mean log-probability .* by the sampler .* trainer"):
        verify(sampler, model)
    sampler.sync(model)
    assert verify(sampler, model) < 1e-5
    # what it samples, and how likely it says that was, is the model's doing
    for tokens in episodes(sampler.policy, temperature=1.0):
        expected = np.array([0.0, *log_probs(model, tokens.ids)])
        said = np.array(tokens.logprobs)
        assert sum(tokens.sampled) >= 3
        assert said[tokens.sampled] == pytest.approx(expected[tokens.sampled], abs=1e-4)
    for ours, theirs in zip(
        episodes(sampler.policy), episodes(Transformers("m", model, TOKENIZER)), strict=True
    ):
        assert (ours.ids, ours.sampled) == (theirs.ids, theirs.sampled)


# What is given


def test_lora_is_merged_into_a_copy() -> None:
    adapted = with_lora(small_model())
    before = {name: p.clone() for name, p in adapted.named_parameters()}
    given = dict(weights(adapted))
    assert all(torch.equal(p, before[name]) for name, p in adapted.named_parameters())
    merged = adapted.merge_and_unload().state_dict()
    assert given.keys() == merged.keys()
    assert all(torch.equal(given[name], merged[name]) for name in merged)


def test_tied_tensors_come_under_both_names() -> None:
    model = small_model()
    assert dict(weights(model)).keys() == model.state_dict().keys()
    assert "lm_head.weight" in model.state_dict()


def one_of_two(rank: int, port: int) -> None:
    """A process of `test_shards_are_gathered`."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    sharded()
    leave()


def sharded() -> None:
    """Two processes share a model, by itself and as the learner does."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))

    model = with_lora(small_model())
    whole, sampler = dict(weights(model)), Copied(small_model(seed=1))
    fully_shard(model, mesh=mesh)
    given = dict(weights(model))
    assert given.keys() == whole.keys()
    for name, tensor in given.items():
        torch.testing.assert_close(tensor, whole[name])
    with pytest.raises(ValueError, match="sharded"):
        Shared("small", model, TOKENIZER)
    for _ in range(2):
        with pytest.raises(StaleSampler):
            verify(sampler, model)
        sampler.sync(model)
        assert verify(sampler, model) < 1e-5
        step(model, lr=1e-3)

    inner = small_model()
    scorer = fully_shard(Scorer(inner, chunk=100), mesh=mesh)

    def score(ids: Sequence[int]) -> list[float]:
        ids_T = torch.tensor(ids)
        at_N = torch.arange(len(ids) - 1)
        with torch.no_grad():
            (logp_N,) = scorer(ids_T[None], at_N, logprobs, ids_T[1:])
        scorer.reshard()
        return list(logp_N.tolist())

    with pytest.raises(StaleSampler):
        verify(sampler, inner, score)
    sampler.sync(inner)
    assert verify(sampler, inner, score) < 1e-5


def test_shards_are_gathered() -> None:
    pytest.importorskip("peft")
    multiprocessing.spawn(one_of_two, (free_port(),), nprocs=2)


# What is checked


def test_a_sampler_with_its_own_weights() -> None:
    model = small_model()
    follows(Copied(model), model)


def test_one_missed_step_is_found_out() -> None:
    model = small_model()
    sampler = Copied(model)
    step(model, lr=1e-4)
    with pytest.raises(StaleSampler):
        verify(sampler, model)


def test_half_precision_is_rounding_and_a_missed_update_is_not() -> None:
    model = small_model()
    sampler = Copied(small_model().bfloat16())
    assert verify(sampler, model) > 1e-3
    shake(model.parameters())
    with pytest.raises(StaleSampler):
        verify(sampler, model)


def test_only_the_answer_shows_an_old_cache() -> None:
    model = small_model()
    sampler = Copied(model)
    old = copy.deepcopy(model)
    shake(model.parameters())
    sampler.sync(model)
    sampler.policy = Transformers("old", old, TOKENIZER)
    assert sampler.score(sampler.prompt) == pytest.approx(log_probs(model, sampler.prompt))
    with pytest.raises(StaleSampler):
        verify(sampler, model)


def test_no_number_is_no_pass() -> None:
    model, broken = small_model(), small_model()
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    with pytest.raises(StaleSampler, match="nan by the sampler and"):
        verify(Copied(broken), model)
    with pytest.raises(NotFinite, match="the trained model's log-probabilities are not finite"):
        verify(Copied(broken), broken)


def test_verify_leaves_the_model_in_its_mode() -> None:
    model = small_model().train()
    verify(Copied(model), model)
    assert model.training


# The backends


def test_the_trained_model_itself(tmp_path: Path) -> None:
    model = small_model().train()
    sampler = load_sampler(Config(), model, TOKENIZER, tmp_path)
    assert isinstance(sampler, Shared) and not model.training
    step(model, lr=1e-2)
    sampler.sync(model)
    assert verify(sampler, model) < 1e-5


def test_the_trained_model_with_lora(tmp_path: Path) -> None:
    model = with_lora(small_model())
    sampler = load_sampler(Config(), model, TOKENIZER, tmp_path)
    merged = copy.deepcopy(model).merge_and_unload()
    for ours, theirs in zip(
        episodes(sampler.policy), episodes(Transformers("m", merged, TOKENIZER)), strict=True
    ):
        assert ours.ids == theirs.ids


def test_a_policy_that_shares_another_model_is_found_out() -> None:
    model = small_model()
    sampler = Shared("another", copy.deepcopy(model), TOKENIZER)
    shake(model.parameters())
    sampler.sync(model)
    with pytest.raises(StaleSampler):
        verify(sampler, model)


@needs_vllm
@pytest.mark.slow
def test_vllm_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    sampler = load_sampler(Config(backend="vllm"), model, TOKENIZER, tmp_path)
    assert sampler.policy.context == 1024
    follows(sampler, model)
    step(model, lr=1e-2)  # the engine leaves gradients alone
    sampler.sync(model)
    assert verify(sampler, model) < 1e-5

    shake(model.parameters())
    with monkeypatch.context() as patch:
        patch.setattr(sampler.policy.engine, "reset_prefix_cache", lambda: True)  # type: ignore
        sampler.sync(model)
    with pytest.raises(StaleSampler):  # new weights, old keys and values
        verify(sampler, model)
    sampler.sync(model)
    assert verify(sampler, model) < 1e-5

    if importlib.util.find_spec("peft"):
        adapted = with_lora(model)
        with pytest.raises(StaleSampler):
            verify(sampler, adapted)
        sampler.sync(adapted)
        assert verify(sampler, adapted) < 1e-5


@needs_vllm
@pytest.mark.slow
def test_a_vllm_server(tmp_path: Path) -> None:
    model = small_model()
    model.save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    with vllm_server(tmp_path) as url:
        config = Config(backend="vllm-server", server_url=url)
        sampler = load_sampler(config, model, TOKENIZER, tmp_path)
        follows(sampler, model)
        sampler.policy.close()


@contextlib.contextmanager
def vllm_server(folder: Path) -> Iterator[str]:
    """A real one, killed at the end."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder / "model"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--hf-overrides", json.dumps(UNTIED)]
    command += ["--logprobs-mode", "processed_logprobs"]
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048"]
    environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # else on one core, which may be busy
    # whoever ends first, this pipe's writer or the server, takes the whole group along: the engine
    # is a process of its own
    watched = ["sh", "-c", '("$@"; kill -9 0) & cat; kill -9 0', "sh", *command]
    log = folder / "server.log"
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(
            watched,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert server.poll() is None, log.read_text(encoding="utf-8")[-2000:]
            time.sleep(0.5)
        else:
            pytest.fail(f"the server did not start: {log.read_text(encoding='utf-8')[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.communicate()  # closes the pipe


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


# A stand-in for vLLM's server


class StandIn(ThreadingHTTPServer):
    """Answers as vLLM 0.32 does, with a transformers model."""

    def __init__(self, model: Any) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.model, self.reloads, self.asked = copy.deepcopy(model), True, list[Any]()
        self.config = {
            "model_config": {
                "dtype": "torch.float32",
                "hf_overrides": UNTIED,
                "logprobs_mode": "processed_logprobs",
            }
        }
        self.config["device_config"] = {"device": "cpu"}
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.context, self.lock = 1024, threading.Lock()


class Answer(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.say({"data": [{"id": "served", "max_model_len": self.server.context}]})
        else:
            self.say({"vllm_config": self.server.config})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.answer(json.loads(sent or "null"))

    def answer(self, body: Any) -> None:
        model = self.server.model
        if self.path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            folder = Path(body["kwargs"]["weights_path"])
            assert [file.name for file in folder.iterdir()] == ["model.safetensors"]
            if self.server.reloads:
                model.load_state_dict(load_file(folder / "model.safetensors"))
            self.say({"results": [None]})
        elif self.path == "/reset_prefix_cache":
            self.say({"success": self.server.reloads})
        elif body["prompt"] == [0]:
            self.say({"error": "no such\nprompt", "to": self.headers["Authorization"]}, 400)
        else:
            self.server.asked.append(body)
            self.say({"choices": [self.complete(model, body)]})

    def complete(self, model: Any, body: Any) -> dict[str, Any]:
        ids, stops = body["prompt"], body.get("stop_token_ids", [])
        how = Sampling(body.get("temperature", 1.0), 1.0, 0, body["max_tokens"])
        rng = np.random.default_rng(body.get("seed"))
        [said] = sample(model, [ids], [rng], how, stops)
        told = zip(ids[1:], log_probs(model, ids), strict=True)
        return {
            "token_ids": said.ids,
            "logprobs": {"token_logprobs": said.logprobs},
            "finish_reason": "stop" if said.stopped else "length",
            "prompt_logprobs": [None, *({str(i): {"logprob": p}} for i, p in told)],
        }

    def say(self, reply: Any, status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn(small_model()) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def server_config(server: StandIn) -> Config:
    return Config(backend="vllm-server", server_url=server.url, concurrency=2)


def test_a_server(stand_in: StandIn, tmp_path: Path) -> None:
    model = small_model()
    sampler = load_sampler(server_config(stand_in), model, TOKENIZER, tmp_path)
    follows(sampler, model)
    stand_in.reloads = False
    shake(model.parameters())
    with pytest.raises(StaleSampler, match="did not drop its prefix cache"):
        sampler.sync(model)
    with pytest.raises(StaleSampler):
        verify(sampler, model)


def test_a_run_gives_the_server_its_weights_after_every_step(
    stand_in: StandIn, tmp_path: Path
) -> None:
    small_model().save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    words = "train --algo grpo --steps 2 --tasks-per-step 1 --group-size 2 --lr 0.01"
    words += " --eval-every 0 --max-tokens 4 --advantage raft --kl-weight 0.1 -o max_turns=2"
    words += f" --loggers [] --backend vllm-server --server-url {stand_in.url}"
    folders = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "run")]
    assert main([*words.split(), *folders]) == 0
    told = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open(encoding="utf-8")
    ]
    assert [line["updates"] for line in told] == [1, 2]
    assert all(line["sync_gap"] < 1e-5 for line in told)
    trained = Transformers(str(tmp_path / "run" / "model")).model.state_dict()
    served = stand_in.model.state_dict()
    assert all(torch.equal(served[name], trained[name]) for name in trained)


def test_a_server_that_reads_less_than_the_model_is_told(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_model().save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    stand_in.context = 128
    words = f"train --backend vllm-server --server-url {stand_in.url} --max-tokens 4 -o max_turns=2"
    folders = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "run")]
    assert main([*words.split(), *folders]) == 2
    assert "reads 128 tokens here; frozenlake with these options" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_server_gets_ids_and_each_conversation_its_seed(
    stand_in: StandIn, tmp_path: Path
) -> None:
    model = small_model()
    sampler = load_sampler(server_config(stand_in), model, TOKENIZER, tmp_path)
    stand_in.asked.clear()
    played = episodes(sampler.policy, temperature=1.0)
    prompts = [body["prompt"] for body in stand_in.asked]
    assert all(any(tokens.ids[: len(p)] == p for tokens in played) for p in prompts)
    assert len({body["seed"] for body in stand_in.asked}) == len(prompts)
    assert episodes(sampler.policy, temperature=1.0) == played


def test_a_server_of_another_model_is_found_out_at_once(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.model = small_model(tied=False, seed=2)
    stand_in.model.load_state_dict = lambda _: None
    with pytest.raises(StaleSampler):
        load_sampler(server_config(stand_in), small_model(), TOKENIZER, tmp_path)


def test_a_server_that_cannot_renew_tied_weights(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.config["model_config"]["hf_overrides"] = {}
    with pytest.raises(ValueError, match=r"--hf-overrides '\{.*tie_word_embeddings"):
        load_sampler(server_config(stand_in), small_model(), TOKENIZER, tmp_path)


def test_a_servers_url_may_carry_a_password(stand_in: StandIn, tmp_path: Path) -> None:
    url = stand_in.url.replace("//", "//me:pass99word@")
    config = Config(backend="vllm-server", server_url=url, concurrency=2)
    sampler: Any = load_sampler(config, small_model(), TOKENIZER, tmp_path)
    with pytest.raises(PolicyError, match="no such") as refused:
        sampler.policy.continue_ids([0], max_tokens=1)
    told = f"{refused.value} {sampler.policy.spec}"
    assert "Basic [secret]" in told and "pass99word" not in told
    assert told.endswith(f"vllm-server:{stand_in.url.replace('//', '//[secret]@')}")


def test_a_server_that_tells_other_log_probabilities(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.config["model_config"]["logprobs_mode"] = "raw_logprobs"
    with pytest.raises(ValueError, match="start it with --logprobs-mode processed_logprobs"):
        load_sampler(server_config(stand_in), small_model(), TOKENIZER, tmp_path)


def test_a_server_that_refuses_or_is_gone(stand_in: StandIn, tmp_path: Path) -> None:
    sampler: Any = load_sampler(server_config(stand_in), small_model(), TOKENIZER, tmp_path)
    with pytest.raises(PolicyError, match=r"at /v1/completions refused: status 400: .*no such"):
        sampler.policy.continue_ids([0], max_tokens=1)
    gone = Config(backend="vllm-server", server_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(PolicyError, match="failed 3 times, the last time with ConnectError"):
        load_sampler(gone, small_model(), TOKENIZER, tmp_path)
