"""Whether the samples of a task look like independent ones, as an entry says that they are.

A score is a mean over independent samples of each task. Copying the best one over the others, or
picking the best of many, raises it, and every transcript still replays. What such an entry shows
and an honest one does not is looked for over all its tasks, never in one: an honest policy's short
attempts coincide too.

1. *Impossible agreement.* Let one more sample of a task equal a given one, or succeed, with
   probability p. However p differs between policies and tasks, the numbers of samples that do are
   a mixture of binomial distributions. Two of four samples equal on every task is no such mixture:
   a p that gives that often gives one, three and four as well. Nothing is assumed of the policy but
   that its samples are independent.
2. *Nothing ever varies.* All samples equal on all tasks is such a mixture: that of a policy that
   does not sample. It is to be declared as one, and may then be held to its word: played again, it
   writes the same. Where every task earns the same, as an oracle's, it may just be perfect.
3. *Hardly a task is open.* A policy that samples, and solves some tasks and not others, has tasks
   on which its samples earn different rewards. Copying or picking the best leaves none, whatever
   characters are changed. How many to expect follows from how p is spread over tasks; for a beta
   distribution of given mean, from α + β alone. The same is asked of equal transcripts among the
   tasks that were solved. An honest policy that is more certain than `UNEVEN` says loses nothing
   when it is played at temperature 0.

To count equal transcripts once would be no remedy: the best one, copied over all four, still counts
alone, and an honest policy's usual answer would weigh no more than its rare one. And nothing of
this tells who copies on some tasks only, who picks among distinct samples with restraint, or who
picks on a track with one sample a task: that takes somebody who has the model play again.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from erl_envs.core import Episode
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.declared import is_greedy
from erl_envs.leaderboard.submission import Submission
from erl_envs.leaderboard.transcripts import STAGES, Transcript, transcript

Floats = NDArray[np.float64]

IMPOSSIBLE = 7.0
"""Nats by which counts may be likelier by themselves than by the best mixture. Simulated, 100 tasks
of one and the same p come to more in 3 of 1,000 cases at worst, tasks with p spread as in committed
entries (a beta distribution of α + β = 4, or less) in none of 4,000; committed ones reach 3.5."""

UNEVEN = 0.25
"""α + β of the beta distribution that p is taken to have. Fitted to the committed entries that
solve some tasks, it is 0.3 to 4, but for one of 0.1 that solves nearly all."""

MANY = 20
"""Tasks on which nothing varies, from which on that says something."""

RARE = 1e-3
"""Probability of no more open tasks than there are, below which an entry is refused."""

_P = np.linspace(0, 1, 101)[:, None]
_STEPS = 1000

Tasks = Sequence[Sequence[Transcript]]


class View(NamedTuple):
    """What should vary between the samples of a task.

    Attributes:
        name: What it is.
        written: For each task what was written in each sample.
        rewards: What each earned.
    """

    name: str
    written: Sequence[Sequence[Hashable]]
    rewards: Sequence[Sequence[float]]


def check_samples(submission: Submission, episodes: Sequence[Episode]) -> None:
    """Check that the samples of each task may be independent ones.

    Raises:
        Refused: They cannot be, or not with the sampling that is declared.
    """
    groups: dict[str, list[Transcript]] = defaultdict(list)
    for episode in episodes:
        groups[episode.task.id].append(transcript(episode))
    tasks = [group for group in groups.values() if len(group) > 1]
    for name, counts in agreements(tasks):
        if unlikeness(counts) > IMPOSSIBLE:
            shares = ", ".join(f"{share:.0%}" for share in counts / counts.sum())
            raise Refused(
                "the samples of a task are not independent: "
                f"0 to {len(counts) - 1} {name}, in {shares} of cases"
            )
    for view in _views(submission, tasks):
        _check_varied(view)


def agreements(tasks: Tasks) -> Iterator[tuple[str, Floats]]:
    """How often 0, 1, … samples of a task agree, for each kind of agreement."""
    for stage in STAGES:
        told = stage.replace("_", " ")
        for kind, there in (
            ("text", [[t.texts[stage] for t in task if stage in t.texts] for task in tasks]),
            ("actions", [[t.actions[stage] for t in task if stage in t.actions] for task in tasks]),
        ):
            for counts in _equal_others(there):
                yield f"others have the {kind} of one's {told}", counts
    for number in (0, 1):
        sizes: dict[int, list[int]] = defaultdict(list)
        for task in tasks:
            rewards = [t.rewards[number] for t in task if number < len(t.rewards)]
            sizes[len(rewards)].append(sum(reward >= 1 for reward in rewards))
        for size in sorted(sizes.keys() - {0, 1}):
            solved = np.bincount(sizes[size], minlength=size + 1)
            yield f"succeed in attempt {number + 1}", solved.astype(float)


def _equal_others(tasks: Sequence[Sequence[Hashable]]) -> Iterator[Floats]:
    """How many others of its task equal a sample, averaged over a task's samples.

    Tasks of two samples are left out: one other is equal or not, whatever p.
    """
    for size in sorted({len(task) for task in tasks if len(task) > 2}):
        counts = np.zeros(size)
        for task in tasks:
            if len(task) == size:
                for number in Counter(task).values():
                    counts[number - 1] += number / size
        yield counts


def unlikeness(counts: Floats) -> float:
    """How much better counts explain themselves than any mixture of binomial distributions does.

    Args:
        counts: How often 0, 1, … n of n agreed.

    Returns:
        Log-likelihood ratio in nats.
    """
    n, seen = len(counts) - 1, counts / counts.sum()
    there, k = seen > 0, np.arange(len(counts))
    ways = np.array([math.comb(n, i) for i in k])
    binomial = (ways * _P**k * (1 - _P) ** (n - k))[:, there]
    weights = np.full(len(_P), 1 / len(_P))
    for _ in range(_STEPS):  # expectation maximisation, towards the one maximum
        weights *= binomial @ (seen[there] / (weights @ binomial))
    return float(counts[there] @ np.log(seen[there] / (weights @ binomial)))


def _views(submission: Submission, tasks: Tasks) -> Iterator[View]:
    """What should vary, as the sampling is declared."""
    reflection = submission.reflection_sampling
    sampled = not is_greedy(submission.sampling)
    if sampled:
        yield _view("first attempts", tasks, lambda t: (t.texts["attempt_1"], t.rewards[0]))
    if reflection is not None and (sampled or not is_greedy(reflection)):
        second = [[t for t in task if len(t.rewards) == 2] for task in tasks]
        yield _view("second attempts", second, lambda t: (t.texts["attempt_2"], t.rewards[1]))
        yield _view("episodes", tasks, lambda t: (tuple(sorted(t.texts.items())), t.rewards[-1]))


def _view(name: str, tasks: Tasks, read: Callable[[Transcript], tuple[Hashable, float]]) -> View:
    found = [list(map(read, task)) for task in tasks if len(task) > 1]
    return View(
        name,
        [[written for written, _ in task] for task in found],
        [[reward for _, reward in task] for task in found],
    )


def _check_varied(view: View) -> None:
    remedy = "if the policy does not sample, play it with temperature 0"
    number, varied = len(view.rewards), sum(map(_differ, view.rewards))
    means = [float(np.mean(task)) for task in view.rewards]
    if number >= MANY and _differ(means) and not any(map(_differ, view.written)):
        raise Refused(f"all {view.name} of a task are equal, on every task: {remedy}")
    if so_few_open(varied, list(map(len, view.rewards)), means) < RARE:
        raise Refused(
            f"the {view.name} of a task earn different rewards on {varied} of {number} tasks "
            f"alone, and {np.mean(means):.3f} on average: {remedy}"
        )
    solved = [task for task, mean in zip(view.written, means, strict=True) if mean > 0]
    some = sum(1 < len(set(task)) < len(task) for task in solved)
    if so_few_open(some, [len(task) - 1 for task in solved], list(map(_agreement, solved))) < RARE:
        equal = sum(not _differ(task) for task in solved)
        raise Refused(
            f"of {len(solved)} tasks that were solved, {equal} have all {view.name} equal, and "
            f"{some} have some: {remedy}"
        )


def so_few_open(seen: int, draws: Sequence[int], means: Sequence[float]) -> float:
    """How likely it is that no more tasks are open: some draws succeed there, and some do not.

    Args:
        seen: How many are.
        draws: Of each task.
        means: How many of them succeed.
    """
    mean = float(np.mean(means)) if means else 0.0
    a, b = UNEVEN * mean, UNEVEN * (1 - mean)
    number = np.ones(1)  # probability of 0, 1, … open tasks
    for size in draws:
        steps = np.arange(size)
        all_, none = np.prod((a + steps) / (a + b + steps)), np.prod((b + steps) / (a + b + steps))
        alike = min(float(all_ + none), 1.0)
        number = np.convolve(number, [alike, 1 - alike])
    return float(number[: seen + 1].sum())


def _agreement(task: Sequence[Hashable]) -> float:
    """The share of pairs that are equal."""
    size = len(task)
    return sum(n * (n - 1) for n in Counter(task).values()) / (size * (size - 1))


def _differ(values: Iterable[Hashable]) -> bool:
    return len(set(values)) > 1
