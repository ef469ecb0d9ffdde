"""Experiential reinforcement learning, and GRPO as the same algorithm with its later stages off.

PAPER, Alg. 2: attempt; where that failed, reflect on the feedback, try again under what the
reflection says, and internalize what succeeded: learn it under the original prompt, reflection
removed. A step's attempts are all made before anything is learnt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from erl_envs.core import Task, Tokens
from erl_envs.rollout import Job
from erl_trainer.advantages import Credit, advantages
from erl_trainer.config import Config
from erl_trainer.memory import Lesson, ReflectionMemory
from erl_trainer.types import Actor, Kind, Sample, Stage, Trial

STAGED = {Stage.ATTEMPT_1: 0, Stage.REFLECTION: 1, Stage.ATTEMPT_2: 1, Stage.DISTILL: 2}
"""Which optimizer update of a step learns a stage, where updates are staged."""


class Step(NamedTuple):
    """What a step's attempts give.

    Attributes:
        trials: All of them, in order.
        samples: To learn from, credit stamped on them.
        credit: How it was given.
        lessons: To remember at the step's end.
    """

    trials: list[Trial]
    samples: list[Sample]
    credit: Credit
    lessons: list[Lesson]


def collect(
    tasks: Sequence[Task], actor: Actor, memory: ReflectionMemory, cfg: Config, seed: int
) -> Step:
    """All of a step but the learning.

    Args:
        tasks: Of the step.
        actor: Who attempts and who reflects.
        memory: Read here; the caller writes the lessons at the step's end.
        cfg: Which stages there are.
        seed: Of the step's random streams.
    """
    jobs = [*samples_of(tasks, cfg.group_size, seed)]
    firsts = actor.attempt(jobs, Stage.ATTEMPT_1)  # y1 ~ π(·|x)
    trials = [Trial(job, first) for job, first in zip(jobs, firsts, strict=True)]
    if cfg.second_attempt != "none":  # else this is GRPO
        failed = [t for t in trials if t.first.valid and t.first.reward < cfg.threshold]
        reflect(failed, actor, memory, cfg)  # Δ ~ π(·|x, y1, f1, r1, m)
        again = [(t, t.reflection.prompt) for t in failed if t.reflection]
        seconds = actor.attempt(
            [t.job for t, _ in again], Stage.ATTEMPT_2, [prompt for _, prompt in again]
        )  # y2 ~ π(·|x, Δ)
        for (trial, _), second in zip(again, seconds, strict=True):
            trial.second = second
    policy, credit = stamp([p for t in trials for p in policy_samples(t, cfg)], cfg)
    samples = [*policy, *(s for t in trials for s in distill_samples(t, cfg))]
    if cfg.updates == "staged":
        samples = [replace(s, update=STAGED[s.stage]) for s in samples]
    return Step(trials, samples, credit, [*lessons(trials, cfg)])


def samples_of(tasks: Sequence[Task], group_size: int, seed: int) -> Iterator[Job]:
    """`group_size` samples of each task; one that comes again has further ones, not the same."""
    played: Counter[str] = Counter()
    for task in tasks:
        for _ in range(group_size):
            yield Job(task, played[task.id], seed)
            played[task.id] += 1


def reflect(failed: Sequence[Trial], actor: Actor, memory: ReflectionMemory, cfg: Config) -> None:
    """Give each failed trial its Δ, or the first attempt itself in its place."""
    jobs, attempts = [t.job for t in failed], [t.first for t in failed]
    if cfg.second_attempt == "reflection":
        memories = [memory.recall(opening(t)) for t in failed]
        written = actor.reflect(jobs, attempts, memories)
    else:
        written = actor.show(jobs, attempts)
    for trial, reflection in zip(failed, written, strict=True):
        trial.reflection = reflection


def policy_samples(trial: Trial, cfg: Config) -> Iterator[list[Sample]]:
    """What a trial's policy loss learns: y1, and y2 and Δ, whose reward is y2's.

    An attempt that the environment failed has no reward: neither it nor what led to it is learnt.

    Yields:
        The samples of each: one, or one for each stretch of its conversation.
    """
    if trial.first.valid:
        first = trial.first
        yield stretches(Stage.ATTEMPT_1, "policy", trial, first.tokens, first.reward, cfg)
    if trial.second and trial.second.valid and cfg.second_policy_loss:
        reward = trial.second.reward
        if trial.reflection and cfg.reflector == "policy":
            tokens = trial.reflection.tokens
            yield stretches(Stage.REFLECTION, "policy", trial, tokens, reward, cfg)
        yield stretches(Stage.ATTEMPT_2, "policy", trial, trial.second.tokens, reward, cfg)


def distill_samples(trial: Trial, cfg: Config) -> Iterator[Sample]:
    """What a second attempt teaches the policy that is not told Δ, weighted by its reward.

    `cross_entropy`: y2 under y1's prompt (PAPER: -1(r2 > 0) log π(y2|x) with RAFT). `on_policy_kl`:
    y1 with, as its teacher, the policy under y2's prompt. One that failed weighs nothing, but the
    mean is over it too, unless `distill_mean` is `successes`.
    """
    second = trial.second
    if cfg.distill == "none" or second is None or not second.valid:
        return
    if cfg.distill_mean == "successes" and second.reward <= 0:
        return
    weight = max(second.reward, 0.0)
    y1, y2 = answered(trial.first.tokens), answered(second.tokens)
    if not (y1 and y2):
        return
    if cfg.distill == "cross_entropy":
        told = [swap_prompt(part, y1[0], y2[0]) for part in y2]
        for s in stretches(Stage.DISTILL, "imitate", trial, told, second.reward, cfg):
            yield replace(s, advantage=weight)
    else:
        teachers = [up_to_last_sampled(swap_prompt(part, y2[0], y1[0])) for part in y1]
        matched = stretches(Stage.DISTILL, "match", trial, y1, second.reward, cfg)
        for s, teacher in zip(matched, teachers, strict=True):
            yield replace(
                s,
                advantage=weight,
                teacher_ids=teacher.ids,
                teacher_sampled=teacher.sampled,
            )


def swap_prompt(part: Tokens, other: Tokens, first: Tokens | None = None) -> Tokens:
    """A stretch of a conversation as if that had begun with the other's prompt.

    A prompt is all ids before the first sampled one. A later stretch holds the first one's prompt
    up to where its history begins: the rest of that, which opens the first answer, is the end of
    both prompts, and stays away in both.

    Args:
        part: The stretch; every id after the prompt stays.
        other: The first stretch of a conversation with the other prompt.
        first: The first stretch of the conversation; None if that is `part`.

    Raises:
        ValueError: The stretch does not hold the prompt: its template writes another each time.
    """
    first = first or part
    cut, start = first.sampled.index(True), other.sampled.index(True)
    pairs = enumerate(zip(part.ids, first.ids[:cut], strict=False))
    held = next((place for place, (one, two) in pairs if one != two), min(len(part.ids), cut))
    kept = start - (cut - held)
    if kept < 0 or list(other.ids[kept:start]) != list(first.ids[held:cut]):
        raise ValueError(
            "an attempt's prompt is not told again as it was, so that it cannot be swapped: "
            "set thoughts to 'keep', or distill to 'none'"
        )
    return Tokens(
        [*other.ids[:kept], *part.ids[held:]],
        [*other.sampled[:kept], *part.sampled[held:]],
        [*other.logprobs[:kept], *part.logprobs[held:]],
    )


def up_to_last_sampled(tokens: Tokens) -> Tokens:
    """Without what the environment said last, which a full context may not have held."""
    end = len(tokens.ids) - tokens.sampled[::-1].index(True)
    return Tokens(tokens.ids[:end], tokens.sampled[:end], tokens.logprobs[:end])


def answered(tokens: Sequence[Tokens]) -> list[Tokens]:
    """The stretches in which anything was sampled."""
    return [part for part in tokens if any(part.sampled)]


def stretches(
    stage: Stage, kind: Kind, trial: Trial, tokens: Sequence[Tokens], reward: float, cfg: Config
) -> list[Sample]:
    """A sample of each stretch; none where a policy that keeps no tokens made them.

    Every token that was sampled is learnt once, after the ids that the policy really read.
    """
    parts = [up_to_last_sampled(part) for part in answered(tokens)]
    return [
        Sample(
            stage=stage,
            task=trial.job.task.id,
            kind=kind,
            ids=part.ids,
            sampled=part.sampled,
            logprobs=part.logprobs,
            reward=reward,
            temperature=cfg.reflect_temperature if stage == Stage.REFLECTION else cfg.temperature,
            share=1 / len(parts),
        )
        for part in parts
    ]


def stamp(played: Sequence[Sequence[Sample]], cfg: Config) -> tuple[list[Sample], Credit]:
    """Give each attempt the advantage over its group: the same task's of the same stage.

    Args:
        played: The samples of each attempt or reflection; all of them get its advantage.
        cfg: How credit is given.
    """
    parts = [samples for samples in played if samples]
    credit = advantages(
        [s.reward for s, *_ in parts],
        groups=[(s.task, s.stage) for s, *_ in parts],
        pools=[s.stage for s, *_ in parts],
        kind=cfg.advantage,
        small_group=cfg.small_group,
        min_group=cfg.min_group,
    )
    stamped = [
        replace(s, advantage=advantage)
        for samples, advantage in zip(parts, credit.values, strict=True)
        for s in samples
    ]
    return stamped, credit


def lessons(trials: Sequence[Trial], cfg: Config) -> Iterator[Lesson]:
    """Rulebooks whose second attempt succeeded (PAPER: m ← Δ if r2 ≥ τ)."""
    for trial in trials:
        second, rulebook = trial.second, trial.reflection and trial.reflection.rulebook
        if rulebook and second and second.valid and second.reward >= cfg.threshold:
            yield Lesson(opening(trial), rulebook)


def opening(trial: Trial) -> str:
    """The task's first observation."""
    return trial.first.messages[1]["content"]
