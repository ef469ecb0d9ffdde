"""Checks an environment against the contract: ours, and a user's own.

from erl_envs.checker import check_env
check_env(MyEnv)
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import check_env as check_gymnasium

from erl_envs.core import LEVELS, OUT_OF_TURNS, Task, TextEnv

HOSTILE = (
    "",
    " \n\t",
    "\x00\x07\x1b[31m",
    "```",
    "``````",
    "```\n```",
    "`" * 10_000,
    "```" + "Up " * 1_000,
    "``` ``` ```Up``` ```",
    "\ud800 half a surrogate pair",
    "🙂" * 1_000,
    "x" * (1 << 20),
    "<search></search>",
    "<think>" * 10_000,
    "<think>```Up```",
    "</think>",
    "\\boxed{",
    "{'role': 'user'}",
)
"""Messages that a model might send and that no environment may fail on."""

Step = tuple[str, float, bool, bool, dict[str, Any]]


class ContractError(AssertionError):
    """The environment breaks the contract; the message says where."""


def check_env(
    make: Callable[..., TextEnv], seeds: Sequence[int] = range(5), **options: Any
) -> None:
    """Check an environment class, or anything that makes one from options.

    Args:
        make: Called with options, gives an environment.
        seeds: Of the procedural tasks to try.
        **options: To check it under.

    Raises:
        ContractError: The first broken promise.
        AssertionError: Gymnasium's own checker found one.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    env = make(**options)
    _check_declarations(env)
    for seed in seeds:
        _check_reset(make, options, seed)
        _check_play(make, options, seed)
        _check_oracle(make(**options), seed)
        _check_ladder(make, options, seed)
    _check_hostile(make(**options))
    _check_bad_tasks(make(**options))
    _require(
        all(map(np.array_equal, numpy_state, np.random.get_state()))
        and python_state == random.getstate(),
        "it draws from a global random generator; use self.np_random",
    )
    if env.max_turns > 1:  # Gymnasium's checker refuses an environment that ends after one step
        check_gymnasium(make(**options), skip_render_check=True)


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise ContractError(problem)


def _check_declarations(env: TextEnv) -> None:
    _require(isinstance(getattr(env, "name", None), str), "it has no name")
    _require(OUT_OF_TURNS in env.outcomes, f"outcomes lacks {OUT_OF_TURNS!r}")
    env.reset(seed=0)
    prompt = env.system_prompt
    _require(prompt.endswith(env.format_reminder), "the system prompt must end with the reminder")
    rules = env.rules_text()
    if env.options.rules == "hidden":
        _require(not rules or rules not in prompt, "rules='hidden', but the prompt tells them")
    elif rules:
        _require(rules in prompt, "rules='shown', but the prompt does not tell them")


def _check_reset(make: Callable[..., TextEnv], options: dict[str, Any], seed: int) -> None:
    one, two = make(**options), make(**options)
    first, info = one.reset(seed=seed)
    _require(isinstance(first, str) and first, "the first observation must be a non-empty string")
    _require(two.reset(seed=seed) == (first, info), "the same seed must give the same start")
    task = one.task
    assert task is not None
    _require(info.get("task_id") == task.id, "info must carry task_id")
    again = Task.from_json(json.loads(json.dumps(task.to_json())))
    _require(again == task, "the task must survive JSON unchanged")
    _require(two.reset(options={"task": again})[0] == first, "reset with the task must rebuild it")
    _require(two.reset(options={"task": task.params})[0] == first, "so must its parameters")


def _play(env: TextEnv, seed: int, messages: Sequence[str]) -> list[Step]:
    env.reset(seed=seed)
    steps: list[Step] = []
    for message in messages:
        step = env.step(message)
        steps.append(step)
        if step[2] or step[3]:
            break
    return steps


def _random_messages(env: TextEnv, seed: int) -> list[str]:
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    return [env.random_message(rng) for _ in range(env.max_turns)]


def _check_play(make: Callable[..., TextEnv], options: dict[str, Any], seed: int) -> None:
    env = make(**options)
    messages = _random_messages(env, seed)
    messages[0] = ""  # one unreadable message
    steps = _play(env, seed, messages)
    _check_steps(env, steps)
    twin = make(**options)
    _require(_play(twin, seed, messages) == steps, "the same messages must give the same steps")


