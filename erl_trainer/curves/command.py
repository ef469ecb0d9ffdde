"""`python -m erl_trainer curves`: run a grid, keep what figures need, draw."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from erl_envs.arguments import INTERRUPTED, INVALID, OK, Parser, complain, tell
from erl_envs.files import write_whole
from erl_envs.locks import hold
from erl_trainer import plots
from erl_trainer.curves import bars, figures
from erl_trainer.curves.grid import Grid, Run, read_grid
from erl_trainer.curves.progress import show_progress
from erl_trainer.curves.results import Results, collect, read, write
from erl_trainer.curves.runner import Failure, run_all, train_command
from erl_trainer.curves.tables import tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: Mapping[str, Callable[[Results], Figure | None]] = {
    "curves_steps": lambda results: figures.learning_curves(results, figures.STEPS),
    "curves_tokens": lambda results: figures.learning_curves(results, figures.TOKENS),
    "curves_time": lambda results: figures.learning_curves(results, figures.TIME),
    "final": bars.final,
    "reflection": figures.before_and_after_reflection,
    "ablations": bars.ablations,
    "variance": figures.variance,
    "time_split": bars.time_split,
}
"""By file name; a figure is None where the runs did not measure what it shows."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="python -m erl_trainer curves",
        description="Run a grid of environments, methods and seeds, and draw its figures.",
    )
    add = parser.add_argument
    add("grid", type=Path, help="JSON file of base, environments, methods and seeds")
    add("--out", type=Path, required=True, help="folder of runs/, results.json and figures")
    add("--workers", type=int, default=os.cpu_count(), help="runs at a time; one a core if not set")
    add("--draw-only", action="store_true", help="draw what is there and run nothing")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    failures: list[Failure] = []
    # a plain kill stops the runs as Ctrl-C does
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with plots.drawing():  # raises before hours of runs if matplotlib is missing
            grid = read_grid(args.grid)
            if args.workers < 1:
                raise ValueError(f"--workers must be 1 or more, got {args.workers}")
            with hold(args.out):
                if not args.draw_only:
                    with show_progress() as show:
                        folder, runs = args.out / "runs", _to_run(grid, args.out)
                        failures = run_all(runs, folder, args.workers, show, train_command)
                draw(_results(grid, args.out), args.out)
    except (ValueError, OSError) as error:
        return complain(error)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    for run, reason in failures:
        tell(f"failed: {run.title}: {reason}")
    if failures:
        print("the same command tries them again; see log.txt in their folders", file=sys.stderr)
    return INVALID if failures else OK


def draw(results: Results, out: Path) -> None:
    """Write the figures and tables; within `plots.drawing`."""
    for name, figure_of in FIGURES.items():
        figure = figure_of(results)
        if figure is None:
            print(f"no {name}: no run has what it shows")
        else:
            plots.save(figure, out / name)
    write_whole(out / "tables.md", tables(results))
    finished = sum(record.ended is not None for record in results.records)
    print(f"{finished} finished runs drawn in {out}; tables.md has the numbers")


def _results(grid: Grid, out: Path) -> Results:
    """The grid's results, from its runs' folders and from the file, which is written anew."""
    results = collect(grid, out / "runs", _earlier(out))
    write(results, out / "results.json")
    return results


def _to_run(grid: Grid, out: Path) -> list[Run]:
    """The runs but those the file has to their end, their folders being elsewhere."""
    earlier = _earlier(out)

    def is_kept(run: Run) -> bool:
        record = earlier.find(run) if earlier else None
        return bool(record and record.ended) and not (out / "runs" / run.folder).is_dir()

    return [run for run in grid.runs if not is_kept(run)]


def _earlier(out: Path) -> Results | None:
    path = out / "results.json"
    return read(path) if path.is_file() else None
