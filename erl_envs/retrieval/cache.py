"""Indices on disk, under the hash of what they are made of; what is not whole is made again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from erl_envs.core import digest

_SEAL = "seal.json"


def cache_root() -> Path:
    """`$ERL_ENVS_CACHE`, else `erl_envs` in the user's cache folder."""
    if own := os.environ.get("ERL_ENVS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "erl_envs"


def cached_folder(recipe: object, build: Callable[[Path], None], root: Path | None = None) -> Path:
    """A folder of files that `build` writes, kept under the hash of its recipe.

    The folder carries a seal: the recipe and a hash of every file. A folder whose seal does not
    hold (half-written, changed, another's) is built anew, beside it, and put in its place at once.

    Args:
        recipe: JSON value that names all that the files depend on.
        build: Writes the files into an empty folder.
        root: Where to keep folders; None takes `cache_root()`.
    """
    base = root or cache_root()
    folder = base / digest(recipe)[:32]
    if _holds(folder, recipe):
        return folder
    base.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=base))
    try:
        build(made)
        seal = {"recipe": recipe, "files": _hashes(made)}
        (made / _SEAL).write_text(json.dumps(seal), encoding="utf-8")
        if folder.exists() and not _holds(folder, recipe):
            # moved aside first: another process may still map its files
            os.replace(folder, made / "old")
            shutil.rmtree(made / "old")
        try:
            os.replace(made, folder)
        except OSError:  # another process was first; its folder is as good if its seal holds
            if not _holds(folder, recipe):
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _holds(folder: Path, recipe: object) -> bool:
    try:
        seal = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        return bool(seal == {"recipe": recipe, "files": _hashes(folder)})
    except (OSError, ValueError):
        return False


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != _SEAL and path.is_file():
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    return found
