"""Standard output and error that may be closed, full or of few characters: no command fails by it.

What a command prints is a courtesy: its results are files. One whose result *is* what it prints
asks at its end whether that was printed (`check_printed`).
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from erl_envs.files import WriteError
from erl_envs.secrets import redact_error


class _Stream(io.TextIOWrapper):
    """Text without secrets, which goes nowhere once its file takes no more.

    Unknown characters become `?`.

    Attributes:
        lost: Why what was printed is not there; None as long as all of it is.
    """

    lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            super().write(redact_error(text))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.lost = error
        # not only this object's: what is still buffered, and what children print, goes there too
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def protect() -> None:
    """Let no later print to standard output or error fail; once a process."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would get its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout, sys.stderr = _wrap(sys.stdout, 1), _wrap(sys.stderr, 2)


def _wrap(stream: Any, number: int) -> _Stream:
    if stream is None:  # it was closed as the process began
        file = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        wrapped = _Stream(file, encoding="utf-8", errors="replace")
        wrapped.lost = OSError(errno.EBADF, os.strerror(errno.EBADF))
        return wrapped
    return _Stream(
        stream.buffer,  # shared: whoever took hold of the old object may go on with it
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def check_printed() -> None:
    """See that what was printed has arrived; a reader who closes early has enough.

    Raises:
        WriteError: It has not.
    """
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if lost is not None and not isinstance(lost, BrokenPipeError):
        raise WriteError(f"cannot write standard output: {lost.strerror}")
