"""TRL's own GRPOTrainer plays the environments: by tool calls, in plain text, and ERL's stages."""

from __future__ import annotations

import json
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed: pip install 'erl-envs[trl]'")

import torch
import transformers
from datasets import Dataset
from parity import ENVS, EPISODES, OPTIONS, PLAYERS, Game, games
from tiny_models import tiny_model, tiny_tokenizer
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

import erl_envs
from erl_envs.adapters import trl as adapter
from erl_envs.adapters.rows import Row, rows
from erl_envs.adapters.rows import row as row_of
from erl_envs.core import Task, canonical_json
from erl_envs.policies.base import Conversation, Sampling
from erl_envs.policies.local import Generated
from erl_envs.policies.nano import OPTIONS as NANO
from erl_envs.policies.nano import folder
from erl_envs.policies.transformers import Transformers, load
from erl_trainer.config import configure
from erl_trainer.learner import Learner
from erl_trainer.trl import ErlRollout, arrange, erl_credit, rows_per_task
from erl_trainer.types import Sample, Stage

FACTORIES: dict[str, Any] = {
    "frozenlake": adapter.FrozenLake,
    "sokoban": adapter.Sokoban,
    "hotpotqa": adapter.HotpotQA,
}
QWEN3 = Path(transformers.__file__).parents[1] / "trl" / "chat_templates" / "qwen3.jinja"

warnings.filterwarnings("ignore", message=".*experimental feature")


def config(out: Path, **fields: Any) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **fields,
    )


def evaluating(out: Path, count: int = EPISODES // 2, **fields: Any) -> GRPOConfig:
    """Of a trainer whose `evaluate` plays every row once, `count` in a batch."""
    return config(
        out,
        per_device_train_batch_size=2,
        num_generations=2,
        per_device_eval_batch_size=count,
        num_generations_eval=1,
        max_completion_length=1 << 14,
        **fields,
    )


class Spy:
    """A reward function that keeps what it is given."""

    __name__ = "spy"

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, **given: Any) -> list[float]:
        if envs := given.pop("environments", None):
            given["instances"] = [id(env) for env in envs]
            given["ended"] = [
                (env.get_reward(), env.feedback, env.terminated, env.truncated) for env in envs
            ]
        self.seen.append(given)
        return [0.0] * len(given["prompts"])


# Tool calls


def call(env: str, message: str) -> tuple[str, dict[str, Any]]:
    """The tool call that means a scripted message."""
    if env != "hotpotqa":
        return "move", {"direction": message.strip("`")}
    if search := re.fullmatch("<search>(.*)</search>", message):
        return "local_search", {"query": search[1]}
    boxed = re.fullmatch(r"\\boxed{(.*)}", message)
    assert boxed
    return "answer", {"text": boxed[1]}


