"""What the commands share: a parser whose errors are one line, and exit codes."""

from __future__ import annotations

import argparse
import sys
import unicodedata
from typing import NoReturn

OK, FAILED, USAGE, INVALID, INTERRUPTED = 0, 1, 2, 3, 130
"""All well; it did not succeed; a bad argument; a part of it is missing; interrupted."""


LINE = 2_000
"""Characters of what a person is told."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with `USAGE`."""
        complain(f"{message} (--help shows the arguments)")
        raise SystemExit(USAGE)


def complain(error: object) -> int:
    """Tell a person what is wrong, in one line; the exit code of a bad argument."""
    print(f"error: {one_line(error)}", file=sys.stderr)
    return USAGE


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
