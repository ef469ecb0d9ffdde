"""What the commands share: a parser whose errors are one line, and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from typing import NoReturn

from erl_envs.files import WriteError
from erl_envs.locks import InUse
from erl_envs.output import protect
from erl_envs.secrets import redact_error, redacted_errors

OK, FAILED, USAGE, INVALID, UNWRITABLE, IN_USE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
"""All well; it did not succeed; a bad argument; a part of it is missing; the disk refused; another
process writes the folder; interrupted."""


LINE = 2_000
"""Characters of what a person is told."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with `USAGE`."""
        complain(f"{message} (--help shows the arguments)")
        raise SystemExit(USAGE)


def complain(error: object) -> int:
    """Tell a person what is wrong, in one line; the exit code of that kind of fault."""
    tell(f"error: {one_line(redact_error(str(error)))}")
    if isinstance(error, WriteError):
        return UNWRITABLE
    return IN_USE if isinstance(error, InUse) else USAGE


def tell(line: str) -> None:
    """Tell a person something beside the results; it tells no secret."""
    print(redact_error(line), file=sys.stderr)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a first Ctrl-C raise KeyboardInterrupt, and a second one end the process where it is.

    What a run has written is whole at any time, so that a person who is in a hurry loses no more
    than one who waits for what the first one tidies up.
    """
    if threading.current_thread() is not threading.main_thread():  # none other gets signals
        yield
        return

    def end(*_: object) -> NoReturn:
        os.write(2, b"interrupted twice\n")  # a print may be under way
        os._exit(INTERRUPTED)

    def interrupt(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, end)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command as the process's own, and end with its exit code.

    What cannot be printed (a closed or full output, a character that it does not know) fails none.
    An error that ends it tells no secret.
    """
    protect()
    try:
        with redacted_errors():
            code = main()
    except KeyboardInterrupt:  # where the command itself has nothing to say of it
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    raise SystemExit(code)


def one_line(text: object, most: int = LINE) -> str:
    """Make one bounded line of a text, in which nothing is hidden.

    White space becomes blanks; a character that cannot be seen, turns the line's direction or is
    drawn over its neighbour is told by its code.

    Args:
        text: What to tell.
        most: Characters after which it is cut.
    """
    words = " ".join(str(text)[: 2 * most].split())
    line = "".join(map(_visible, words))
    return line if len(line) <= most else f"{line[:most]}…"


def _visible(character: str) -> str:
    mark = unicodedata.category(character).startswith("M")
    return character if character.isprintable() and not mark else ascii(character)[1:-1]
