"""Files that are there whole or not at all, whenever the process that writes them dies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erl_envs.secrets import redact


def write_whole(path: Path, text: str) -> None:
    """Write a text file, without secrets, replacing what is there at once."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(redact(text), encoding="utf-8", newline="\n")
    part.replace(path)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: It is not JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
