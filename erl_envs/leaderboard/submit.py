"""Packs a run folder as a submission, with nothing in it that is not the run's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from erl_envs import registry
from erl_envs.core import Attempt, Episode, Turn, Usage
from erl_envs.eval.runfolder import SCHEMA as RUN_SCHEMA
from erl_envs.files import new_folder
from erl_envs.leaderboard import leaks
from erl_envs.leaderboard import submission as sub
from erl_envs.leaderboard.copies import Shelf
from erl_envs.leaderboard.submission import EPISODES, Submission
from erl_envs.leaderboard.tracks import FREE, TRACKS, Track
from erl_envs.leaderboard.verify import Verified, measure, verify
from erl_envs.locks import hold
from erl_envs.policies.openai import WITH_TOOLS
from erl_envs.records import read_episodes
from erl_envs.task_files import TaskFile


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a submitter says of a run, beside what the run says itself; see `Submission`."""

    name: str
    model: str
    revision: str
    date: str
    url: str = ""
    license: str = ""
    notes: str = ""
    reflector: str | None = None
    trained_on_family: Literal["yes", "no", "unknown"] = "unknown"
    tools: bool = False
    outside_help: str = "none"


def submit(run_folder: Path, env: str, entry: Entry, out: Path) -> tuple[Path, Verified]:
    """Make a submission of a run's episodes of one environment.

    Args:
        run_folder: As `erl_envs.eval` writes it.
        env: Which of its environments.
        entry: What to say of it.
        out: Folder of all submissions; the new one is `out/TRACK/DATE_NAME`.

    Returns:
        The new folder, and what its replay gave.

    Raises:
        ValueError: The run belongs to no track, was not finished, or it, or what is said of it,
            holds what must not be published; nothing is written then.
    """
    run = read_run(run_folder)
    track, free, salt = track_of(run, env)
    ids = {task.id for task in track.tasks(salt)}
    episodes = [
        _bare(episode)
        for episode in read_episodes(run_folder / "episodes.jsonl")
        if episode.task.env == env and episode.valid and episode.sample < track.samples
    ]
    if strange := [episode.task.id for episode in episodes if episode.task.id not in ids]:
        raise ValueError(f"{track.id} has no task {strange[0]!r}")
    episodes.sort(key=lambda episode: (episode.task.id, episode.sample))
    two = track.attempts == 2
    if two and run["reflector"] != run["policy"] and not entry.reflector:
        raise ValueError(f"{run['reflector']['spec']} reflected in this run: name it (--reflector)")
    if not two and entry.reflector:
        raise ValueError(f"nobody reflects on {track.id}: leave --reflector out")
    offered = run["policy"]["revision"].endswith(WITH_TOOLS) and registry.env_class(env).tools
    if offered and not entry.tools:
        raise ValueError("the policy of this run was offered tools: say so (--tools)")
    lines = [episode.to_json() for episode in episodes]
    said = {**vars(entry), "salt": salt, "options": free, "package": run["package"]}
    leaks.check(said, lines, own=True)
    submission = Submission(
        schema=sub.SCHEMA,
        track=track.specification(),
        salt=salt,
        options=free,
        sampling=run["sampling"],
        reflection_sampling=run["reflection_sampling"] if two else None,
        seed=run["seed"],
        package=run["package"],
        metrics=measure(track, episodes, salt),
        files={EPISODES: sub.digest_of(lines)},
        **vars(entry),
    )
    return _write(submission, lines, out / track.id)


def _write(submission: Submission, lines: Sequence[Any], home: Path) -> tuple[Path, Verified]:
    folder = home / submission.folder
    with hold(home):
        if folder.exists():
            raise ValueError(f"{folder} is there already; give another --name")
        with new_folder(folder) as part:
            sub.write(part, submission, lines)
            verified = verify(part)
            Shelf(home.parent).check(verified.content)
    return folder, verified


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a finished run's `run.json`.

    Raises:
        ValueError: There is none, or it is of another schema or not finished.
    """
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is no run folder: {error}") from error
    if not isinstance(run, dict) or run.get("schema") != RUN_SCHEMA:
        raise ValueError(f"{folder}/run.json has another schema than {RUN_SCHEMA}")
    if run["finished"] is None:
        raise ValueError(f"{folder} is not finished; python -m erl_envs.eval … --resume goes on")
    return run


def track_of(run: Mapping[str, Any], env: str) -> tuple[Track, dict[str, Any], str]:
    """The track that a run's environment belongs to, its free options, and its salt.

    Raises:
        ValueError: There is none; the message says what stands in the way.
    """
    if env not in run["envs"]:
        raise ValueError(f"the run has no {env!r}, but {', '.join(run['envs'])}")
    played = run["envs"][env]
    if TaskFile.of(played["split"]):
        raise ValueError(f"the run played tasks of a file, {played['split']}; no track has those")
    split, _, salt = played["split"].partition("@")
    options = played["options"]
    told = options["feedback"] if run["attempts"] == 2 else "outcome"
    wanted = f"{env}-{split}-{options['rules']}-{told}-{run['attempts']}"
    if wanted not in TRACKS:
        raise ValueError(f"no track {wanted!r}; python -m erl_envs.leaderboard tracks lists them")
    track = TRACKS[wanted]
    fixed = track.specification()["options"]
    for name, value in fixed.items():
        own = options.get(name)
        if own != (list(value) if isinstance(value, tuple) else value):
            raise ValueError(f"{track.id} has {name}={value!r}; the run has {own!r}")
    if run["limit"] is not None:
        raise ValueError(f"the run has only its first {run['limit']} tasks; a track wants all")
    if run["samples"] < track.samples:
        raise ValueError(
            f"{track.id} wants --samples {track.samples}; the run has {run['samples']}"
        )
    return track, {name: options[name] for name in FREE if name in options}, salt


def _bare(episode: Episode) -> Episode:
    """Without what is a machine's: seconds."""
    reflection = episode.reflection
    return replace(
        episode,
        attempts=[_bare_attempt(attempt) for attempt in episode.attempts],
        reflection=reflection and replace(reflection, usage=_bare_usage(reflection.usage)),
    )


def _bare_attempt(attempt: Attempt) -> Attempt:
    def bare(turn: Turn) -> Turn:
        return replace(turn, usage=_bare_usage(turn.usage))

    return replace(attempt, turns=[bare(turn) for turn in attempt.turns])


def _bare_usage(usage: Usage) -> Usage:
    return replace(usage, seconds=0.0)
