"""What a run is made of: the model and the tasks by their content, which names do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import erl_envs
from erl_envs import tasks
from erl_envs.files import read_json
from erl_trainer.config import Config

ORIGIN = "origin.json"
"""Its file in a run's folder."""

CONTENT = ("model", "train_split", "eval_split")
"""Fields of a configuration whose content an origin tells."""


def origin(config: Config, revision: str) -> dict[str, str]:
    """The package's version, the model's revision, and the hash of each split.

    Raises:
        ValueError: There is no such split.
    """
    splits = {"train_split": config.train_split, "eval_split": config.eval_split}
    hashes = {
        field: tasks.split_hash(tasks.load(config.env, split, **config.options))
        for field, split in splits.items()
    }
    return {"version": erl_envs.__version__, "model": revision, **hashes}


def check_origin(found: Mapping[str, str], folder: Path) -> None:
    """Compare an origin with that of the run that a folder holds, if it holds one.

    Raises:
        ValueError: A name of the configuration now means something else.
    """
    path = folder / ORIGIN
    if not path.exists():
        return
    held = read_json(path)
    for field in CONTENT:
        if held.get(field) != found[field]:
            raise ValueError(
                f"{folder} holds a run whose {field} was {held.get(field)}, "
                f"and now is {found[field]}; give another --out"
            )
