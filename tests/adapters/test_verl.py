"""verl's own agent loop workers play the environments; only the rollout servers are stubs."""

from __future__ import annotations

import asyncio
import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed: pip install 'erl-envs[verl]'")

import numpy as np
import torch
from datasets import Dataset
from hydra import compose, initialize_config_module
from parity import ENVS, EPISODES, OPTIONS, PLAYERS, Game, games
from tiny_models import save_tiny
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.protocol import DataProto
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
from verl.workers.rollout.replica import TokenOutput

import erl_envs
import erl_trainer.verl as erl_verl
from erl_envs.adapters.verl import verl_rows

HERE = Path(erl_envs.__file__).parents[1]
LENGTHS = {"prompt": 8192, "response": 16384}


@cache
def model_folder() -> str:
    import tempfile

    return str(save_tiny(Path(tempfile.mkdtemp()), context=1 << 15))


def settings(*overrides: str, name: str = "ppo_trainer") -> Any:
    """verl's own configuration."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(
            name,
            overrides=[
                f"actor_rollout_ref.model.path={model_folder()}",
                f"actor_rollout_ref.rollout.prompt_length={LENGTHS['prompt']}",
                f"actor_rollout_ref.rollout.response_length={LENGTHS['response']}",
                "actor_rollout_ref.rollout.name=vllm",
                "actor_rollout_ref.rollout.calculate_log_probs=true",
                "actor_rollout_ref.rollout.agent.agent_loop_config_path="
                f"{HERE / 'erl_trainer' / 'verl' / 'loops.yaml'}",
                *overrides,
            ],
        )


Script = Callable[[str, str, int], str]


class Servers:
    """A stub of verl's rollout servers: a script says each message, as a model's tokens."""

    def __init__(self, script: Script) -> None:
        """Args: script: of a conversation's id, its prompt and how often it was answered."""
        self.script = script
        self.asked: dict[str, list[str]] = {}
        self.tokenizer: Any = None
        self.params: list[Mapping[str, Any]] = []

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: Mapping[str, Any]
    ) -> TokenOutput:
        await asyncio.sleep(0)
        self.params.append(sampling_params)
        prompts = self.asked.setdefault(request_id, [])
        prompts.append(self.tokenizer.decode(prompt_ids))
        text = self.script(request_id, prompts[0], len(prompts) - 1)
        ids = self.tokenizer.encode(text + "<|im_end|>", add_special_tokens=False)
        logprobs = [-0.5] * len(ids) if sampling_params["logprobs"] else None
        steps = {"min_global_steps": 3, "max_global_steps": 4}
        return TokenOutput(token_ids=ids, log_probs=logprobs, extra_fields=steps)


def worker(servers: Servers, *overrides: str) -> Any:
    found = AgentLoopWorker(settings(*overrides), llm_client=servers)
    servers.tokenizer = found.tokenizer
    return found


def batch(rows: Sequence[Mapping[str, Any]], folder: Path, found: Any) -> DataProto:
    """The rows as verl's own dataset and collation hand them to a worker."""
    path = folder / "rows.parquet"
    Dataset.from_list(list(rows)).to_parquet(str(path))
    data = RLHFDataset(str(path), found.tokenizer, settings().data)
    return DataProto.from_single_dict(collate_fn([data[i] for i in range(len(data))]))


def by_opening(played: Sequence[Game]) -> Script:
    """Each conversation's messages, found by its first observation."""

    def script(_: str, prompt: str, turn: int) -> str:
        asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
        [game] = [g for g in played if prompt.endswith(asked.format(g.first))]
        return game.messages[turn]

    return script


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_attempts_carry_all(env: str, player: str, tmp_path: Path) -> None:
    played = list(games(env, player))
    servers = Servers(by_opening(played))
    loops = worker(servers)
    rows = verl_rows(env, "test", **OPTIONS)[:EPISODES]
    given = batch([*rows, *rows], tmp_path, loops)  # two episodes of each: nothing may leak
    found = asyncio.run(loops.generate_sequences(given))
    for number, game in enumerate([*played, *played]):
        same(found[number : number + 1], game, loops.tokenizer)