class ToolScript(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, whose model is a script: each task's tool calls, then a word."""

    calls: dict[str, list[tuple[str, dict[str, Any]]]]

    def _generate(self, prompts: Any) -> Any:
        self.turn = 0
        return super()._generate(prompts)

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        if not self.turn:
            self.asked = [list(ids) for ids in prompt_ids]
            self.known = [env._env.task.id for env in self.environments]
        answers = []
        for ids in prompt_ids:
            place = next(i for i, start in enumerate(self.asked) if ids[: len(start)] == start)
            plan = self.calls[self.known[place]]
            answers.append(self._say(plan[self.turn] if self.turn < len(plan) else None))
        self.turn += 1
        return answers, None

    def _say(self, tool: tuple[str, dict[str, Any]] | None) -> list[int]:
        text = "Done."
        if tool is not None:
            said = json.dumps({"name": tool[0], "arguments": tool[1]})
            text = f"<tool_call>\n{said}\n</tool_call>"
        ids: list[int] = self.processing_class.encode(
            text + self.processing_class.eos_token, add_special_tokens=False
        )
        return ids


def tool_tokenizer() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = QWEN3.read_text(encoding="utf-8")
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|end|>"
    tokenizer.padding_side = "left"
    return tokenizer


def tool_trainer(env: str, data: Any, args: GRPOConfig, reward: Any) -> ToolScript:
    return ToolScript(
        model=tiny_model(1 << 15),
        reward_funcs=reward,
        args=args,
        train_dataset=data,
        eval_dataset=data,
        processing_class=tool_tokenizer(),
        environment_factory=FACTORIES[env],
    )


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_tool_calls_carry_all(env: str, player: str, tmp_path: Path) -> None:
    data = Dataset.from_list(adapter.tool_rows(FACTORIES[env], "test", **OPTIONS)[:EPISODES])
    played, spy = {g.task.id: g for g in games(env, player)}, Spy()
    trainer = tool_trainer(env, data, evaluating(tmp_path), spy)
    trainer.calls = {g.task.id: [call(env, m) for m in g.messages] for g in played.values()}
    trainer.evaluate()
    first, second = spy.seen
    assert first["instances"] == second["instances"]  # TRL takes them again: nothing may be left
    for seen in spy.seen:
        for row, task in enumerate(seen["task"]):
            same_by_tools(seen, row, played.pop(json.loads(task)["id"]))
    assert not played


def same_by_tools(seen: dict[str, Any], row: int, game: Game) -> None:
    told, asked = seen["prompts"][row]
    assert asked["content"] == game.first
    assert told["content"].startswith(game.system_prompt[:40])
    assert "tool" in told["content"] and "```" not in told["content"].splitlines()[-1]
    answers = [m["content"] for m in seen["completions"][row] if m["role"] == "tool"]
    assert answers == [turn.observation for turn in game.turns]
    last = game.turns[-1]
    reward = sum(turn.reward for turn in game.turns)
    ended = (reward, last.feedback, last.terminated, last.truncated)
    assert seen["ended"][row] == ended


def test_a_seed_chooses_the_task_and_the_prompt_is_told_once() -> None:
    plain = erl_envs.make("frozenlake")
    first, _ = plain.reset(seed=7)
    env = adapter.FrozenLake()
    assert env.reset(seed=7) == first != env.reset(seed=8)
    assert env.reset(seed=7, prompt=[{"role": "user", "content": first}]) is None


def test_trl_sets_the_first_observation_apart_from_the_prompt(tmp_path: Path) -> None:
    told = [{"role": "user", "content": "Cross the lake."}]
    data = Dataset.from_list([{"prompt": told, "seed": seed} for seed in (7, 8)])
    spy = Spy()
    trainer = tool_trainer("frozenlake", data, evaluating(tmp_path, 2), spy)
    plain, trainer.calls = erl_envs.make("frozenlake"), defaultdict(list)
    trainer.evaluate()
    first = {seed: plain.reset(seed=seed)[0] for seed in (7, 8)}
    for seed, prompt in zip(spy.seen[0]["seed"], spy.seen[0]["prompts"], strict=True):
        assert prompt[-1]["content"] == f"Cross the lake.\n\n{first[seed]}"


def test_calls_that_mean_nothing_cost_a_turn_or_are_told_so(tmp_path: Path) -> None:
    data = Dataset.from_list(adapter.tool_rows(adapter.FrozenLake, "test", **OPTIONS)[:2])
    spy = Spy()
    trainer = tool_trainer("frozenlake", data, evaluating(tmp_path, 2), spy)
    lost, fine = list(games("frozenlake", "oracle"))[:2]
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("fly", {}),
        ("move", {"way": "Up"}),
        ("move", {"direction": "Upwards"}),
    ]
    trainer.calls = {
        lost.task.id: [*wrong, *[call("frozenlake", m) for m in lost.messages]] * 2,
        fine.task.id: [call("frozenlake", m) for m in fine.messages],
    }
    trainer.evaluate()
    seen = spy.seen[0]
    row = [json.loads(task)["id"] for task in seen["task"]].index(lost.task.id)
    said = [m["content"] for m in seen["completions"][row] if m["role"] == "tool"]
    assert said[0] == "{'error': 'Tool fly not found.'}"
    assert "unexpected keyword argument 'way'" in said[1]
    assert said[2].startswith("The message could not be read")
    ended = "{'error': 'the attempt has ended: no tool can be called any more'}"
    assert said[-1] == ended and said.count(ended) > 1
    same_by_tools(seen, 1 - row, fine)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "a row needs a task or a seed"),
        ({"task": "[]"}, "task must be a JSON object"),
        ({"task": 3}, "task must be a JSON object"),
        ({"task": "", "seed": 1}, "task must be a JSON object"),
        ({"options": "", "seed": 1}, "options must be a JSON object"),
        ({"seed": -1, "options": None}, "seed must be a whole number from 0, not -1"),
        ({"task": '{"env": "sokoban", "params": {}}'}, "this is frozenlake; the task is for"),
        ({"task": '{"env": "frozenlake", "params": {}, "id": "x"}'}, "does not match"),
        ({"seed": 1, "options": '{"symbols": "x"}'}, "valid"),
        ({"env": "sokoban", "seed": 1}, "this is frozenlake; the row is for sokoban"),
    ],
)
def test_rows_that_are_none_raise_one_line(row: dict[str, Any], said: str) -> None:
    env = adapter.FrozenLake()
    env.reset(seed=1)
    with pytest.raises(ValueError, match=said) as raised:
        env.reset(**row)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="the attempt has ended"):  # nothing of the last is left
        env.move("Up")


