"""One process at a time writes a folder; whose lock it is that dies with it.

The lock is the system's (`flock`) on a file in the folder, so a killed process leaves none behind.
On NFS it holds between machines where the server locks; where a file system knows no locks, that is
told and the work goes on. Windows has no `flock`: nothing is locked there.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from erl_envs.files import LOCK, writing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 3.0
"""Seconds in which a lock may come free: a process that was just killed takes a moment to end."""


class InUse(ValueError):
    """Another process writes the folder; one line that says which."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a folder, which is made; gone again if it stays empty.

    Raises:
        InUse: Another process holds it.
        ValueError: It is no folder.
        WriteError: It cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = folder / LOCK
    handle = _acquire(folder, lock)
    try:
        yield
    finally:
        with suppress(OSError):
            if _is_the_file(handle, lock):
                lock.unlink()  # while it is held: who waits for it sees that it is gone
        os.close(handle)
        with suppress(OSError):
            for path in made:
                path.rmdir()


def is_held(folder: Path) -> bool:
    """Whether a process writes a folder."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(handle, folder)
    finally:
        os.close(handle)


def _acquire(folder: Path, lock: Path) -> int:
    until = time.monotonic() + PATIENCE
    while (handle := _try(folder, lock)) is None:
        if time.monotonic() > until:
            raise InUse(f"{folder} is in use by {_holder(lock)}; one at a time can write it")
        time.sleep(0.05)
    return handle


def _try(folder: Path, lock: Path) -> int | None:
    with writing(folder):
        _make(folder)
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # who held it has just removed the folder that it had made
            return None
    # a holder removes its file at its end: a lock on that one would keep nobody out
    if _lock(handle, folder) and _is_the_file(handle, lock):
        _sign(handle)
        return handle
    os.close(handle)
    return None


def _is_the_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{folder} is no folder") from error


def _lock(handle: int, folder: Path) -> bool:
    """Whether the lock is this process's now."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        print(
            f"{folder} cannot be locked ({error.strerror}): see that nothing else writes it",
            file=sys.stderr,
        )
    return True


def _sign(handle: int) -> None:
    """Write down who holds the lock, for whoever is refused; a full disk does not matter."""
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())


def _holder(lock: Path) -> str:
    try:
        told = json.loads(lock.read_text(encoding="utf-8"))
        return f"process {int(told['pid'])} on {told['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to write it, or has no room
        return "another process"