def same(found: DataProto, game: Game, tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(game.conversation[:-1], tokenize=False)
    ids = found.batch["input_ids"][found.batch["attention_mask"].bool()]
    assert tokenizer.decode(ids) == text.removesuffix("\n")
    sampled = found.batch["responses"][found.batch["response_mask"].bool()]
    assert tokenizer.decode(sampled) == "".join(f"{m}<|im_end|>" for m in game.messages)
    logprobs = found.batch["rollout_log_probs"]
    assert torch.equal(logprobs, -0.5 * found.batch["response_mask"])
    assert found.batch["rm_scores"].sum() == sum(turn.reward for turn in game.turns)
    columns = {name: values[0] for name, values in found.non_tensor_batch.items()}
    assert columns["feedback"] == game.turns[-1].feedback
    assert columns["turn_scores"] == [turn.reward for turn in game.turns]
    ran_out = columns["outcome"] in ("out_of_turns", "no_box")
    assert ran_out == game.turns[-1].truncated
    assert (columns["min_global_steps"], columns["max_global_steps"]) == (3, 4)


def test_the_servers_are_asked_as_the_configuration_says(tmp_path: Path) -> None:
    [game] = list(games("frozenlake", "oracle"))[:1]
    servers = Servers(by_opening([game]))
    loops = worker(servers, "actor_rollout_ref.rollout.temperature=0.7")
    rows = verl_rows("frozenlake", "test", **OPTIONS)[:1]
    asyncio.run(loops.generate_sequences(batch(rows, tmp_path, loops)))
    asked = servers.params[0]
    assert (asked["temperature"], asked["top_p"], asked["top_k"]) == (0.7, 1.0, -1)
    assert asked["max_tokens"] == 1024
    assert loops.tokenizer.convert_tokens_to_ids("<|im_end|>") in asked["stop_token_ids"]
    [prompts] = servers.asked.values()  # one request id: servers keep the conversation's cache
    assert all(b.startswith(a) for a, b in itertools.pairwise(prompts))


# what Qwen3's template does with the thoughts of earlier turns
STRIPS = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content.split('</think>')[-1] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' -}}{% endif -%}"""


def test_a_trajectory_keeps_the_thoughts_that_a_template_strips(tmp_path: Path) -> None:
    [game] = list(games("frozenlake", "oracle"))[:1]
    script = by_opening([game])
    servers = Servers(lambda *asked: f"<think>```Up```?</think>{script(*asked)}")
    loops = worker(servers)
    loops.tokenizer.chat_template = STRIPS
    rows = verl_rows("frozenlake", "test", **OPTIONS)[:1]
    found = asyncio.run(loops.generate_sequences(batch(rows, tmp_path, loops)))
    [prompts] = servers.asked.values()
    assert len(prompts) > 1 and all(b.startswith(a) for a, b in itertools.pairwise(prompts))
    sampled = found.batch["responses"][found.batch["response_mask"].bool()]
    said = "".join(f"<think>```Up```?</think>{m}<|im_end|>" for m in game.messages)
    assert loops.tokenizer.decode(sampled) == said
    assert found.batch["rm_scores"].sum() == 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "{"}, "task must be a JSON object"),
        ({"task": '{"env": "frozenlake", "params": {}, "id": "x"}'}, "does not match"),
        ({"options": '{"symbol": "x"}'}, "valid"),
        ({"env": "chess"}, "valid"),
    ],
)
def test_a_bad_row_raises_one_line(change: dict[str, str], said: str, tmp_path: Path) -> None:
    played = list(games("frozenlake", "oracle"))[:2]
    servers = Servers(by_opening(played))
    loops = worker(servers)
    rows = verl_rows("frozenlake", "test", **OPTIONS)[:2]
    bad = batch([{**rows[0], **change}, rows[1]], tmp_path, loops)
    with pytest.raises(ValueError, match=said) as raised:
        asyncio.run(loops.generate_sequences(bad))
    assert "\n" not in str(raised.value)
    found = asyncio.run(loops.generate_sequences(batch(rows, tmp_path, loops)))  # it lives on
    same(found[1:], played[1], loops.tokenizer)