def test_a_step_by_tools(tmp_path: Path) -> None:
    data = Dataset.from_list(adapter.tool_rows(adapter.FrozenLake, "small-train")[:2])
    args = config(
        tmp_path,
        per_device_train_batch_size=4,
        num_generations=2,
        max_steps=1,
        max_completion_length=4096,
        shuffle_dataset=False,
    )
    trainer = tool_trainer("frozenlake", data, args, None)
    # the script cannot tell a task's two attempts apart, but by chance; rewards then are equal
    trainer.calls = {json.loads(row["task"])["id"]: [("move", {"direction": "Up"})] for row in data}
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.state.log_history[-1]["tools/call_frequency"] == 1


# Plain text


class Script(Transformers):
    """A policy that says each task's messages, as the tokens of a model."""

    plan: dict[str, list[str]]

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        found = []
        for c in conversations:
            message = self.plan[c.key[1]][sum(m["role"] == "assistant" for m in c.messages)]
            ids = self.tokenizer.encode(message, add_special_tokens=False)
            ids += self.chat.end_of_turn
            found.append(Generated(ids, [-0.5] * len(ids), True))
        return found


class ScriptedRollout(adapter.TextRollout):
    """The adapter, its model replaced by a script."""

    plan: dict[str, list[str]]

    def policy(self, trainer: Any) -> Transformers:
        script = Script("script", trainer.model, trainer.processing_class)
        script.plan = self.plan
        return script


def text_trainer(rollout: Any, data: Any, args: GRPOConfig, reward: Any) -> GRPOTrainer:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "<|end|>"
    tokenizer.padding_side = "left"
    return GRPOTrainer(
        model=tiny_model(1 << 15),
        reward_funcs=reward,
        args=args,
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
        rollout_func=rollout,
    )


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("env", ENVS)
def test_plain_text_carries_all(env: str, player: str, tmp_path: Path) -> None:
    data = Dataset.from_list(rows(env, "test", **OPTIONS)[:EPISODES])
    played, spy = {g.task.id: g for g in games(env, player)}, Spy()
    rollout = ScriptedRollout(data, concurrency=7)
    rollout.plan = {g.task.id: g.messages for g in played.values()}
    outputs: list[dict[str, Any]] = []

    def keeping(prompts: Any, trainer: Any) -> dict[str, Any]:
        outputs.append(rollout(prompts, trainer))
        return dict(outputs[-1])

    trainer = text_trainer(keeping, data, evaluating(tmp_path), [adapter.env_reward, spy])
    trainer.evaluate()
    for seen, output in zip(spy.seen, outputs, strict=True):
        for row, task in enumerate(seen["task"]):
            game = played.pop(json.loads(task)["id"])
            assert seen["reward"][row] == sum(turn.reward for turn in game.turns)
            assert seen["feedback"][row] == game.turns[-1].feedback
            ran_out = seen["outcome"][row] in ("out_of_turns", "no_box")
            assert ran_out == game.turns[-1].truncated
            same_ids(trainer.processing_class, output, row, game)
    assert not played


