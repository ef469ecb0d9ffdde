"""A thinking model's game becomes samples: thoughts kept and stripped, all tokens spelt out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from chat_families import FAMILIES, pieces

import erl_envs
from erl_envs.adapters.rows import one_sequence
from erl_envs.core import Task, Tokens
from erl_envs.policies.base import Conversation, Sampling, Thoughts
from erl_envs.policies.chat import ChatTokens
from erl_envs.policies.local import Generated, Local
from erl_envs.reflection import reflection_messages
from erl_envs.rollout import EnvPool
from erl_trainer.actor import Actor, players
from erl_trainer.config import Config
from erl_trainer.erl import Step, collect, swap_prompt
from erl_trainer.memory import NoMemory
from erl_trainer.sft import encode
from erl_trainer.types import Sample

F = "`" * 3
TASK = Task("frozenlake", {"desc": ["SFG", "HFF"]})
UP, DOWN, RIGHT = (f"{F}{word}{F}" for word in ("Up", "Down", "Right"))
THOUGHT = f"<think>\n{F}Down{F}?\n</think>\n\n"
RULEBOOK = "<prompt>B is the goal.</prompt>"
SCRIPT: Mapping[tuple[int, str], Sequence[str]] = {
    (0, "attempt_1"): [UP, DOWN],  # against the wall, then into the hole
    (0, "reflection"): [RULEBOOK],
    (0, "attempt_2"): [RIGHT, RIGHT],
    (1, "attempt_1"): [RIGHT, RIGHT],
}
"""Sample and stage → what is said, each time after a thought."""


class Thinker(Local):
    """Samples a script's messages after a thought, as ids of Qwen3's markers."""

    spec = revision = "thinker"

    def __init__(self, thoughts: Thoughts | None, thought: str = THOUGHT) -> None:
        """Args: thoughts: of earlier turns; thought: before every message."""
        family = FAMILIES["Qwen3"]
        tokenizer = family.tokenizer()
        self.take_chat(ChatTokens(tokenizer, [tokenizer.eos_token_id], "Qwen3", thoughts))
        self.context, self.thought = 1 << 20, thought

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        """The next message of each conversation's script."""
        return [self._next(conversation) for conversation in conversations]

    def _next(self, conversation: Conversation) -> Generated:
        _, _, sample, stage = conversation.key
        turn = sum(m["role"] == "assistant" for m in conversation.messages)
        text = self.thought + SCRIPT[sample, stage][turn] + "<|im_end|>"
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return Generated(ids, [-0.25 * (turn + 1)] * len(ids), True)


def step(thoughts: Thoughts | None, **fields: Any) -> Step:
    config = Config(
        group_size=2, memory="none", env_options={"prompt_style": "full"}, model="q", **fields
    )
    policy = Thinker(thoughts)
    actor = Actor(EnvPool({"frozenlake": config.options}), players(config, policy, policy), 4)
    return collect([TASK], actor, NoMemory(), config, seed=0)


BOARD, MOVED = " A \t D \t B \t\n C \t D \t D \t", " D \t A \t B \t\n C \t D \t D \t"
STUCK = f"Up changed nothing.\n{BOARD}"
ANSWER = "<|im_start|>assistant\n"


def system(text: str) -> str:
    return f"<|im_start|>system\n{text}<|im_end|>\n"