def test_a_prompt_that_is_too_long_and_an_environment_that_fails_raise(tmp_path: Path) -> None:
    played = list(games("frozenlake", "oracle"))[:1]
    loops = worker(Servers(by_opening(played)), "actor_rollout_ref.rollout.prompt_length=64")
    rows = verl_rows("frozenlake", "test", **OPTIONS)[:1]
    with pytest.raises(ValueError, match=r"prompt_length is 64"):
        asyncio.run(loops.generate_sequences(batch(rows, tmp_path, loops)))
    down = {"retriever": "http", "retriever_url": "http://127.0.0.1:9"}
    asks = worker(Servers(lambda *_: "<search>x</search>"))
    row = {**verl_rows("hotpotqa", "test")[0], "options": erl_envs.core.canonical_json(down)}
    with pytest.raises(erl_envs.core.EnvError):
        asyncio.run(asks.generate_sequences(batch([row], tmp_path, asks)))


# ERL's stages


def trial_script(game: Game) -> Script:
    """First attempts fail; of two second attempts the first solves the task."""
    seconds: list[str] = []

    def script(conversation: str, prompt: str, turn: int) -> str:
        if "<prompt>" in prompt:
            return "I see. <prompt>Walk by the rulebook.</prompt>"
        if "Walk by the rulebook" not in prompt:
            return "```Fly```"
        if conversation not in seconds:
            seconds.append(conversation)
        return "```Fly```" if seconds.index(conversation) % 2 else game.messages[turn]

    return script


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Any]]:
    """What verl's worker puts into its TransferQueue."""
    module = importlib.import_module("verl.trainer.ppo.v1.agent_loop_tq")
    put: list[tuple[list[str], Any]] = []

    async def async_kv_batch_put(keys: list[str], fields: Any, **_: Any) -> None:
        put.append((keys, fields))

    async def async_kv_put(**_: Any) -> None:
        pass

    monkeypatch.setattr(module.tq, "init", lambda: None)
    monkeypatch.setattr(module.tq, "async_kv_batch_put", async_kv_batch_put)
    monkeypatch.setattr(module.tq, "async_kv_put", async_kv_put)
    monkeypatch.setattr(erl_verl, "MEMORY", erl_verl.StepMemory())
    return put


def erl_worker(servers: Servers, *overrides: str) -> Any:
    module = importlib.import_module("verl.trainer.ppo.v1.agent_loop_tq")
    remote = module.AgentLoopWorkerTQ.__ray_metadata__.modified_class
    found = remote(settings(*overrides), llm_client=servers)
    servers.tokenizer = found.tokenizer
    return found


async def play(loops: Any, row: Mapping[str, Any], step: int) -> None:
    prompt = {**row, "raw_prompt": row["prompt"], "uid": "u", "global_steps": step}
    params = {"temperature": 0.7, "top_p": 1.0, "top_k": -1, "logprobs": False}
    info = {"step": step, "sample_index": 0, "rollout_n": 0, "validate": False}
    outputs = loops._run_agent_loop(params, info, trace=False, session_id=0, **prompt)
    await outputs


