"""Files that are there whole or not at all, whenever the process that writes them dies."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from erl_envs.secrets import redact

LOCK = ".lock"
"""The file in a folder that `erl_envs.locks` locks."""


class WriteError(OSError):
    """A file cannot be written (a full, read-only or broken disk); one line that says which."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name what is written where the system refuses.

    Raises:
        WriteError: It did.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:
        # so the libraries that are written in Rust tell it (safetensors, tokenizers)
        if "(os error " in str(error):
            raise WriteError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a new file, which takes `path`'s place once it is whole."""
    part = _beside(path, "part")
    try:
        with writing(path):
            yield part
            part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a text file, without secrets, replacing what is there at once.

    Raises:
        WriteError: The disk refuses; what was there still is.
    """
    with replacing(path) as part:
        part.write_text(redact(text), encoding="utf-8", newline="\n")


def keep_lines(path: Path, kept: Sequence[bool]) -> None:
    """Drop a file's lines but those that are marked to be kept; what has no mark goes too.

    The end of a file is cut off in place. Where a line that stays follows one that goes, there must
    be room for a copy.

    Raises:
        WriteError: The disk refuses; what was there still is.
    """
    lead = next((number for number, keep in enumerate(kept) if not keep), len(kept))
    if any(kept[lead:]):
        with replacing(path) as part, path.open("rb") as old, part.open("wb") as new:
            new.writelines(line for line, keep in zip(old, kept, strict=False) if keep)
        return
    with writing(path), path.open("rb") as file:
        os.truncate(path, sum(map(len, itertools.islice(file, lead))))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes `folder`'s place once it is whole.

    Raises:
        WriteError: The disk refuses; what was there still is.
    """
    part, old = _beside(folder, "part"), _beside(folder, "old")
    try:
        with writing(folder):
            shutil.rmtree(part, ignore_errors=True)  # of one that was killed
            part.mkdir(parents=True)
            yield part
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():  # no folder can be renamed onto a full one
                folder.rename(old)
            part.rename(folder)
    finally:
        for done in (part, old):
            shutil.rmtree(done, ignore_errors=True)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def is_unused(folder: Path, besides: Collection[str] = ()) -> bool:
    """Whether a folder holds nothing but a lock and what a killed process leaves.

    Args:
        folder: Need not be there.
        besides: Names of files that may be there too.
    """
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return all(
        name in (LOCK, *besides) or (name.startswith(".") and name.endswith((".part", ".old")))
        for name in names
    )


class Lines:
    """A text file that grows by whole lines, each on the disk's side once it is written."""

    def __init__(self, path: Path) -> None:
        """Open it at its end.

        Raises:
            WriteError: The disk refuses.
        """
        self._path = path
        with writing(path):
            self._file = path.open("ab", buffering=0)

    def write(self, line: str) -> None:
        """Append a line, given without its line break; secrets are left out.

        Raises:
            WriteError: The disk refuses; the file holds whole lines still.
        """
        data = memoryview(redact(line).encode() + b"\n")
        before = os.fstat(self._file.fileno()).st_size
        try:
            with writing(self._path):
                while data:
                    data = data[self._file.write(data) :]
        except WriteError:
            with suppress(OSError):
                self._file.truncate(before)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: It is not JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
