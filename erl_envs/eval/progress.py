"""Progress with time left: a bar at a terminal, a line every tenth in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def show_progress(what: str, bar: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Shows on standard error what is called with (done, total).

    Args:
        what: Is counted.
        bar: Whether a bar may take hold of the terminal; lines never do.
    """
    console = Console(stderr=True, highlight=False)
    if not (bar and console.is_terminal):
        yield _Lines(what, console).show
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("time left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


class _Lines:
    def __init__(self, what: str, console: Console) -> None:
        self.what, self.console = what, console
        self.first: tuple[int, float] | None = None
        self.shown = 0

    def show(self, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if self.first is None:
            self.first = done, time.monotonic()
            self.shown = tenth
        elif tenth > self.shown:
            self.shown = tenth
            before, began = self.first
            left = (time.monotonic() - began) / (done - before) * (total - done)
            self.console.print(f"{self.what} {done} of {total}, {left:.0f} s left", soft_wrap=True)
