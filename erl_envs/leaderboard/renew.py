"""Carries an entry to its track's present version, where its texts still answer what was asked.

A track's version goes up where transcripts or rewards change. A text that a policy wrote stays an
answer as long as every prompt that it read is still the same: then nothing has to be sampled again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from erl_envs.core import Episode, Task
from erl_envs.files import write_whole
from erl_envs.leaderboard.archive import Refused, write_lines
from erl_envs.leaderboard.replay import play_again
from erl_envs.leaderboard.submission import (
    ABOUT,
    EPISODES,
    LinesDigest,
    Submission,
    read_about,
    read_episodes,
)
from erl_envs.leaderboard.tracks import Track, find
from erl_envs.leaderboard.verify import UNCOUNTED, Verified, measure, verify
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
    digest = LinesDigest()
    for line in lines:
        digest.add(line)
    new = replace(
        submission,
        track=track.specification(),
        metrics=measure(track, episodes, submission.salt),
        files={EPISODES: digest.text()},
    )
    about = json.dumps(new.to_json(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as part:
        whole = Path(part) / track.id / new.folder
        whole.mkdir(parents=True)
        write_lines(whole / EPISODES, lines)
        (whole / ABOUT).write_text(about, encoding="ascii")
        verified = verify(whole)
        (whole / EPISODES).replace(folder / EPISODES)
    write_whole(folder / ABOUT, about)
    return verified
