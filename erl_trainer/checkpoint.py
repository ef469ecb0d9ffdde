"""A run's state on disk: written whole or not at all.

Nothing of a run is drawn from a global generator: every stream is a function of the seed and the
step (`erl_trainer.train`), so the step number stands for all generators and for the data's cursor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erl_envs.files import WriteError, new_folder, replacing, writing
from erl_envs.policies.transformers import quiet
from erl_trainer.processes import is_first

KEEP = 2
"""Checkpoints that stay; older ones go."""


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `folder/step-000020.pt`; older checkpoints but the last go. The first process writes.

    Args:
        folder: Of the checkpoints.
        step: Steps done.
        state: What `torch.save` can write.

    Raises:
        WriteError: The disk refuses; earlier checkpoints are there still.
    """
    path = folder / f"step-{step:06d}.pt"
    if not is_first():
        return path
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_state({"step": step, **state}, path)
        for old in sorted(folder.glob("step-*.pt"))[:-KEEP]:
            old.unlink()
    return path


def write_state(state: dict[str, Any], path: Path) -> None:
    """Write what `torch.save` can, replacing what is there at once.

    Raises:
        WriteError: The disk refuses; what was there still is.
    """
    import torch

    with replacing(path) as part:
        try:
            torch.save(state, part)
        except RuntimeError as error:  # torch's own where the disk is full
            raise WriteError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def latest(folder: Path) -> Path | None:
    """The newest checkpoint, None if there is none."""
    return max(folder.glob("step-*.pt"), default=None)


def load(path: Path) -> dict[str, Any]:
    """What `save` was given, and `step`.

    Raises:
        ValueError: The file is missing or broken; one line that says so.
    """
    import torch

    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut-off file makes torch raise anything
        others = any(other != path for other in path.parent.glob("step-*.pt"))
        told = "remove it to go on from the one before" if others else "there is no other"
        raise ValueError(
            f"cannot read the checkpoint {path}: {type(error).__name__}; {told}"
        ) from error
    return state


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """A model folder that every policy loads, replaced as a whole; LoRA adapters merged in.

    Where weights are sharded every process must call it; the first one writes.

    Raises:
        WriteError: The disk refuses; what was there still is.
    """
    from erl_trainer.forward import bare
    from erl_trainer.sync.weights import weights

    first = is_first()
    tensors = {name: tensor.cpu() for name, tensor in weights(model) if first}
    if not first:
        return
    with new_folder(folder) as part, quiet():
        bare(model).save_pretrained(part, state_dict=tensors)
        tokenizer.save_pretrained(part)
