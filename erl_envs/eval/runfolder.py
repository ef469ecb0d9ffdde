"""A run folder: `run.json`, `episodes.jsonl` (appended as episodes end), `report.html`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erl_envs.core import Episode
from erl_envs.files import Lines, is_unused, keep_lines, read_json, write_whole, writing
from erl_envs.records import EpisodeFile
from erl_envs.secrets import redact_json

SCHEMA = 1

IDENTITY = (
    "schema",
    "policy",
    "reflector",
    "sampling",
    "reflection_sampling",
    "seed",
    "samples",
    "attempts",
    "limit",
    "envs",
)
"""Fields of run.json that decide what its episodes are; a run resumes under the same ones only."""


class RunFolder:
    """One run on disk; whoever writes it holds it (`erl_envs.locks`)."""

    def __init__(self, path: Path) -> None:
        """The folder at `path`; nothing is written yet."""
        self.path = path
        self.episodes_path = path / "episodes.jsonl"
        self._lines: Lines | None = None

    @property
    def episodes(self) -> EpisodeFile:
        """What has been played."""
        return EpisodeFile(self.episodes_path)

    def start(self, run: Mapping[str, Any]) -> None:
        """Begin a run.

        Raises:
            ValueError: The folder holds something already.
            WriteError: It cannot be written.
        """
        if not is_unused(self.path):
            raise ValueError(f"{self.path} is not empty; give --resume to go on, or another --out")
        self.write_json("run.json", run)
        self._lines = Lines(self.episodes_path)

    def resume(self, run: Mapping[str, Any]) -> tuple[dict[str, Any], set[tuple[str, str, int]]]:
        """Take an interrupted run up again.

        A half-written last line and invalid episodes are dropped: they will be played (again).

        Returns:
            run.json as it was, and the keys of the finished episodes.

        Raises:
            ValueError: There is no run, it cannot be read, or its configuration is another; the
                message shows the difference.
            WriteError: The folder cannot be written.
        """
        try:
            before = read_json(self.path / "run.json")
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot resume {self.path}: {error}") from error
        if not isinstance(before, dict):
            raise ValueError(f"cannot resume {self.path}: run.json is no JSON object")
        # both as they are written: what a URL carries may have been renewed, and is no difference
        if changes := _differences(redact_json(before), redact_json(dict(run))):
            raise ValueError(f"cannot resume {self.path} with another configuration: {changes}")
        with writing(self.path):
            self.episodes_path.touch()  # it may have been killed before there was one
        played = [(e.key, e.valid) for e in EpisodeFile(self.episodes_path, unfinished=True)]
        keep_lines(self.episodes_path, [valid for _, valid in played])
        self._lines = Lines(self.episodes_path)
        return before, {key for key, valid in played if valid}

    def append(self, episode: Episode) -> None:
        """Write an episode of a run that was started or resumed; a kill does not lose it.

        Raises:
            WriteError: The disk refuses.
        """
        assert self._lines is not None
        self._lines.write(json.dumps(episode.to_json(), ensure_ascii=True))

    def close(self) -> None:
        """Close the file of episodes."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        write_whole(self.path / name, text)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> str:
    """What differs between two configurations, as `field: old → new`, joined by semicolons."""
    found = []
    for name in IDENTITY if not path else sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        where = f"{path}{name}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if inner := _differences(old, new, f"{where}."):
                found.append(inner)
        elif _plain(old) != _plain(new):
            found.append(f"{where}: {old!r} → {new!r}")
    return "; ".join(found)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
