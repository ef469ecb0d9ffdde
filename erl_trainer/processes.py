"""Several processes of one run: each plays and learns its share; the first writes the files."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from erl_envs.files import WriteError
from erl_envs.locks import hold

T = TypeVar("T")


def join() -> Any:
    """Accelerate's, of the processes that were launched together; None where there is only one.

    Raises:
        RuntimeError: It does not know of all of them: they would train apart.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched == 1:
        return None
    import torch
    import torch.distributed.nn  # imported later, its functions' defaults would keep the group
    from accelerate import Accelerator

    # without a GPU it takes each process for the only one, unless it is told
    found = Accelerator(cpu=not torch.accelerator.is_available())
    if found.num_processes != launched:
        raise RuntimeError(f"accelerate knows {found.num_processes} of {launched} processes")
    atexit.register(leave)
    return found


def leave() -> None:
    """End the group, if there is one: its threads must not meet the interpreter's end."""
    import torch.distributed as dist

    gc.collect()  # a wrapped model's cycles hold the group
    if dist.is_initialized():
        dist.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) where nobody launched several."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this is the process that writes files and tells a person."""
    return rank_and_size()[0] == 0


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold a folder (`erl_envs.locks.hold`): the first process does, for all.

    Raises:
        InUse: Another run's process holds it.
        ValueError: It is no folder.
        WriteError: It cannot be written.
    """
    with ExitStack() as held:
        with failing_together(ValueError, WriteError):
            if is_first():
                held.enter_context(hold(folder))
        yield


def share(items: Sequence[T]) -> list[T]:
    """This process's part of a step's work."""
    rank, size = rank_and_size()
    return list(items[rank::size])


def unshare(items: Sequence[T]) -> list[T]:
    """What came of everybody's `share`, on every process, in the order of what was shared."""
    parts = _gather_parts(items)
    whole: list[Any] = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def gather(items: Sequence[T]) -> list[T]:
    """Everybody's items, on every process, in the order of processes."""
    return [item for part in _gather_parts(items) for item in part]


@contextmanager
def failing_together(*kinds: type[Exception]) -> Iterator[None]:
    """What fails on one process fails on all: none is left waiting for it.

    Args:
        kinds: Of faults; they must bear pickling.

    Raises:
        Exception: The fault of the first process that had one.
    """
    fault: Exception | None = None
    try:
        yield
    except kinds as error:
        fault = error
    for its in gather([fault]):
        if its is not None:
            raise its


def _gather_parts(items: Sequence[T]) -> list[list[T]]:
    import torch.distributed as dist

    _, size = rank_and_size()
    if size == 1:
        return [list(items)]
    parts: list[Any] = [None] * size
    dist.all_gather_object(parts, list(items))
    return parts