def same_ids(tokenizer: Any, output: dict[str, Any], row: int, game: Game) -> None:
    """The row is the conversation as the template writes it, and its mask the messages."""
    text = tokenizer.apply_chat_template(game.conversation[:-1], tokenize=False)
    ids = output["prompt_ids"][row] + output["completion_ids"][row]
    assert tokenizer.decode(ids) == text.removesuffix("\n")
    mask, completion = output["env_mask"][row], output["completion_ids"][row]
    sampled = [i for i, own in zip(completion, mask, strict=True) if own]
    assert tokenizer.decode(sampled) == "".join(f"{m}<|im_end|>" for m in game.messages)
    assert output["logprobs"][row] == [-0.5 * own for own in mask]


def nano_trainer(rollout: Any, data: Any, reward: Any, args: GRPOConfig, **more: Any) -> Any:
    model, tokenizer = load(str(folder("frozenlake")))
    tokenizer.padding_side = "left"
    return GRPOTrainer(
        model=model.float(),
        reward_funcs=reward,
        args=args,
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
        rollout_func=rollout,
        **more,
    )


def test_nano_takes_steps_on_what_it_sampled(tmp_path: Path) -> None:
    data = Dataset.from_list(rows("frozenlake", "small-train", **NANO["frozenlake"])[:12])
    rollout = adapter.TextRollout(data, max_tokens=32)
    outputs: list[dict[str, Any]] = []
    gaps: list[float] = []

    def checking(prompts: Any, trainer: Any) -> dict[str, Any]:
        output = rollout(prompts, trainer)
        outputs.append(output)
        gaps.append(max(abs(a - b) for a, b in zip(*both_logprobs(trainer, output), strict=True)))
        return output

    args = config(
        tmp_path,
        per_device_train_batch_size=24,
        num_generations=4,
        max_steps=2,
        max_completion_length=2048,
        learning_rate=1e-3,
    )
    trainer = nano_trainer(checking, data, adapter.env_reward, args)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.global_step == 2
    assert max(gaps) < 1e-3
    rewards = [r for output in outputs for r in output["reward"]]
    assert 0 < sum(rewards) < len(rewards)
    after = trainer.model.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # another step, another stream
    assert outputs[0]["completion_ids"] != outputs[1]["completion_ids"]


@torch.no_grad()  # type: ignore[untyped-decorator]
def both_logprobs(trainer: Any, output: dict[str, Any]) -> tuple[list[float], list[float]]:
    """The model's log-probability of a row's sampled ids, and what the rollout says of them."""
    prompt, completion = output["prompt_ids"][0], output["completion_ids"][0]
    logits = trainer.model(torch.tensor([prompt + completion])).logits[0].float()
    logp = logits[len(prompt) - 1 : -1].log_softmax(-1)
    own = logp.gather(1, torch.tensor(completion)[:, None])[:, 0].tolist()
    mask = output["env_mask"][0]
    return (
        [p for p, m in zip(own, mask, strict=True) if m],
        [p for p, m in zip(output["logprobs"][0], mask, strict=True) if m],
    )