def test_erl_gives_verl_every_stage_with_its_credit(queue: list[tuple[list[str], Any]]) -> None:
    game = next(iter(games("frozenlake", "oracle")))
    servers = Servers(trial_script(game))
    loops = erl_worker(servers)
    [row] = verl_rows("frozenlake", "test", "erl", **OPTIONS)[:1]
    asyncio.run(play(loops, row, step=1))
    [(keys, fields)] = queue
    stages = [extra["stage"] for extra in fields["extra_fields"]]
    assert stages == ["attempt_1", "reflection", "attempt_2"] * 4 + ["distill"] * 2
    assert keys == [f"u_0_{n}" for n in range(14)]
    rewards = [float(scores.sum()) for scores in fields["rm_scores"].unbind()]
    # rewards of second attempts, and so of reflections: 1 0 1 0; (r - 1/2) / (1/√3) = ±0.866
    won, lost = [0.0, 0.866, 0.866], [0.0, -0.866, -0.866]
    assert rewards == pytest.approx([*won, *lost, *won, *lost, 1.0, 1.0], abs=1e-3)
    prompts, responses = fields["prompts"].unbind(), fields["responses"].unbind()
    assert torch.equal(prompts[12], prompts[0])  # told what the first attempt was told
    assert torch.equal(responses[12], responses[2])  # and learns what the second one wrote
    assert same_advantages(keys, fields) == pytest.approx(rewards)

    asyncio.run(play(loops, row, step=2))
    recalled = [p for p in (asked[0] for asked in servers.asked.values()) if "<prompt>" in p]
    assert not any("Walk by the rulebook" in p for p in recalled[:4])
    assert all("Walk by the rulebook" in p for p in recalled[4:])  # memory, written at step's end


