"""Replays a submission and computes its numbers anew."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erl_envs import registry
from erl_envs.core import Attempt, Episode
from erl_envs.eval.statistics import summarise
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.copies import Content, content
from erl_envs.leaderboard.declared import check_declared
from erl_envs.leaderboard.differences import differences, shown
from erl_envs.leaderboard.independence import check_samples
from erl_envs.leaderboard.replay import replay, spoken
from erl_envs.leaderboard.submission import EPISODES, Submission, read_about, read_episodes
from erl_envs.leaderboard.tracks import TRACKS, Track, references
from erl_envs.rollout import Job

UNCOUNTED = ("random", "oracle", "human")
"""Who plays without tokens."""

_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Verified:
    """A submission whose transcripts were replayed.

    Attributes:
        submission: What was submitted.
        track: Where.
        episodes: As they were played again.
        missing: How many of the track's episodes it lacks; they count as failed.
        metrics: Computed from the episodes.
    """

    submission: Submission
    track: Track
    episodes: Sequence[Episode]
    missing: int
    metrics: Mapping[str, Any]

    @functools.cached_property
    def content(self) -> Content:
        """What other entries are compared with."""
        return content(self.submission, self.track, self.episodes)


def verify(folder: Path) -> Verified:
    """Replay a submission; what costs little is looked at first.

    Raises:
        Refused: Something is not what it should be; the message says what.
    """
    submission = read_about(folder)
    track = _track(submission)
    try:
        _check_episodes(folder, submission, track)
        return _replay_all(folder, submission, track)
    except ValueError as error:
        raise Refused(str(error)) from error


def check_place(folder: Path, salted: bool = True) -> None:
    """Check that a submission lies where it belongs; plays nothing.

    Args:
        folder: Of the submission.
        salted: Whether its tasks may be salted.

    Raises:
        Refused: It does not, and the message says where that is; or they may not.
    """
    submission = read_about(folder)
    home, folder = f"{_track(submission).id}/{submission.folder}", folder.resolve()
    if f"{folder.parent.name}/{folder.name}" != home:
        raise Refused(f"belongs to {home}")
    if submission.salt and not salted:
        raise Refused("its tasks are salted, which is for maintainers (--salted)")


def _check_episodes(folder: Path, submission: Submission, track: Track) -> None:
    """Check all of the transcripts that needs no task: kinds, bounds, numbers, digest."""
    there: set[tuple[str, int]] = set()
    spent: Counter[str] = Counter()
    for number, line in enumerate(read_episodes(folder, submission, track.episodes), 1):
        task, sample = _key(line, track, number)
        who = _who(number, task, sample)
        if (task, sample) in there:
            raise Refused(f"{who} is there twice")
        there.add((task, sample))
        try:
            for said in spoken(line):
                reflects = said.stage == "reflection"
                name = (reflects and submission.reflector) or submission.model
                usage = said.completion.usage
                if said.completion.text:
                    counts = usage.prompt_tokens, usage.completion_tokens
                    # what a server did not count is unknown, which is not none
                    spent[name] += min(1 if count is None else count for count in counts)
        except Refused as error:
            raise Refused(f"{who}: {error}") from error
    if not there:
        raise Refused(f"{EPISODES} has no episode")
    if free := [name for name in spent if not spent[name] and name not in UNCOUNTED]:
        raise Refused(
            f"{shown(free[0])} is said to have spent no tokens: only {', '.join(UNCOUNTED)} play "
            "for none; let a model's server report its usage"
        )


def _replay_all(folder: Path, submission: Submission, track: Track) -> Verified:
    env = track.make(submission.options)
    tasks = {task.id: task for task in track.tasks(submission.salt)}
    episodes: dict[tuple[str, int], Episode] = {}
    for number, line in enumerate(read_episodes(folder, submission, track.episodes), 1):
        key = _key(line, track, number)
        task, sample = tasks.get(key[0]), key[1]
        if task is None:
            raise Refused(f"episode {number}: {track.id} has no task {shown(key[0])}")
        try:
            episodes[key] = replay(env, Job(task, sample, submission.seed), track.attempts, line)
        except Refused as error:
            raise Refused(f"{_who(number, *key)}: {error}") from error
    found = list(episodes.values())
    check_declared(submission, found)
    check_samples(submission, found)
    metrics = measure(track, found, submission.salt)
    for where, own, stated in differences(metrics, submission.metrics, ("low", "high")):
        raise Refused(f"{where}: {stated} is stated, the transcripts give {own}")
    missing = len(tasks) * track.samples - len(found)
    return Verified(submission, track, found, missing, metrics)


def _track(submission: Submission) -> Track:
    """The track that was entered, with nothing declared that it has not."""
    stated = submission.track
    track = TRACKS.get(str(stated.get("id")))
    if track is None:
        raise Refused(f"there is no track {shown(stated.get('id'))}")
    for where, own, other in differences(track.specification(), stated):
        raise Refused(f"{where}: {track.id} has {own}, the submission {other}")
    if track.attempts == 1 and (submission.reflector or submission.reflection_sampling):
        raise Refused(f"nobody reflects on {track.id}")
    if track.attempts == 2 and not submission.reflection_sampling:
        raise Refused(f"{track.id} has reflections: reflection_sampling must say how")
    if submission.tools and not registry.env_class(track.env).tools:
        raise Refused(f"{track.env} has no tools to offer")
    try:
        track.make(submission.options)
    except ValueError as error:
        raise Refused(str(error)) from error
    return track


def _key(line: Any, track: Track, number: int) -> tuple[str, int]:
    """Task id and number of a recorded episode."""
    stated = line.get("task") if isinstance(line, Mapping) else None
    if not isinstance(stated, Mapping) or not isinstance(stated.get("id"), str):
        raise Refused(f"episode {number} names no task")
    task, sample = stated["id"], line.get("sample")
    if not _ID.fullmatch(task):
        raise Refused(f"episode {number}: {track.id} has no task {shown(task)}")
    if type(sample) is not int or not 0 <= sample < track.samples:
        raise Refused(
            f"episode {number}: sample {shown(sample)} of task {task}; "
            f"{track.id} has samples 0 to {track.samples - 1}"
        )
    return task, sample


def _who(number: int, task: str, sample: int) -> str:
    return f"episode {number} (task {task}, sample {sample})"


def measure(track: Track, episodes: Sequence[Episode], salt: str = "") -> dict[str, Any]:
    """An entry's numbers; episodes that it lacks count as failed."""
    tasks = track.tasks(salt)
    there = {(episode.task.id, episode.sample) for episode in episodes}
    lacking = [
        Episode(task, sample, [Attempt(task, 0, [], [], 0.0, "", "missing")])
        for task in tasks
        for sample in range(track.samples)
        if (task.id, sample) not in there
    ]
    ids = [task.id for task in tasks]
    return summarise([*episodes, *lacking], ids, references(track, salt), track.attempts)
