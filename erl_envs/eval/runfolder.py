"""A run folder: `run.json`, `episodes.jsonl` (appended as episodes end), `report.html`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from erl_envs.core import Episode
from erl_envs.files import read_json, write_whole
from erl_envs.records import parse_episodes
from erl_envs.secrets import redact, redact_json

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
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        """The folder at `path`; nothing is written yet."""
        self.path = path
        self.episodes_path = path / "episodes.jsonl"
        self._file: TextIO | None = None

    def start(self, run: Mapping[str, Any]) -> None:
        """Make the folder.

        Raises:
            ValueError: It holds something already, or cannot be written.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(f"{self.path} is not empty; give --resume to go on, or another --out")
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json("run.json", run)
            self.episodes_path.touch()

    def resume(self, run: Mapping[str, Any]) -> tuple[dict[str, Any], list[Episode]]:
        """Take an interrupted run up again.

        A half-written last line and invalid episodes are dropped: they will be played (again).

        Returns:
            run.json as it was, and the finished episodes.

        Raises:
            ValueError: There is no run, it cannot be read, or its configuration is another; the
                message shows the difference.
        """
        try:
            before = read_json(self.path / "run.json")
            lines = ""
            if self.episodes_path.exists():  # else it was killed as it began
                lines = self.episodes_path.read_bytes().decode()
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot resume {self.path}: {error}") from error
        if not isinstance(before, dict):
            raise ValueError(f"cannot resume {self.path}: run.json is no JSON object")
        # both as they are written: what a URL carries may have been renewed, and is no difference
        if changes := _differences(redact_json(before), redact_json(dict(run))):
            raise ValueError(f"cannot resume {self.path} with another configuration: {changes}")
        played = parse_episodes(lines[: lines.rfind("\n") + 1], self.episodes_path)
        finished = [episode for episode in played if episode.valid]
        with self._writing():
            self.write_text("episodes.jsonl", "".join(map(_line, finished)))
        return before, finished

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise ValueError, one line, where the folder cannot be written."""
        try:
            yield
        except OSError as error:
            raise ValueError(f"cannot write to {self.path}: {error.strerror}") from error

    def append(self, episode: Episode) -> None:
        """Write an episode; a killed process does not lose it."""
        if self._file is None:
            self._file = self.episodes_path.open("a", encoding="utf-8")
        self._file.write(_line(episode))
        self._file.flush()

    def close(self) -> None:
        """Close the file of episodes."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        write_whole(self.path / name, text)


def _line(episode: Episode) -> str:
    return redact(json.dumps(episode.to_json(), ensure_ascii=True)) + "\n"


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
