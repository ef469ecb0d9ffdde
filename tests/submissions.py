"""Submissions for tests: a real run of two attempts, packed as a person packs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from erl_envs import policies
from erl_envs.core import Usage
from erl_envs.eval.run import Config, Here, evaluate
from erl_envs.eval.runfolder import RunFolder
from erl_envs.leaderboard.archive import write_lines
from erl_envs.leaderboard.submission import (
    ABOUT,
    EPISODES,
    LinesDigest,
    Submission,
    read_about,
    read_episodes,
)
from erl_envs.leaderboard.submit import Entry, submit
from erl_envs.policies.base import Completion, Conversation, Policy, PolicyError, Sampling

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
            if isinstance(answer, Completion)
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
    digest = LinesDigest()
    for line in lines:
        digest.add(line)
    (folder / ABOUT).write_text(json.dumps({**about, "files": {EPISODES: digest.text()}}))
    write_lines(folder / EPISODES, lines)


def change(folder: Path, edit: Callable[[dict[str, Any], list[Any]], None]) -> None:
    """Change a submission's content and lines."""
    submission, lines = read(folder)
    about = json.loads(json.dumps(submission.to_json()))
    edit(about, lines)
    write(folder, about, lines)
