"""The contract, over every registered environment and every option value."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import erl_envs
from erl_envs.checker import ContractError, check_env
from erl_envs.core import Step, TextEnv
from erl_envs.registry import env_class

ROOT = Path(__file__).parents[1]

COMMON: list[dict[str, Any]] = [
    {},
    {"rules": "shown"},
    {"feedback": "score"},
    {"feedback": "transitions"},
    {"feedback": "solution"},
    {"max_turns": 1},
    {"max_turns": 20},
    {"turn_feedback": True},
    {"prompt_style": "compact"},
    {"prompt_style": "compact", "rules": "shown"},
]
GRID: list[dict[str, Any]] = [
    {"symbols": "canonical"},
    {"symbols": "random"},
    {"symbols": "random", "rules": "shown"},
]
OWN: dict[str, list[dict[str, Any]]] = {
    "frozenlake": [
        *GRID,
        {"is_slippery": True},
        {"is_slippery": True, "feedback": "solution"},
        {"size": (3, 4), "p": (0.8, 0.9)},
        {"symbols": dict(zip(env_class("frozenlake").opaque, "PGHFxw", strict=True))},  # type: ignore[attr-defined]
    ],
    "hotpotqa": [
        {"reward": "em"},
        {"reward": "f1"},
        {"retriever": "rank_bm25"},
        {"top_k": 2, "snippet_chars": 300},
    ],
    "sokoban": [
        *GRID,
        {"generator": "pulls", "boxes": 2, "min_pushes": 4, "walls": 0.15},
        {"generator": "pulls", "size": (5, 6), "max_turns": 12},
        {"symbols": dict(zip(env_class("sokoban").opaque, "PpBbGFW", strict=True))},  # type: ignore[attr-defined]
    ],
}


def test_every_environment_is_listed_with_its_options() -> None:
    assert erl_envs.list_envs() == sorted(OWN)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name in sorted(OWN) for options in COMMON + OWN[name]],
    ids=str,
)
def test_contract(name: str, options: dict[str, Any]) -> None:
    check_env(env_class(name), seeds=range(3), **options)


@pytest.mark.parametrize(
    ("gym_id", "name"),
    [
        ("erl_envs/FrozenLake-v0", "frozenlake"),
        ("erl_envs/Sokoban-v0", "sokoban"),
        ("erl_envs/HotpotQA-v0", "hotpotqa"),
    ],
)
def test_gymnasium_makes_it(gym_id: str, name: str) -> None:
    env = gym.make(f"erl_envs:{gym_id}", feedback="transitions")
    first, _ = env.reset(seed=3)
    plain = erl_envs.make(name, feedback="transitions")
    assert plain.reset(seed=3)[0] == first
    assert env.step("```Up```") == plain.step("```Up```")


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_mistyped_option_names_the_valid_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"no option 'rulez'; valid options: rules, feedback"):
        erl_envs.make(name, rulez="shown")
    with pytest.raises(ValueError, match="'hidden', 'shown'"):
        erl_envs.make(name, rules="visible")
    with pytest.raises(ValueError, match="'score', 'outcome', 'transitions', 'solution'"):
        erl_envs.make(name, feedback="all")
    with pytest.raises(ValueError, match="max_turns"):
        erl_envs.make(name, max_turns=0)
    with pytest.raises(ValueError, match="max_turns"):
        erl_envs.make(name, max_turns=True)
    with pytest.raises(ValueError, match="render_mode"):
        erl_envs.make(name, render_mode="human")
    with pytest.raises(ValueError, match="valid: 'task'"):
        erl_envs.make(name).reset(options={"tusk": {}})
    with pytest.raises(
        ValueError, match="no environment 'chess'; valid: frozenlake, hotpotqa, sokoban"
    ):
        erl_envs.make("chess")


@pytest.mark.parametrize(
    ("name", "options", "bad"),
    [
        ("frozenlake", {"symbols": "random"}, {"seed": 1}),
        ("frozenlake", {"is_slippery": True}, {"desc": ["SF", "F"]}),
        ("frozenlake", {}, {"desc": ["S" + "F" * 64 + "G"]}),
        ("sokoban", {"symbols": "random"}, {"layout": ["####"]}),
        ("sokoban", {}, {"layout": ["#"] * 65}),
        ("hotpotqa", {}, {"question": "Q?", "answer": "Mallory", "supporting_facts": [1]}),
        ("hotpotqa", {}, {"question": "Q?", "answer": "Mallory", "supporting_facts": 5}),
        ("hotpotqa", {}, {"question": "Q?", "answer": "Mallory", "corpus": 5}),
    ],
)
def test_a_refused_reset_leaves_the_attempt_as_it_was(
    name: str, options: dict[str, Any], bad: dict[str, Any]
) -> None:
    told = []
    for refused in (False, True):
        env = erl_envs.make(name, **options)
        env.reset(seed=3)
        rng = np.random.default_rng(0)
        steps = [env.step(env.random_message(rng))]
        if refused:
            with pytest.raises(ValueError, match=r"task|desc|layout|corpus"):
                env.reset(seed=5, options={"task": bad})
            with pytest.raises(ValueError, match="seed must be a whole number from 0, not -1"):
                env.reset(seed=-1)
        while not (steps[-1][2] or steps[-1][3]):
            steps.append(env.step(env.random_message(rng)))
        told.append((steps, env.task))
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["frozenlake", "sokoban"])
def test_render_gives_the_board_alone(name: str) -> None:
    env = erl_envs.make(name, render_mode="ansi", turn_feedback=True)
    observation, _ = env.reset(seed=1)
    assert env.render() == observation
    observation, *_ = env.step("nothing")
    assert observation.endswith(f"\n{env.render()}") and observation != env.render()


def test_the_documented_environment_passes_and_is_short() -> None:
    page = (ROOT / "docs/new-environment.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```\n\nWhat", page, re.DOTALL)[0]
    assert len(code.splitlines()) < 60
    exec(compile(code, "docs/new-environment.md", "exec"), {"__name__": "docs"})


class Broken(TextEnv):
    """Counts to three; each subclass below breaks one promise."""

    name = "broken"
    actions = ("Go",)

    def sample_task(self, rng: Any) -> dict[str, Any]:
        return {"start": int(rng.integers(3))}

    def begin(self, params: Any) -> None:
        if set(params) != {"start"}:
            raise ValueError("start")
        self.count = params["start"]

    def observe(self) -> str:
        return f"count {self.count}"

    def act(self, action: str) -> Step:
        self.count += 1
        return Step("counted", reward=float(self.count >= 4), outcome="solved" * (self.count >= 4))

    def solve(self) -> list[str]:
        return ["Go"] * (4 - self.count)


class Forgets(Broken):
    def begin(self, params: Any) -> None:
        self.count = 0


class GlobalDraws(Broken):
    def act(self, action: str) -> Step:
        import numpy as np

        np.random.random()
        return super().act(action)


class FalseOracle(Broken):
    def solve(self) -> list[str]:
        return ["Go"]


class RaisesOnNoise(Broken):
    def parse(self, text: str) -> tuple[str | None, str]:
        return text.encode("utf-8").decode().strip("`"), ""


class TellsTheRules(Broken):
    def rules_text(self) -> str:
        return "Go counts"

    @property
    def system_prompt(self) -> str:
        return f"Go counts.\n{self.format_reminder}"


class DriftingFeedback(Broken):
    def tell_outcome(self, outcome: str) -> str:
        return self.options.feedback


def test_the_checker_passes_a_sound_environment() -> None:
    check_env(Broken)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (Forgets, "bad task"),
        (GlobalDraws, "global random"),
        (FalseOracle, "oracle took"),
        (TellsTheRules, "rules='hidden'"),
        (DriftingFeedback, "begin with the one below"),
    ],
)
def test_the_checker_catches(broken: type[TextEnv], problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        check_env(broken)


def test_the_checker_does_not_swallow_an_exception() -> None:
    with pytest.raises(Exception):  # noqa: B017 - whatever the environment raised
        check_env(RaisesOnNoise)


PROBE = """
import erl_envs, sys
for name in erl_envs.list_envs():
    choices = [{}] if name == "hotpotqa" else [{"symbols": s} for s in ("opaque", "random")]
    for choice in choices:
        env = erl_envs.make(name, feedback="solution", **choice)
        for seed in range(20):
            print(env.reset(seed=seed), env.task)
            print(env.step("what?"), env.step("```Up``` <search>river town</search>"))
print(sorted(m for m in sys.modules if m in ("torch", "transformers", "vllm", "erl_trainer")))
"""


def test_the_same_bytes_in_every_process_and_no_torch() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROBE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "123")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].endswith(b"[]\n")