def _check_steps(env: TextEnv, steps: Sequence[Step]) -> None:
    for number, (observation, reward, terminated, truncated, info) in enumerate(steps, 1):
        _require(isinstance(observation, str), "an observation must be a string")
        _require(isinstance(reward, float), f"a reward must be a float, got {reward!r}")
        _require(
            type(terminated) is bool and type(truncated) is bool, "terminated, truncated: bools"
        )
        _require(not (terminated and truncated), "terminated and truncated exclude each other")
        _require({"action", "changed", "note"} <= set(info), "info lacks action, changed or note")
        last = terminated or truncated
        _require(last == ("feedback" in info), "feedback comes with the last step, and only there")
        _require(last == (number == len(steps)), "the attempt did not end within its turns")
        _require(not truncated or number == env.max_turns, "truncated before the turns were used")
    observation, reward, _, _, info = steps[0]
    if info["action"] is None:
        _require(not info["changed"] and reward == 0, "an unreadable message must change nothing")
        _require(info["note"] in observation, "the next observation must tell of it")
    info = steps[-1][4]
    _require(info["outcome"] in env.outcomes, f"unknown outcome {info['outcome']!r}")
    feedback = env.feedback()
    _require(
        (feedback.text, feedback.outcome, feedback.level)
        == (info["feedback"], info["outcome"], env.options.feedback),
        "feedback() and info disagree",
    )
    _must_raise(lambda: env.step(""), "step after the end must raise RuntimeError")


def _must_raise(call: Callable[[], object], problem: str) -> None:
    try:
        call()
    except RuntimeError:
        return
    raise ContractError(problem)


def _check_oracle(env: TextEnv, seed: int) -> None:
    """Playing the oracle's next message in every state reaches the ceiling."""
    first, _ = env.reset(seed=seed)
    reference = env.reference()
    plan = env.oracle()
    _must_raise(env.feedback, "feedback before the end must raise RuntimeError")
    if plan is None or reference.ceiling != 1.0:
        return
    told = first + env.system_prompt
    _require(len(plan) < 2 or "\n".join(plan) not in told, "the solution is told beforehand")
    total, done = 0.0, False
    while not done:
        plan = env.oracle()
        _require(plan, "the oracle has lost its way")
        assert plan
        _, reward, terminated, truncated, _ = env.step(plan[0])
        total += reward
        done = terminated or truncated
    _require(total == 1.0, f"the oracle's reward is {total}, the ceiling {reference.ceiling}")
    _require(
        reference.difficulty is None or env.turn == reference.difficulty,
        f"the oracle took {env.turn} turns, the reference says {reference.difficulty}",
    )


def _check_ladder(make: Callable[..., TextEnv], options: dict[str, Any], seed: int) -> None:
    """Each level's text begins with the level's below, and the observations are the same."""
    texts, boards = [], []
    for level in LEVELS:
        env = make(**{**options, "feedback": level})
        steps = _play(env, seed, _random_messages(env, seed))
        texts.append(steps[-1][4]["feedback"])
        boards.append([step[0] for step in steps])
    for lower, higher in itertools.pairwise(texts):
        _require(higher.startswith(lower), "a feedback level must begin with the one below it")
    _require(all(board == boards[0] for board in boards), "feedback must not change observations")


def _check_hostile(env: TextEnv) -> None:
    for message in HOSTILE:
        env.reset(seed=0)
        observation, _, _, _, info = env.step(message)
        _require(isinstance(observation, str), "an observation must be a string")
        _require(info["action"] is not None or not info["changed"], "unread, yet changed")
        _require(env.turn == 1, "a message costs a turn, readable or not")


def _check_bad_tasks(env: TextEnv) -> None:
    good, _ = env.reset(seed=0)
    tasks: tuple[Any, ...] = ({}, {"no such field": 1}, [], "task", 3)
    for bad in tasks:
        try:
            env.reset(seed=0, options={"task": bad})
        except ValueError:
            continue
        raise ContractError(f"the bad task {bad!r} must raise ValueError")
    _require(env.reset(seed=0)[0] == good, "a bad task must leave the environment usable")