def test_unknown_and_ambiguous_prompts_raise_one_line() -> None:
    given = rows("frozenlake", "small-train")[:2]
    with pytest.raises(ValueError, match="no row has the prompt"):
        adapter.TextRollout(given).open([{"role": "user", "content": "x\ny"}])
    with pytest.raises(ValueError, match="two tasks have one prompt"):
        adapter.TextRollout([given[0], {**given[1], "prompt": given[0]["prompt"]}])
    [asked] = rows("hotpotqa", "test")[:1]
    task = json.loads(asked["task"])
    another = Task("hotpotqa", {**task["params"], "answer": "something else"})
    plain = erl_envs.make("hotpotqa")
    with pytest.raises(ValueError, match="two tasks have one prompt"):
        adapter.TextRollout([asked, row_of(plain, another, {})])


def lakes(**options: Any) -> list[Row]:
    """Boards of four cells, many of them the same."""
    env = erl_envs.make("frozenlake", **options)
    seeds = [{"seed": seed, "size": 2, "p": 0.7} for seed in range(200)]
    return [row_of(env, Task("frozenlake", params), options) for params in seeds]


def test_tasks_of_one_board_share_a_prompt_unless_it_may_be_another_game() -> None:
    given = lakes()
    rollout = adapter.TextRollout(given)
    assert len({canonical_json(r["prompt"]) for r in given}) < len(given)
    for r in given:
        env, task = rollout.open(r["prompt"])
        assert env.reset(options={"task": task})[0] == r["prompt"][-1]["content"]
    # symbols that are drawn for each task: the same text, but another cell is the goal
    with pytest.raises(ValueError, match="two tasks have one prompt"):
        adapter.TextRollout(lakes(symbols="random"))
    slippery = row_of(erl_envs.make("frozenlake"), json_task(given[0]), {"is_slippery": True})
    with pytest.raises(ValueError, match="two tasks have one prompt"):
        adapter.TextRollout([given[0], slippery])


def json_task(given: Row) -> Task:
    return Task.from_json(json.loads(given["task"]))


def test_an_attempt_stays_one_sequence_whose_template_strips_thoughts() -> None:
    tokenizer, given = tiny_tokenizer(), lakes()[:1]
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message.content +", "message.content.split('</think>')[-1] +"
    )
    assert Transformers("tiny", tiny_model(), tokenizer).thoughts == "strip"
    model = tiny_model()
    trainer = SimpleNamespace(
        args=SimpleNamespace(use_vllm=False),
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        model=model,
        processing_class=tokenizer,
    )
    assert adapter.TextRollout(given).policy(trainer).thoughts == "keep"
    with pytest.raises(ValueError, match=r"several: .*takes one sequence an attempt"):
        ErlRollout(erl(thoughts="strip"))


# ERL


def erl(**fields: Any) -> Any:
    return configure(
        "default", "erl", **{"group_size": 3, "importance_cap": None, "advantage": "mean", **fields}
    )


class KeepGradients(TrainerCallback):  # type: ignore[misc]
    """What the optimizer is about to use."""

    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("aggregation", ["token_mean", "seq_mean_token_sum"])
def test_erl_in_trl_has_our_learners_gradient(aggregation: str, tmp_path: Path) -> None:
    """Every stage's, distillation with them, in an unchanged GRPOTrainer."""
    cfg = erl(aggregation=aggregation, distill_weight=0.7)
    rollout = ErlRollout(cfg)
    size = rollout.settings["num_generations"]
    assert size == 4 * 3 + 1
    args = config(
        tmp_path,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=4,
        max_steps=1,
        max_completion_length=2048,
        max_grad_norm=0.0,
        **rollout.settings,
    )
    kept = KeepGradients()
    data = Dataset.from_list(rollout.rows[:32])
    trainer = nano_trainer(rollout, data, erl_credit, args, callbacks=[kept])
    trainer.train()
    assert rollout.step is not None
    samples = rollout.step.samples
    assert {s.stage for s in samples} == set(Stage)
    ours = learner_gradients(cfg, samples)
    assert ours.keys() == kept.found.keys()
    for name, gradient in ours.items():
        scale = float(gradient.abs().max())
        assert torch.allclose(kept.found[name], gradient, rtol=1e-3, atol=1e-4 * scale), name
    logged = trainer.state.log_history[-1]
    firsts = [s.reward for s in samples if s.stage == Stage.ATTEMPT_1]
    assert logged["reward/attempt_1"] == pytest.approx(sum(firsts) / len(firsts))
    assert logged["reward/distill"] == 1
    assert rollout.memory.state() is not None


