"""What the commands share: a parser whose errors are one line, and exit codes."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from erl_envs.secrets import redact_error

OK, FAILED, USAGE, INVALID, INTERRUPTED = 0, 1, 2, 3, 130
"""All well; it did not succeed; a bad argument; a part of it is missing; interrupted."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with `USAGE`."""
        complain(f"{message} (--help shows the arguments)")
        raise SystemExit(USAGE)


def complain(error: object) -> int:
    """Tell a person what is wrong, in one line; the exit code of a bad argument."""
    tell(f"error: {error}")
    return USAGE


def tell(line: str) -> None:
    """Tell a person something beside the results; it tells no secret."""
    print(redact_error(line), file=sys.stderr)