def user(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n"


def wrote(text: str) -> str:
    """What was sampled: a thought, what is said, the end of the turn."""
    return f"«{THOUGHT}{text}<|im_end|>»"


def told(text: str) -> str:
    """An earlier answer, its thought stripped."""
    return f"{text}<|im_end|>"


def the_prompts(step: Step) -> tuple[str, str, str]:
    """Ahead of the first answer: of first attempts, of second ones, of the reflection."""
    env = erl_envs.make("frozenlake", feedback="transitions")
    env.reset(options={"task": TASK})
    first = f"{system(env.system_prompt)}{user(BOARD)}"
    second = f"{system(f'B is the goal.{chr(10) * 2}{env.format_reminder}')}{user(BOARD)}"
    asked = reflection_messages(env, step.trials[0].first)
    return first, second, f"{system(asked[0]['content'])}{user(asked[1]['content'])}"


def test_stripped_every_turn_is_a_stretch_after_what_the_model_really_read() -> None:
    played = step(None)
    first, second, asked = the_prompts(played)
    again = [
        f"{ANSWER}{wrote(RIGHT)}",
        f"{ANSWER}{told(RIGHT)}\n{user(MOVED)}{ANSWER}{wrote(RIGHT)}",
    ]
    check(
        played.samples,
        [
            ("attempt_1", -0.5, f"{first}{ANSWER}{wrote(UP)}"),
            (
                "attempt_1",
                -0.5,
                f"{first}{ANSWER}{told(UP)}\n{user(STUCK)}{ANSWER}{wrote(DOWN)}",
            ),
            ("reflection", 0.0, f"{asked}{ANSWER}{wrote(RULEBOOK)}"),
            *(("attempt_2", 0.0, second + stretch) for stretch in again),
            *(("attempt_1", 0.5, first + stretch) for stretch in again),
            # internalized: each stretch of the second attempt, after the first one's prompt
            *(("distill", 1.0, first + stretch) for stretch in again),
        ],
    )
    shares = {(s.stage, s.share) for s in played.samples}
    assert shares == {
        ("attempt_1", 0.5),
        ("reflection", 1.0),
        ("attempt_2", 0.5),
        ("distill", 0.5),
    }
    assert [trial.reward for trial in played.trials] == [1.0, 1.0]
    assert played.credit.groups == 3  # of attempts: a stretch is none


def test_kept_an_attempt_is_one_sample() -> None:
    played = step("keep")
    first, second, asked = the_prompts(played)
    again = f"{ANSWER}{wrote(RIGHT)}\n{user(MOVED)}{ANSWER}{wrote(RIGHT)}"
    check(
        played.samples,
        [
            (
                "attempt_1",
                -0.5,
                f"{first}{ANSWER}{wrote(UP)}\n{user(STUCK)}{ANSWER}{wrote(DOWN)}",
            ),
            ("reflection", 0.0, f"{asked}{ANSWER}{wrote(RULEBOOK)}"),
            ("attempt_2", 0.0, second + again),
            ("attempt_1", 0.5, first + again),
            ("distill", 1.0, first + again),
        ],
    )
    assert {s.share for s in played.samples} == {1.0}


def check(samples: Sequence[Sample], golden: Sequence[tuple[str, float, str]]) -> None:
    tokenizer = FAMILIES["Qwen3"].tokenizer()
    for sample, (stage, advantage, text) in zip(samples, golden, strict=True):
        ids, sampled = pieces(text, tokenizer)
        assert (sample.stage, sample.advantage) == (stage, advantage)
        assert (list(sample.ids), list(sample.sampled)) == (ids, sampled)
        # the thinker's tell the turn, which a stripped history counts on
        turns = [text[: at.start()].count(ANSWER) for at in re.finditer("«", text)]
        kept = [p for p, was in zip(sample.logprobs, sampled, strict=True) if was]
        assert list(dict.fromkeys(kept)) == [-0.25 * turn for turn in turns]


def test_who_takes_one_sequence_refuses_several() -> None:
    [attempt] = [trial.first for trial in step("keep").trials][:1]
    assert one_sequence(attempt.tokens) is attempt.tokens[0]
    assert one_sequence(()) is None
    with pytest.raises(ValueError, match=r"one sequence an attempt is taken here, .* has 2: "):
        one_sequence(step(None).trials[0].first.tokens)


def test_no_thought_no_second_stretch() -> None:
    """What holds no thought is only appended to, though the template would strip one."""
    policy = Thinker(None, thought="")
    assert policy.thoughts == "strip"
    config = Config(group_size=2, model="q", memory="none", second_attempt="none", distill="none")
    actor = Actor(EnvPool({"frozenlake": config.options}), players(config, policy, policy), 4)
    assert [s.share for s in collect([TASK], actor, NoMemory(), config, seed=0).samples] == [1, 1]


def test_every_sampled_token_is_learnt_once() -> None:
    for thoughts in (None, "keep"):
        played = step(thoughts)
        for trial in played.trials:
            sampled = sum(turn.usage.completion_tokens or 0 for turn in trial.first.turns)
            parts = [s for s in played.samples if s.stage == "attempt_1"]
            learnt = sum(sum(s.sampled) for s in parts if s.reward == trial.first.reward)
            assert learnt == sampled


def test_on_policy_distillation_teaches_each_stretch_under_the_rulebook() -> None:
    played = step(None, distill="on_policy_kl")
    first, second, _ = the_prompts(played)
    tokenizer = FAMILIES["Qwen3"].tokenizer()
    stretches = [
        f"{ANSWER}{wrote(UP)}",
        f"{ANSWER}{told(UP)}\n{user(STUCK)}{ANSWER}{wrote(DOWN)}",
    ]
    matched = [s for s in played.samples if s.kind == "match"]
    for sample, stretch in zip(matched, stretches, strict=True):
        assert (list(sample.ids), list(sample.sampled)) == pieces(first + stretch, tokenizer)
        taught = (list(sample.teacher_ids), list(sample.teacher_sampled))
        assert taught == pieces(second + stretch, tokenizer)


def test_a_prompt_that_a_stretch_does_not_hold_is_not_swapped() -> None:
    first = Tokens([1, 2, 3, 9], [False, False, False, True], [0.0, 0.0, 0.0, -1.0])
    other = Tokens([1, 7, 3, 9], [False, False, False, True], [0.0, 0.0, 0.0, -1.0])
    # a template that told the prompt last: what comes after the 1 is no end of both prompts
    moved = Tokens([1, 8, 2, 3, 9], [False] * 4 + [True], [0.0] * 4 + [-1.0])
    with pytest.raises(ValueError, match="cannot be swapped"):
        swap_prompt(moved, other, first)
    # one that leaves out the 3, with which both open the first answer, can be
    shorter = Tokens([1, 2, 8, 5, 9], [False] * 4 + [True], [0.0] * 4 + [-1.0])
    swapped = swap_prompt(shorter, other, first)
    assert swapped == Tokens([1, 7, 8, 5, 9], [False] * 4 + [True], [0.0] * 4 + [-1.0])


def test_a_run_is_learnt_as_the_model_would_have_read_it() -> None:
    """`sft` makes the same stretches of a record as the model's own play has."""
    played = step(None)
    attempt = played.trials[1].first
    chat = Thinker(None).chat
    learnt = encode(attempt.messages, chat)
    assert [replace(part, logprobs=()) for part in learnt] == [
        replace(part, logprobs=()) for part in attempt.tokens
    ]
    kept = encode(attempt.messages, Thinker("keep").chat)
    assert [list(part.ids) for part in kept] == [list(step("keep").trials[1].first.tokens[0].ids)]
