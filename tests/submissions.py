"""Submissions for tests: a real run of two attempts, packed as a person packs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from erl_envs import policies
from erl_envs.core import Episode, TextEnv, Usage
from erl_envs.eval.run import Config, Here, evaluate
from erl_envs.eval.runfolder import RunFolder
from erl_envs.leaderboard.archive import write_lines
from erl_envs.leaderboard.submission import (
    ABOUT,
    EPISODES,
    Submission,
    digest_of,
    read_about,
    read_episodes,
)
from erl_envs.leaderboard.submit import Entry, submit
from erl_envs.leaderboard.tracks import TRACKS
from erl_envs.leaderboard.verify import measure
from erl_envs.policies.base import Completion, Conversation, Policy, PolicyError, Sampling
from erl_envs.rollout import Job
from erl_envs.rollout import episode as play

ALONE = Entry(name="dice", model="dice", revision="1", date="2026-01-31")
ENTRY = replace(ALONE, reflector="the rules")
"""Of a run of one attempt, and of two."""


class Counted(Policy):
    """A scripted policy whose messages cost tokens, as a model's do."""

    def __init__(self, spec: str) -> None:
        self.inner = policies.load(spec)
        self.spec, self.revision = self.inner.spec, self.inner.revision

    def complete(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion | PolicyError]:
        return [
            replace(answer, usage=Usage(100, len(answer.text) // 4 + 1))
            if isinstance(answer, Completion) and answer.usage.completion_tokens == 0
            else answer
            for answer in self.inner.complete(conversations, sampling)
        ]


def make_run(out: Path, envs: Sequence[str] = ("frozenlake",), **config: Any) -> Path:
    """A run folder of random play; with two attempts, the oracle tells the rules between them."""
    two = config.get("attempts") == 2
    options = {env: {"feedback": "transitions" if two else "outcome"} for env in envs}
    asked = Config(envs, **{"split": "small-test", "samples": 4, "options": options, **config})
    reflector = Counted("oracle") if two else None
    evaluate(asked, Here(asked, Counted("random"), reflector), RunFolder(out))
    return out


def make_submission(
    home: Path, env: str = "frozenlake", entry: Entry = ENTRY, **config: Any
) -> Path:
    """A submission of a run of two attempts."""
    run = make_run(home / "runs" / f"{env}-{entry.name}", (env,), **{"attempts": 2, **config})
    folder, _ = submit(run, env, entry, home / "submissions")
    return folder


def read(folder: Path) -> tuple[Submission, list[Any]]:
    """A submission's content and lines."""
    about = read_about(folder)
    return about, list(read_episodes(folder, about, 10**6))


def write(folder: Path, about: dict[str, Any], lines: Sequence[Any]) -> None:
    """Write a submission's content and lines, and their digest, as a forger would."""
    told = {**about, "files": {EPISODES: digest_of(lines)}}
    (folder / ABOUT).write_text(json.dumps(told), encoding="utf-8")
    write_lines(folder / EPISODES, lines)


def change(folder: Path, edit: Callable[[dict[str, Any], list[Any]], None]) -> None:
    """Change a submission's content and lines."""
    submission, lines = read(folder)
    about = json.loads(json.dumps(submission.to_json()))
    edit(about, lines)
    write(folder, about, lines)


Forge = Callable[[list[Episode]], Sequence[Episode]]
"""Makes of a task's episodes others."""


def forge(folder: Path, edit: Forge, about: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Change a submission task by task, so that all of it follows from its messages again."""
    submission, lines = read(folder)
    changed = submission.to_json()
    if about is not None:
        about(changed)
    track = TRACKS[submission.track["id"]]
    env = track.make(submission.options)
    made = [
        replay(env, episode, submission.seed, track.attempts)
        for task in by_task(map(Episode.from_json, lines))
        for episode in edit(task)
    ]
    changed["metrics"] = measure(track, made, submission.salt)
    write(folder, changed, [episode.to_json() for episode in made])


def by_task(episodes: Iterable[Episode]) -> list[list[Episode]]:
    """Episodes in groups of one task."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.task.id, []).append(episode)
    return list(groups.values())


def replay(env: TextEnv, told: Episode, seed: int, attempts: int) -> Episode:
    """The episode that another one's messages make, as its sample."""
    said = written(told)
    playing = play(env, Job(told.task, told.sample, seed), attempts)
    try:
        next(playing)
        for completion in said:
            playing.send(completion)
    except StopIteration as end:
        made: Episode = end.value
        return made
    raise AssertionError("more messages are wanted than were written")


def written(episode: Episode) -> list[Completion]:
    """What was written in an episode, in order."""
    parts = []
    for number, attempt in enumerate(episode.attempts):
        if number == 1 and episode.reflection:
            text = episode.reflection.messages[-1]["content"]
            parts.append(Completion(text, usage=episode.reflection.usage))
        texts = [m["content"] for m in attempt.messages if m["role"] == "assistant"]
        parts += [
            Completion(text, stop_reason=turn.stop, usage=turn.usage)
            for text, turn in zip(texts, attempt.turns, strict=True)
        ]
    return parts


def rewrite(episode: Episode, edit: Callable[[str], str]) -> Episode:
    """An episode with what was written in its attempts changed."""
    attempts = [
        replace(
            attempt,
            messages=[
                {**m, "content": edit(m["content"])} if m["role"] == "assistant" else m
                for m in attempt.messages
            ],
        )
        for attempt in episode.attempts
    ]
    return replace(episode, attempts=attempts)
