"""How far a grid is: a bar at a terminal, in a log a line as each run ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress

from erl_trainer.curves.runner import Show


def time_left(clock: Callable[[], float] = time.monotonic) -> Callable[[float, float], str]:
    """What tells the time left from work done and work in all, by the pace since its first call."""
    first: list[tuple[float, float]] = []

    def tell(done: float, total: float) -> str:
        if not first:
            first.append((clock(), done))
        began, before = first[0]
        if done <= before:
            return "time left unknown"
        minutes = round((clock() - began) / (done - before) * (total - done) / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min left"

    return tell


@contextlib.contextmanager
def show_progress() -> Iterator[Show]:
    """Shows runs done and time left on standard error."""
    console = Console(stderr=True, highlight=False)
    left = time_left()
    if not console.is_terminal:

        def line(ended: int, total: int, work: float, title: str | None) -> None:
            told = left(work, total)
            if title:
                console.print(f"run {ended} of {total}, {told}: {title}", soft_wrap=True)

        yield line
        return
    columns = ("runs {task.fields[ended]}", BarColumn(), "{task.fields[left]}")
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("runs", total=None, ended="", left="")

        def update(ended: int, total: int, work: float, title: str | None) -> None:
            told = f"{ended} of {total}"
            bar.update(task, completed=work, total=total, ended=told, left=left(work, total))

        yield update
