"""Replays a submission and computes its numbers anew."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erl_envs.core import Attempt, Episode, Task
from erl_envs.eval.statistics import summarise
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.copies import Content, content
from erl_envs.leaderboard.declared import check_declared
from erl_envs.leaderboard.differences import differences, shown
from erl_envs.leaderboard.independence import check_samples
from erl_envs.leaderboard.replay import replay
from erl_envs.leaderboard.submission import Submission, read_about, read_episodes
from erl_envs.leaderboard.tracks import TRACKS, Track, references
from erl_envs.rollout import Job


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
    """Replay a submission.

    Raises:
        Refused: Something is not what it should be; the message says what.
    """
    submission = read_about(folder)
    track = _track(submission)
    try:
        return _replay_all(folder, submission, track)
    except ValueError as error:
        raise Refused(str(error)) from error


def _replay_all(folder: Path, submission: Submission, track: Track) -> Verified:
    env = track.make(submission.options)
    tasks = {task.id: task for task in track.tasks(submission.salt)}
    most = len(tasks) * track.samples
    episodes: dict[tuple[str, int], Episode] = {}
    for number, line in enumerate(read_episodes(folder, submission, most), 1):
        task, sample = _place(line, track, tasks, number)
        who = f"episode {number} (task {task.id}, sample {sample})"
        if (task.id, sample) in episodes:
            raise Refused(f"{who} is there twice")
        try:
            job = Job(task, sample, submission.seed)
            episodes[task.id, sample] = replay(env, job, track.attempts, line)
        except Refused as error:
            raise Refused(f"{who}: {error}") from error
    found = list(episodes.values())
    check_declared(submission, track.attempts, found)
    check_samples(submission, found)
    metrics = measure(track, found, submission.salt)
    # intervals are resampled, and numpy's streams may change with its version
    for where, own, stated in differences(metrics, submission.metrics, ("low", "high")):
        raise Refused(f"{where}: {stated} is stated, the transcripts give {own}")
    return Verified(submission, track, found, most - len(found), metrics)


def check_place(folder: Path, verified: Verified) -> None:
    """Check that a submission lies where it belongs.

    Raises:
        Refused: It does not; the message says where that is.
    """
    home, folder = f"{verified.track.id}/{verified.submission.folder}", folder.resolve()
    if f"{folder.parent.name}/{folder.name}" != home:
        raise Refused(f"belongs to {home}")


def _track(submission: Submission) -> Track:
    stated = submission.track
    track = TRACKS.get(str(stated.get("id")))
    if track is None:
        raise Refused(f"there is no track {shown(stated.get('id'))}")
    for where, own, other in differences(track.specification(), stated):
        raise Refused(f"{where}: {track.id} has {own}, the submission {other}")
    return track


def _place(line: Any, track: Track, tasks: Mapping[str, Task], number: int) -> tuple[Task, int]:
    """The task and the number of a recorded episode."""
    stated = line.get("task") if isinstance(line, Mapping) else None
    if not isinstance(stated, Mapping) or not isinstance(stated.get("id"), str):
        raise Refused(f"episode {number} names no task")
    task, sample = tasks.get(stated["id"]), line.get("sample")
    if task is None:
        raise Refused(f"episode {number}: {track.id} has no task {shown(stated['id'])}")
    if type(sample) is not int or not 0 <= sample < track.samples:
        raise Refused(
            f"episode {number}: sample {shown(sample)} of task {task.id}; "
            f"{track.id} has samples 0 to {track.samples - 1}"
        )
    return task, sample


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
