"""The algorithm sample for sample, with a scripted actor: no model, no torch."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import erl_trainer
from erl_envs.core import Attempt, Message, Reflection, Task, Tokens
from erl_envs.rollout import Job
from erl_trainer.config import Config, configure
from erl_trainer.erl import Step, collect, swap_prompt, up_to_last_sampled
from erl_trainer.memory import LastMemory, NoMemory, ReflectionMemory, RetrievalMemory
from erl_trainer.types import Sample, Stage

TASK = Task("frozenlake", {"desc": ["SG"]})
OTHER = Task("frozenlake", {"desc": ["GS"]})

# One id a word: prompts are 10s (initial) or 20s (under a rulebook), answers 1 to 9.
INITIAL, TOLD = [10, 11], [20, 21, 22]


def attempt(job: Job, prompt: Sequence[int], answer: int, reward: float | None) -> Attempt:
    messages: list[Message] = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": f"board {job.task.params['desc'][0]}"},
    ]
    ids = [*prompt, answer, 30, answer + 1]  # 30: the environment's answer
    return Attempt(
        task=job.task,
        seed=0,
        messages=messages,
        turns=[],
        reward=reward or 0.0,
        feedback="f",
        outcome="",
        valid=reward is not None,
        error="EnvError: down" if reward is None else None,
        tokens=[
            Tokens(
                ids,
                [False] * len(prompt) + [True, False, True],
                [0.0] * len(prompt) + [-0.1, 0.0, -0.2],
            )
        ],
    )


class Script:
    """Attempts and reflections with given rewards; writes down what it was asked."""

    def __init__(
        self, firsts: Sequence[float | None], seconds: Sequence[float | None] = ()
    ) -> None:
        self.firsts, self.seconds = firsts, list(seconds)
        self.asked: list[Any] = []

    def attempt(
        self, jobs: Sequence[Job], stage: str, prompts: Sequence[str] | None = None
    ) -> list[Attempt]:
        self.asked.append((stage, [(j.task, j.sample) for j in jobs], prompts))
        if stage == "attempt_1":
            rewards, start, ids = self.firsts, 1, INITIAL
        else:
            rewards, start, ids = self.seconds, 5, TOLD
        assert len(jobs) == len(rewards)
        return [attempt(job, ids, start, reward) for job, reward in zip(jobs, rewards, strict=True)]

    def reflect(
        self, jobs: Sequence[Job], attempts: Sequence[Attempt], memories: Sequence[str | None]
    ) -> list[Reflection | None]:
        self.asked.append(("reflection", [a.reward for a in attempts], list(memories)))
        tokens = Tokens([40, 41, 8], [False, False, True], [0.0, 0.0, -0.3])
        return [
            Reflection([], f"rules {i}", f"rules {i}\n\nformat", tokens=[tokens])
            for i, _ in enumerate(jobs)
        ]

    def show(self, jobs: Sequence[Job], attempts: Sequence[Attempt]) -> list[Reflection | None]:
        self.asked.append(("show", [a.reward for a in attempts]))
        return [Reflection([], None, "what happened") for _ in jobs]


def run(
    script: Script, memory: ReflectionMemory | None = None, tasks: Any = (TASK,), **fields: Any
) -> Step:
    config = Config(**{"group_size": 2, **fields})
    return collect(tasks, script, memory or NoMemory(), config, seed=0)


def brief(samples: Sequence[Sample]) -> list[tuple[str, str, list[int], float, float]]:
    return [(s.stage, s.kind, list(s.ids), s.reward, s.advantage) for s in samples]


def test_a_step_sample_for_sample() -> None:
    """Attempts .0 .0 1; the failed ones are retried and get 1 and 0."""
    script = Script([0.0, 0.0, 1.0], [1.0, 0.0])
    step = run(script, group_size=3)
    assert script.asked == [
        ("attempt_1", [(TASK, 0), (TASK, 1), (TASK, 2)], None),
        ("reflection", [0.0, 0.0], [None, None]),
        ("attempt_2", [(TASK, 0), (TASK, 1)], ["rules 0\n\nformat", "rules 1\n\nformat"]),
    ]
    third = pytest.approx(-1 / 3)
    assert brief(step.samples) == [
        # rewards 0, 0, 1 of the group (task, attempt 1): mean 1/3
        ("attempt_1", "policy", [10, 11, 1, 30, 2], 0.0, third),
        # Δ is paid what its second attempt earned; rewards 1, 0: mean 1/2
        ("reflection", "policy", [40, 41, 8], 1.0, 0.5),
        ("attempt_2", "policy", [20, 21, 22, 5, 30, 6], 1.0, 0.5),
        ("attempt_1", "policy", [10, 11, 1, 30, 2], 0.0, third),
        ("reflection", "policy", [40, 41, 8], 0.0, -0.5),
        ("attempt_2", "policy", [20, 21, 22, 5, 30, 6], 0.0, -0.5),
        ("attempt_1", "policy", [10, 11, 1, 30, 2], 1.0, pytest.approx(2 / 3)),
        # the second attempts' own ids after the *initial* prompt; a failed one weighs nothing
        ("distill", "imitate", [10, 11, 5, 30, 6], 1.0, 1.0),
        ("distill", "imitate", [10, 11, 5, 30, 6], 0.0, 0.0),
    ]
    assert [s.update for s in step.samples] == [0] * 9
    assert step.credit[1:] == (3, 0, 0)
    assert [lesson.rulebook for lesson in step.lessons] == ["rules 0"]
    assert [trial.reward for trial in step.trials] == [1.0, 0.0, 1.0]


def test_grpo_is_the_same_code_with_stages_off() -> None:
    rewards = [0.0, 1.0, 0.0, 0.0]
    grpo = Script(rewards)
    step = collect([TASK, OTHER], grpo, LastMemory(), configure("default", "grpo", group_size=2), 0)
    assert [call[0] for call in grpo.asked] == ["attempt_1"]
    erl = run(Script(rewards, [0.0, 0.0, 0.0]), tasks=(TASK, OTHER))
    assert step.samples == [s for s in erl.samples if s.stage == Stage.ATTEMPT_1]
    assert brief(step.samples)[:2] == [
        ("attempt_1", "policy", [10, 11, 1, 30, 2], 0.0, -0.5),
        ("attempt_1", "policy", [10, 11, 1, 30, 2], 1.0, 0.5),
    ]
    assert step.credit.flat == 1  # the other task's rewards are equal
    assert step.lessons == []


def test_a_task_that_comes_twice_has_further_samples_not_the_same() -> None:
    script = Script([0.0, 1.0, 0.0, 0.0, 1.0, 1.0], [0.0] * 3)
    step = run(script, tasks=(TASK, OTHER, TASK))
    asked = [(TASK, 0), (TASK, 1), (OTHER, 0), (OTHER, 1), (TASK, 2), (TASK, 3)]
    assert script.asked[0][1] == asked
    firsts = [s for s in step.samples if s.stage == Stage.ATTEMPT_1]
    # one group of four: rewards 0, 1, 1, 1, mean 3/4
    assert [s.advantage for s in firsts] == [-0.75, 0.25, 0.0, 0.0, 0.25, 0.25]


def test_where_all_succeed_nobody_reflects() -> None:
    script = Script([1.0, 1.0], [])
    step = run(script)
    assert [call[0] for call in script.asked] == ["attempt_1", "reflection", "attempt_2"]
    assert script.asked[1:] == [("reflection", [], []), ("attempt_2", [], [])]
    assert {s.stage for s in step.samples} == {Stage.ATTEMPT_1}


def test_the_gate_is_the_threshold() -> None:
    script = Script([0.5, 0.2], [1.0])
    run(script, threshold=0.4)
    assert script.asked[1] == ("reflection", [0.2], [None])


def test_what_the_environment_failed_is_not_learnt_and_no_baseline() -> None:
    """Of four attempts one is invalid; of three second attempts one is."""
    step = run(Script([0.0, None, 1.0, 0.0], [1.0, None]), group_size=4)
    policy = [(s.stage, s.reward, s.advantage) for s in step.samples if s.kind == "policy"]
    assert policy == [
        ("attempt_1", 0.0, pytest.approx(-1 / 3)),  # mean of 0, 1, 0
        ("reflection", 1.0, 0.0),  # alone in its stage: nothing to compare with
        ("attempt_2", 1.0, 0.0),
        ("attempt_1", 1.0, pytest.approx(2 / 3)),
        ("attempt_1", 0.0, pytest.approx(-1 / 3)),
    ]
    assert step.credit.small == 2


def test_a_small_group_is_compared_with_its_stage() -> None:
    """Two tasks, one failed attempt each: rewards 1 and 0 of the stage, mean 1/2."""
    firsts, seconds = [0.0, 1.0, 1.0, 0.0], [1.0, 0.0]
    pooled = run(Script(firsts, seconds), tasks=(TASK, OTHER))
    zero = run(Script(firsts, seconds), tasks=(TASK, OTHER), small_group="zero")
    assert [s.advantage for s in pooled.samples if s.stage == Stage.ATTEMPT_2] == [0.5, -0.5]
    assert [s.advantage for s in zero.samples if s.stage == Stage.ATTEMPT_2] == [0.0, 0.0]
    assert pooled.credit.small == 4


def test_staged_updates() -> None:
    step = run(Script([0.0, 1.0], [1.0]), updates="staged")
    assert [(s.stage, s.update) for s in step.samples] == [
        ("attempt_1", 0),
        ("reflection", 1),
        ("attempt_2", 1),
        ("attempt_1", 0),
        ("distill", 2),
    ]


@pytest.mark.parametrize(
    ("fields", "stages"),
    [
        ({"distill": "none"}, ["attempt_1", "reflection", "attempt_2", "attempt_1"]),
        ({"second_policy_loss": False}, ["attempt_1", "attempt_1", "distill"]),
        ({"reflector": "oracle"}, ["attempt_1", "attempt_2", "attempt_1", "distill"]),
        # what is shown instead of a reflection was not sampled, so it is not learnt
        ({"second_attempt": "transcript"}, ["attempt_1", "attempt_2", "attempt_1", "distill"]),
    ],
)
def test_ablations_leave_out_what_they_say(fields: dict[str, Any], stages: list[str]) -> None:
    step = run(Script([0.0, 1.0], [1.0]), **fields)
    assert sorted(s.stage for s in step.samples) == sorted(stages)


def test_without_reflection_the_first_attempt_is_shown() -> None:
    script = Script([0.0, 0.0], [1.0, 0.0])
    step = run(script, second_attempt="transcript")
    assert script.asked[1] == ("show", [0.0, 0.0])
    assert script.asked[2][2] == ["what happened", "what happened"]
    assert step.lessons == []


def test_partial_success_is_internalized_but_not_remembered() -> None:
    step = run(Script([0.0, 0.0], [0.4, 0.0]))
    distilled = [s for s in step.samples if s.stage == Stage.DISTILL]
    assert [(s.reward, s.advantage) for s in distilled] == [(0.4, 0.4), (0.0, 0.0)]
    assert step.lessons == []


def test_distillation_is_a_mean_over_all_second_attempts_or_over_successes() -> None:
    def weights(**fields: Any) -> list[float]:
        step = run(Script([0.0] * 4, [1.0, 0.0, 0.0, 0.0]), group_size=4, **fields)
        return [s.advantage for s in step.samples if s.stage == Stage.DISTILL]

    assert weights() == [1.0, 0.0, 0.0, 0.0]
    assert weights(distill_mean="successes") == [1.0]


def test_every_sample_has_the_temperature_of_its_sampling() -> None:
    step = run(Script([0.0, 0.0], [1.0, 0.0]), temperature=0.7, reflect_temperature=0.5)
    assert {(s.stage, s.temperature) for s in step.samples if s.kind == "policy"} == {
        ("attempt_1", 0.7),
        ("reflection", 0.5),
        ("attempt_2", 0.7),
    }


def test_on_policy_distillation_learns_the_first_attempt_from_who_was_told() -> None:
    step = run(Script([0.0, 0.0], [1.0, 0.0]), distill="on_policy_kl")
    matched, failed = [s for s in step.samples if s.stage == Stage.DISTILL]
    assert (matched.advantage, failed.advantage) == (1.0, 0.0)
    assert matched.kind == "match"
    assert list(matched.ids) == [10, 11, 1, 30, 2]
    assert list(matched.teacher_ids) == [20, 21, 22, 1, 30, 2]
    assert list(matched.teacher_sampled) == [False, False, False, True, False, True]


def test_swapping_keeps_every_later_id() -> None:
    told = Tokens([20, 21, 5, 30, 6], [False, False, True, False, True], [0, 0, -1.0, 0, -2.0])
    first = Tokens([10, 1], [False, True], [0, -3.0])
    swapped = swap_prompt(told, first)
    assert swapped == Tokens([10, 5, 30, 6], [False, True, False, True], [0, -1.0, 0, -2.0])


def test_what_a_full_context_did_not_hold_is_not_learnt() -> None:
    told = Tokens([20, 5, 30, 31], [False, True, False, False], [0, -1.0, 0, 0])
    assert up_to_last_sampled(told) == Tokens([20, 5], [False, True], [0, -1.0])
    step = run(Silent([0.0, 0.0], [1.0, 1.0]))
    assert {s.stage for s in step.samples} == {Stage.REFLECTION, Stage.ATTEMPT_2}


class Silent(Script):
    """Its first attempts come to no word: there is no place to swap prompts at."""

    def attempt(
        self, jobs: Sequence[Job], stage: str, prompts: Sequence[str] | None = None
    ) -> list[Attempt]:
        played = super().attempt(jobs, stage, prompts)
        nothing = Tokens([10, 11, 30], [False] * 3, [0.0] * 3)
        return [replace(a, tokens=[nothing]) for a in played] if prompts is None else played


def test_memory_is_read_at_the_start_and_left_to_the_caller() -> None:
    memory = LastMemory()
    memory.load("old rules")
    script = Script([0.0, 0.0], [1.0, 1.0])
    step = run(script, memory)
    assert script.asked[1] == ("reflection", [0.0, 0.0], ["old rules", "old rules"])
    assert memory.state() == "old rules"
    memory.store(step.lessons)
    assert memory.state() == "rules 1"


def test_the_last_memory_keeps_what_succeeded_most() -> None:
    step = run(Script([0.0, 0.0], [1.0, 1.0]))
    one, two = step.lessons
    memory = LastMemory()
    memory.store([one, two, one])
    assert memory.state() == "rules 0"
    memory.store([])
    assert memory.recall("anything") == "rules 0"


def test_the_retrieval_memory_recalls_the_most_similar_task() -> None:
    lesson = run(Script([0.0, 0.0], [1.0, 1.0])).lessons[0]
    memory = RetrievalMemory(size=2)
    assert memory.recall("A B") is None
    memory.store([replace_lesson(lesson, "x y", "old")])
    memory.store([replace_lesson(lesson, "A A B", "ice"), replace_lesson(lesson, "W W", "room")])
    assert memory.recall("A A A B") == "ice"
    assert memory.recall("W") == "room"
    twin = RetrievalMemory()
    twin.load(memory.state())
    assert twin.recall("A B") == "ice"
    assert len(twin.lessons) == 2


def replace_lesson(lesson: Any, opening: str, rulebook: str) -> Any:
    return lesson._replace(opening=opening, rulebook=rulebook)


def test_order_of_tasks_changes_no_credit() -> None:
    def credit(tasks: Any, firsts: list[float]) -> dict[Any, float]:
        step = run(Script(firsts, [1.0]), tasks=tasks)
        return {(s.task, s.stage, s.reward): s.advantage for s in step.samples}

    one = credit((TASK, OTHER), [0.0, 1.0, 1.0, 1.0])
    two = credit((OTHER, TASK), [1.0, 1.0, 0.0, 1.0])
    assert one == two


def test_the_algorithm_never_imports_torch() -> None:
    folder = Path(erl_trainer.__file__).parent
    for name in ("erl", "types", "config", "memory", "advantages"):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in imported if name and name.split(".")[0] == "torch"}
