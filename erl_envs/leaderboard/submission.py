"""A submission: what was measured, of whom, and the transcripts that show it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from erl_envs.core import canonical_json
from erl_envs.leaderboard.archive import Refused, read_json, read_lines, write_lines
from erl_envs.leaderboard.differences import shown
from erl_envs.leaderboard.fields import SHA256, fault
from erl_envs.options import fits

SCHEMA = 1

ABOUT, EPISODES = "submission.json", "episodes.jsonl.gz"
FILES = (ABOUT, EPISODES)
"""All that a submission's folder holds."""

MAX_ABOUT = 2**16
"""Bytes of `submission.json`."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The content of `submission.json`.

    Attributes:
        schema: Of this file.
        track: The track's specification, as the submitter's package has it.
        salt: What the tasks were salted with; "" for the public ones.
        name: Of the entry.
        date: When it was submitted, `YYYY-MM-DD`.
        model: Who played.
        revision: Which version of it exactly.
        reflector: Who reflected, None if the model itself or nobody.
        url: Where to learn more, or "".
        license: Of the model's weights, or "".
        notes: What a reader should know, or "".
        trained_on_family: Whether it was trained on tasks of this environment.
        tools: Whether it was offered the environment's actions as tools.
        outside_help: What else helped it: search, a solver, a person.
        options: What it chose of the options that a track leaves open.
        sampling: How it sampled.
        reflection_sampling: How the reflector sampled, None for one attempt.
        seed: Of the run.
        package: Version and commit that played it.
        metrics: The numbers that the submitter's package computed; read by nobody but `verify`,
            which compares them with its own.
        files: File → SHA-256 of its lines' canonical JSON.
    """

    schema: int
    track: Mapping[str, Any]
    salt: str
    name: str
    date: str
    model: str
    revision: str
    reflector: str | None
    url: str
    license: str
    notes: str
    trained_on_family: Literal["yes", "no", "unknown"]
    tools: bool
    outside_help: str
    options: Mapping[str, Any]
    sampling: Mapping[str, Any]
    reflection_sampling: Mapping[str, Any] | None
    seed: int
    package: Mapping[str, Any]
    metrics: Mapping[str, Any]
    files: Mapping[str, str]

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            Refused: One is not of its kind, or says nothing.
        """
        hints = get_type_hints(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            if not fits(value, hints[field.name]):
                raise Refused(f"{ABOUT}: {field.name} cannot be {shown(value)}")
            if wrong := fault(field.name, value):
                raise Refused(f"{ABOUT}: {wrong}")
        if self.schema != SCHEMA:
            raise Refused(f"{ABOUT}: schema {self.schema} is not the one there is, {SCHEMA}")
        if list(self.files) != [EPISODES] or not SHA256.fullmatch(self.files[EPISODES]):
            raise Refused(f"{ABOUT}: files must name {EPISODES} and its digest, and nothing else")

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.date}_{self.name}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal submission."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Submission:
        """The submission of a JSON object.

        Raises:
            Refused: It is none; the message says why.
        """
        if not isinstance(data, Mapping):
            raise Refused(f"{ABOUT} holds no JSON object")
        if isinstance(data.get("schema"), int) and data["schema"] > SCHEMA:
            raise Refused(
                f"{ABOUT} has schema {data['schema']}, which a newer package writes; "
                f"this one reads {SCHEMA}"
            )
        known = {field.name for field in fields(cls)}
        if odd := sorted(known ^ set(data)):
            what = "lacks" if odd[0] in known else "has a field that is none:"
            raise Refused(f"{ABOUT} {what} {shown(odd[0])}")
        return cls(**data)


class LinesDigest:
    """SHA-256 of the canonical JSON of a file's lines, however the file is compressed."""

    def __init__(self) -> None:
        """The digest of no lines."""
        self._hash = hashlib.sha256()

    def add(self, line: Any) -> None:
        """Take in the next line."""
        self._hash.update(canonical_json(line).encode() + b"\n")

    def text(self) -> str:
        """The digest of the lines so far."""
        return self._hash.hexdigest()


def digest_of(lines: Iterable[Any]) -> str:
    """The digest of lines that are all there."""
    found = LinesDigest()
    for line in lines:
        found.add(line)
    return found.text()


def write(folder: Path, submission: Submission, lines: Iterable[Any]) -> None:
    """Write a submission's two files into a folder.

    Raises:
        ValueError: The transcripts are larger than is taken.
    """
    about = json.dumps(submission.to_json(), indent=2, ensure_ascii=True, allow_nan=False)
    (folder / ABOUT).write_text(about + "\n", encoding="ascii")
    write_lines(folder / EPISODES, lines)


def read_about(folder: Path) -> Submission:
    """A submission's content, from a folder that anybody may have made.

    Raises:
        Refused: The folder holds anything else, or less, or the content is not what it must be.
    """
    _check_folder(folder)
    return Submission.from_json(read_json((folder / ABOUT).read_bytes(), ABOUT))


def read_episodes(folder: Path, submission: Submission, most: int) -> Iterator[Any]:
    """A submission's episodes as JSON, one at a time.

    Raises:
        Refused: There are more than `most`, something is broken, or the file is another than the
            submission names.
    """
    found = LinesDigest()
    for number, line in enumerate(read_lines(folder / EPISODES)):
        if number == most:
            raise Refused(f"{EPISODES} has more than the track's {most} episodes")
        found.add(line)
        yield line
    if found.text() != submission.files[EPISODES]:
        raise Refused(f"{EPISODES} is not the file that {ABOUT} names: its digest is another")


def _check_folder(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        raise Refused(f"{folder} is no folder")
    found = {path.name: path for path in sorted(folder.iterdir())}
    for name, path in found.items():
        if name not in FILES:
            raise Refused(
                f"{shown(name)} does not belong there: a submission is {' and '.join(FILES)}"
            )
        if path.is_symlink() or not path.is_file():
            raise Refused(f"{name} is no plain file")
    if missing := sorted(set(FILES) - set(found)):
        raise Refused(f"{missing[0]} is missing")
    if found[ABOUT].stat().st_size > MAX_ABOUT:
        raise Refused(f"{ABOUT} has more than {MAX_ABOUT:,} bytes")