def test_erl_gives_verl_a_trajectory_for_each_stretch(
    queue: list[tuple[list[str], Any]],
) -> None:
    game = next(game for game in games("frozenlake", "oracle") if len(game.messages) > 1)
    script = trial_script(game)
    loops = erl_worker(Servers(lambda *asked: f"<think>hm</think>{script(*asked)}"))
    loops.tokenizer.chat_template = STRIPS
    number = list(games("frozenlake", "oracle")).index(game)
    row = verl_rows("frozenlake", "test", "erl", **OPTIONS)[number]
    asyncio.run(play(loops, row, step=1))
    [(_, fields)] = queue
    stages = [extra["stage"] for extra in fields["extra_fields"]]
    turns = len(game.messages)
    assert stages.count("distill") == 2 * turns
    assert stages.count("reflection") == 4
    # two second attempts win in so many turns, two use up all theirs, as the first attempts do
    longest = max(stages.count("attempt_1") // 4, turns)
    assert stages.count("attempt_2") == 2 * turns + 2 * longest
    credit = [
        round(float(scores.sum()), 3)
        for stage, scores in zip(stages, fields["rm_scores"].unbind(), strict=True)
        if stage == "attempt_2"
    ]
    assert set(credit) == {0.866, -0.866}  # of attempts: a stretch is none
    ends = [
        extra["outcome"]
        for stage, extra in zip(stages, fields["extra_fields"], strict=True)
        if stage == "attempt_2"
    ]
    assert ends.count("solved") == 2 * turns and "" not in ends


def same_advantages(keys: list[str], fields: Any) -> list[float]:
    """What verl's advantage step makes of the trajectories, a number each."""
    utils = importlib.import_module("verl.trainer.ppo.v1.utils")
    names = ("response_mask", "rm_scores")
    columns = {
        name: torch.nn.utils.rnn.pad_sequence(
            [row.float() for row in fields[name].unbind()], batch_first=True
        )
        for name in names
    }
    data = DataProto.from_dict(
        {"response_mask": columns["response_mask"], "token_level_rewards": columns["rm_scores"]},
        {"uid": np.array(["u"] * len(keys), dtype=object)},
    )
    found = utils.compute_advantage_for_multi_trajectories(
        data, batch_keys=keys, adv_estimator="erl", config={}
    )
    mask = found.batch["response_mask"]
    credit = found.batch["advantages"].sum(-1) / mask.sum(-1)
    assert torch.allclose(found.batch["advantages"], credit[:, None] * mask)
    return list(map(float, credit))


def test_every_row_tells_of_its_own_attempt(queue: list[tuple[list[str], Any]]) -> None:
    """verl gives all rows the last one's `reward_extra_info`; and no attempt is a reflection's."""
    game = next(iter(games("frozenlake", "oracle")))
    loops = erl_worker(Servers(trial_script(game)))
    [row] = verl_rows("frozenlake", "test", "erl", **OPTIONS)[:1]
    asyncio.run(play(loops, row, step=1))
    [(_, fields)] = queue
    won, turns = game.turns[-1].feedback, [turn.reward for turn in game.turns]
    nothing: tuple[str, str, list[float]] = ("", "", [])
    seconds = itertools.cycle([("solved", won, turns), None])
    for extra in fields["extra_fields"]:
        assert extra["reward_extra_info"] == {"reward": extra["reward"]}
        found = extra["outcome"], extra["feedback"], extra["turn_scores"]
        second = next(seconds) if extra["stage"] == "attempt_2" else None
        if extra["stage"] in ("reflection", "distill"):
            assert found == nothing
        elif second:
            assert found == second
        else:
            assert found[0] == "out_of_turns" and found[1] not in ("", won)
            assert found[2] == [0.0] * 8


IGNORED: list[tuple[str, str]] = [
    ("erl: {reflector: oracle}", "does not read 'reflector'"),
    ("erl: {updates: staged}", "does not read 'updates'"),
    ("erl: {minibatches: 2}", "does not read 'minibatches'"),
    ("erl: {env_options: {rules: shown}}", "does not read 'env_options'"),
    ("erl: {lr: 0.1}", "does not read 'lr'"),
    ("erl: {group_sise: 4}", "does not read 'group_sise'"),
    ("erl: {distill: on_policy_kl}", "cannot carry distill 'on_policy_kl'"),
    ("erl: {group_size: 4}\n  max_tokens: 9", "max_tokens"),
]


@pytest.mark.parametrize(("given", "said"), IGNORED)
def test_settings_that_would_be_ignored_are_refused(
    given: str, said: str, queue: list[tuple[list[str], Any]], tmp_path: Path
) -> None:
    path = tmp_path / "loops.yaml"
    path.write_text(
        f"- name: erl\n  _target_: erl_trainer.verl.ErlLoop\n  {given}\n", encoding="utf-8"
    )
    option = f"actor_rollout_ref.rollout.agent.agent_loop_config_path={path}"
    [row] = verl_rows("frozenlake", "test", "erl", **OPTIONS)[:1]
    with pytest.raises(Exception, match=said):
        asyncio.run(play(erl_worker(Servers(lambda *_: ""), option), row, step=1))


def test_erl_refuses_what_verl_cannot_carry(queue: list[tuple[list[str], Any]]) -> None:
    [row] = verl_rows("frozenlake", "test", "erl", **OPTIONS)[:1]
    loops = erl_worker(Servers(lambda *_: ""), "actor_rollout_ref.rollout.n=4")
    with pytest.raises(Exception, match=r"set rollout\.n=1"):
        asyncio.run(play(loops, row, step=1))


def test_verl_takes_the_papers_configuration() -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = papers()
    assert need_reference_policy(config) and not need_critic(config)
    validate_config(config, use_reference_policy=True, use_critic=False)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert (actor.optim.lr, actor.clip_ratio_high) == (1e-6, 0.28)
    assert config.algorithm.adv_estimator == "erl"


def test_the_papers_run_tells_every_machine_of_the_estimator() -> None:
    """As verl makes the environment of Ray's processes of it: `run_ppo`."""
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    config = papers()
    own = config.ray_kwargs.ray_init.runtime_env
    merge = importlib.import_module("omegaconf").OmegaConf.merge
    runtime = merge(get_ppo_ray_runtime_env(config), own)
    assert runtime.env_vars.VERL_USE_EXTERNAL_MODULES == "erl_trainer.verl"
    assert runtime.env_vars.TOKENIZERS_PARALLELISM == "true"  # verl's own are kept


def papers() -> Any:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(HERE / "erl_trainer" / "verl"), version_base=None):
        return compose(
            "paper", overrides=["hydra.searchpath=[pkg://verl.trainer.config]", "trainer.nnodes=2"]
        )
