"""Several processes launched together, as torchrun does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence


def together(arguments: Sequence[str], count: int = 2, code: int = 0) -> list[str]:
    """Run Python with these arguments in `count` processes that know of each other, on the CPU.

    Returns:
        What each wrote to standard error; each exits with `code`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launched = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env = {**os.environ, "OMP_NUM_THREADS": "1", **launched}
    running = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [code] * count, "\n".join(said)[-3000:]
    return said
