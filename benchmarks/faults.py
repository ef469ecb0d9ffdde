"""`python benchmarks/faults.py`: kills, full disks, broken servers, and what is promised of them.

Each row is a kind of fault and what it is tried on; a trial's outcome is a line of `results.jsonl`
in the folder of results, and what held is not tried again. `docs/reliability.md` holds the table
that this prints. Everything runs on one processor, one command at a time.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from faulty.circumstances import ManyEpisodes, Output, Variations
from faulty.commands import COMMANDS, Fault
from faulty.disks import FullDisk, ReadOnly
from faulty.kills import Kill, KillInside
from faulty.row import Row
from faulty.servers import server_rows

from erl_envs.arguments import FAILED, OK, Parser, run_command
from erl_envs.files import Lines
from erl_envs.locks import hold

Tried = dict[tuple[str, str], dict[str, Any]]
"""The latest line of each row's trials."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has not been tried, and print the table; 1 where something did not hold."""
    parser = Parser(prog="faults.py", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"), help="folder of results")
    parser.add_argument("--only", default="", help="rows whose name begins with this")
    parser.add_argument("--kills", type=int, default=25, help="of each command")
    parser.add_argument("--episodes", type=int, default=200_000, help="of the long run")
    parser.add_argument("--list", action="store_true", help="only name the rows")
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args(argv)
    out = args.out.resolve()
    chosen = [r for r in rows(out, args.kills, args.episodes) if r.name.startswith(args.only)]
    if args.list:
        print("\n".join(row.name for row in chosen))
        return OK
    path = out / "results.jsonl"
    with hold(out):
        tried = _read(path)
        if not args.table:
            log = Lines(path)
            for row in chosen:
                _try(row, tried, log)
            log.close()
    print(table(chosen, tried))
    return OK if all(line["held"] for line in tried.values()) else FAILED


def rows(home: Path, kills: int, episodes: int) -> list[Row]:
    """All of them, in the table's order.

    Args:
        home: Folder of results and of what is run.
        kills: Of each command.
        episodes: Of the long run.
    """
    commands = [kind(home / re.sub("[^a-z]+", "-", kind.name)) for kind in COMMANDS]
    return [
        *(Kill(command, kills) for command in commands),
        *(KillInside(command, kills) for command in commands),
        *(FullDisk(command) for command in commands),
        *(ReadOnly(command) for command in commands),
        *(Output(command) for command in commands),
        *(Variations(command) for command in commands),
        *server_rows(),
        ManyEpisodes(home / "many", episodes),
    ]


def _try(row: Row, tried: Tried, log: Lines) -> None:
    for trial in row.trials():
        if tried.get((row.name, trial), {"held": False})["held"]:
            continue
        began = time.monotonic()
        try:
            told, held = row.run(trial), True
        except Fault as fault:
            told, held = str(fault), False
        line = {"row": row.name, "trial": trial, "held": held, "told": told}
        line["seconds"] = round(time.monotonic() - began, 1)
        tried[row.name, trial] = line
        log.write(json.dumps(line))
        print(f"{'held' if held else 'FAULT'}  {row.name}, {trial}: {told}", file=sys.stderr)


def _read(path: Path) -> Tried:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    return {(line["row"], line["trial"]): line for line in lines}


def table(chosen: Sequence[Row], tried: Tried) -> str:
    """What was tried, a line a row."""
    lines = ["| fault | held | the same | minutes | |", "|---|---|---|---|---|"]
    for row in chosen:
        its = [line for (name, _), line in tried.items() if name == row.name]
        if its:
            held = sum(line["held"] for line in its)
            notes = dict.fromkeys(x["told"] for x in its if not x["held"]) or dict.fromkeys(
                x["told"] for x in its if x["told"]
            )
            minutes = sum(line["seconds"] for line in its) / 60
            told = "; ".join(list(notes)[:3]).replace("|", "¦")
            lines.append(
                f"| {row.name} | {held} of {len(its)} | {row.how} | {minutes:.1f} | {told} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
