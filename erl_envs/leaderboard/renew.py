"""Carries an entry to its track's present version, where its texts still answer what was asked.

A track's version goes up where transcripts or rewards change. A text that a policy wrote stays an
answer as long as every prompt that it read is still the same: then nothing has to be sampled again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from erl_envs.core import Episode, Task
from erl_envs.files import new_folder
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.replay import play_again
from erl_envs.leaderboard.submission import (
    EPISODES,
    Submission,
    digest_of,
    read_about,
    read_episodes,
    write,
)
from erl_envs.leaderboard.tracks import Track, find
from erl_envs.leaderboard.verify import UNCOUNTED, Verified, measure, verify
from erl_envs.locks import hold
from erl_envs.rollout import Job


def renew(folder: Path) -> Verified:
    """Write an entry anew under the present version of its track.

    Args:
        folder: The entry's; it is replaced once the new one is verified.

    Returns:
        What its replay gives now.

    Raises:
        Refused: A policy would be asked something else now: it has to play again.
        ValueError: There is no such track.
    """
    submission = read_about(folder)
    track = find(str(submission.track["id"]))
    env = track.make(submission.options)
    tasks: Mapping[str, Task] = {task.id: task for task in track.tasks(submission.salt)}
    episodes = []
    for recorded in read_episodes(folder, submission, track.episodes):
        job = Job(tasks[recorded["task"]["id"]], recorded["sample"], submission.seed)
        who = f"task {job.task.id}, sample {job.sample}"
        try:
            played = play_again(env, job, track.attempts, recorded)
        except Refused as error:
            raise Refused(f"{who}: {error}; it has to play again") from error
        scripted = submission.model in UNCOUNTED  # they read no prompts
        if not scripted and [*_read(played.to_json())] != [*_read(recorded)]:
            raise Refused(f"{who}: a prompt is another now; it has to play again")
        episodes.append(played)
    return _replace(folder, submission, track, episodes)


def _read(episode: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """The messages that policies read, and their answers: all but what followed the last one."""
    reflection = episode["reflection"]
    for told in (*episode["attempts"], *([reflection] if reflection else [])):
        answers = [n for n, m in enumerate(told["messages"]) if m["role"] == "assistant"]
        yield told["messages"][: answers[-1] + 1 if answers else 0]


def _replace(
    folder: Path, submission: Submission, track: Track, episodes: Sequence[Episode]
) -> Verified:
    lines = [episode.to_json() for episode in episodes]
    new = replace(
        submission,
        track=track.specification(),
        metrics=measure(track, episodes, submission.salt),
        files={EPISODES: digest_of(lines)},
    )
    with hold(folder.parent), new_folder(folder) as part:
        write(part, new, lines)
        return verify(part)
