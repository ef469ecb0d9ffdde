"""A run's aggregate numbers, from its episodes alone and in an order that is theirs alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erl_envs.core import Episode, Reference, Usage
from erl_envs.rollout import THRESHOLD
from erl_envs.tasks import mean

_RESAMPLES = 2_000
_CHUNK = 100


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> dict[str, float | None]:
    """Mean with a 95 % percentile interval, resampling the values (one a task) 2,000 times.

    Tasks are what a run samples; episodes of one task are not independent, so they are averaged
    before they come here.

    Returns:
        `mean`, `low`, `high`; all None for no values.
    """
    if not values:
        return {"mean": None, "low": None, "high": None}
    array = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    uniform = np.full(len(array), 1 / len(array))
    means = np.concatenate(
        [
            rng.multinomial(len(array), uniform, size=_CHUNK) @ array / len(array)
            for _ in range(_RESAMPLES // _CHUNK)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(array.mean()), "low": float(low), "high": float(high)}


def pass_at_k(samples: int, successes: int, k: int) -> float:
    """Chance that at least one of k of the samples, drawn without replacement, is a success."""
    return 1.0 - math.comb(samples - successes, k) / math.comb(samples, k)


def solved(reward: float) -> bool:
    """Whether a reward counts as success."""
    return reward >= THRESHOLD


@dataclass(frozen=True, slots=True)
class _Score:
    """What counts of an episode: a run of many keeps these, not their transcripts.

    Attributes:
        task: Its task's id.
        sample: Its number among the task's.
        valid: Whether nothing but the policy decided it.
        counts: Whether its first attempt is valid.
        first: The first attempt's reward.
        last: The last valid attempt's.
        first_turns: Of the first attempt.
        turns: Of all valid attempts.
        unread: Those of them whose message was no action.
        usage: Of everything.
    """

    task: str
    sample: int
    valid: bool
    counts: bool
    first: float
    last: float
    first_turns: int
    turns: int
    unread: int
    usage: Usage


def _score(episode: Episode) -> _Score:
    first = episode.attempts[0]
    attempts = [attempt for attempt in episode.attempts if attempt.valid]
    turns = [turn for attempt in attempts for turn in attempt.turns]
    return _Score(
        task=episode.task.id,
        sample=episode.sample,
        valid=episode.valid,
        counts=first.valid,
        first=first.reward,
        last=attempts[-1].reward if attempts else 0.0,
        first_turns=len(first.turns),
        turns=len(turns),
        unread=sum(turn.action is None for turn in turns),
        usage=_usage(episode),
    )


def summarise(
    episodes: Iterable[Episode],
    task_ids: Sequence[str],
    references: Sequence[Reference | None],
    attempts: int,
) -> dict[str, Any]:
    """One environment's metrics.

    Args:
        episodes: Its episodes, in any order.
        task_ids: Its tasks, in order.
        references: What is known of each.
        attempts: 1, or 2 for the metrics after reflection too.

    Returns:
        The JSON object that `run.json` holds under `metrics`. Invalid episodes are counted, and
        what they used. Otherwise those are left out whose first attempt is invalid; where what came
        after it failed, only first attempts that did not succeed would be missing, so the first
        attempt's reward stands, after reflection too.
    """
    by_task: dict[str, list[_Score]] = defaultdict(list)
    everything = sorted(map(_score, episodes), key=lambda score: (score.task, score.sample))
    valid = [score for score in everything if score.counts]
    for score in valid:
        by_task[score.task].append(score)
    played = [by_task[task_id] for task_id in task_ids if by_task[task_id]]
    firsts = [[score.first for score in group] for group in played]
    lasts = [[score.last for score in group] for group in played]
    turns = sum(score.turns for score in valid)
    usage = sum((score.usage for score in everything), Usage())
    return {
        "tasks": len(task_ids),
        "episodes": len(everything),
        "invalid": sum(not score.valid for score in everything),
        "reward": _reward(firsts),
        "success": _success(firsts),
        "reward_after": _reward(lasts) if attempts == 2 else None,
        "success_after": _success(lasts) if attempts == 2 else None,
        "pass_at": _pass_at(firsts),
        # an attempt that is missing, and counts as failed, has none
        "turns": mean([float(score.first_turns) for score in valid if score.first_turns]),
        "invalid_action_rate": sum(score.unread for score in valid) / turns if turns else None,
        "tokens": {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens},
        "seconds": usage.seconds,
        "reference": {
            "random": mean([r.random if r else None for r in references]),
            "oracle": mean([r.ceiling if r else None for r in references]),
        },
        "by_difficulty": _by_difficulty(task_ids, references, by_task, attempts),
    }


def _reward(rewards: Sequence[Sequence[float]]) -> dict[str, float | None]:
    return bootstrap_mean([sum(group) / len(group) for group in rewards])


def _success(rewards: Sequence[Sequence[float]]) -> dict[str, float | None]:
    return bootstrap_mean([sum(map(solved, group)) / len(group) for group in rewards])


def _usage(episode: Episode) -> Usage:
    total = sum((attempt.usage for attempt in episode.attempts), Usage())
    return total + episode.reflection.usage if episode.reflection else total


def _pass_at(rewards: Sequence[Sequence[float]]) -> dict[str, float]:
    """pass@1, 2, 4, … up to the samples that every task has."""
    fewest = min(map(len, rewards), default=0)
    ks = [2**power for power in range(fewest.bit_length()) if 2**power <= fewest]
    return {
        str(k): sum(pass_at_k(len(group), sum(map(solved, group)), k) for group in rewards)
        / len(rewards)
        for k in ks
    }


def _by_difficulty(
    task_ids: Sequence[str],
    references: Sequence[Reference | None],
    by_task: Mapping[str, Sequence[_Score]],
    attempts: int,
) -> list[dict[str, Any]]:
    """Success of the tasks that share the length of their shortest solution."""
    groups: dict[int | None, list[str]] = defaultdict(list)
    for task_id, reference in zip(task_ids, references, strict=True):
        groups[reference.difficulty if reference else None].append(task_id)
    rows = []
    for difficulty in sorted(groups, key=lambda d: (d is None, d)):
        scores = [score for task_id in groups[difficulty] for score in by_task[task_id]]
        after = mean([float(solved(score.last)) for score in scores])
        rows.append(
            {
                "difficulty": difficulty,
                "tasks": len(groups[difficulty]),
                "success": mean([float(solved(score.first)) for score in scores]),
                "success_after": after if attempts == 2 else None,
            }
        )
    return rows