def learner_gradients(cfg: Any, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    model, tokenizer = load(str(folder("frozenlake")))
    learner = Learner(model.float(), cfg, tokenizer.pad_token_id)
    plan = learner._plan(samples)
    for batch in plan.batches:
        loss, _ = learner._objective.part(batch, plan.sizes[batch.kind], None)
        loss.backward()
    found = {n: p.grad for n, p in learner.model.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def test_the_papers_boards_that_come_twice_have_streams_of_their_own() -> None:
    rollout = ErlRollout(erl(train_split="paper-test", eval_split="paper-test"))
    by_prompt = defaultdict(list)
    for r in rollout.rows:
        by_prompt[canonical_json(r["prompt"])].append(r)
    twins = next(same for same in by_prompt.values() if len(same) == 2)
    prompts = [r["prompt"] for r in twins for _ in range(rollout.settings["num_generations"])]
    assert [task.id for task in rollout._tasks(prompts)] == [json_task(r).id for r in twins]


def test_a_group_of_rows_specifies_itself() -> None:
    """One task, two attempts: the first solved it; the second did after a reflection."""
    cfg = erl(group_size=2)

    def sample(stage: Stage, kind: Any, advantage: float) -> Sample:
        return Sample(stage, "t", kind, [5, 6, 7], [False, True, True], [0, -1, -1], 1.0, advantage)

    samples = [
        sample(Stage.ATTEMPT_1, "policy", 0.5),
        sample(Stage.ATTEMPT_1, "policy", -0.5),
        sample(Stage.DISTILL, "imitate", 1.0),
    ]
    given = arrange(1, samples, cfg, blank=9)
    assert rows_per_task(cfg) == 9 == len(given["credit"])
    # 6 tokens in all: 4 of the policy's kind, 2 imitated
    assert given["credit"] == [0.75, -0.75, 3.0, 0, 0, 0, 0, 0, -3.0]
    assert given["prompt_ids"] == [[5]] * 3 + [[9]] * 6
    assert given["completion_ids"] == [[6, 7]] * 3 + [[9]] * 6
    assert given["env_mask"] == [[1, 1]] * 3 + [[0]] * 6
    assert given["stage"] == ["attempt_1", "attempt_1", "distill", *[""] * 6]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"distill": "on_policy_kl"}, "teacher"),
        ({"updates": "staged"}, "three optimizer steps"),
        ({"kl_weight": 0.1}, "beta"),
        ({"temperature": 0.7}, "distill at 1"),
        ({"reflector": "oracle"}, "only the policy reflects"),
    ],
)
def test_what_trl_cannot_carry_raises_one_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        ErlRollout(erl(**fields))
    assert "\n" not in str(raised.value)


def test_a_config_that_would_change_the_credit_raises(tmp_path: Path) -> None:
    rollout = ErlRollout(erl())
    args = config(
        tmp_path,
        per_device_train_batch_size=13,
        max_steps=1,
        **{**rollout.settings, "scale_rewards": "group"},
    )
    trainer = nano_trainer(rollout, Dataset.from_list(rollout.rows[:4]), erl_credit, args)
    with pytest.raises(ValueError, match="ERL needs GRPOConfig\\(scale_rewards='none'\\)"):
        trainer.train()
