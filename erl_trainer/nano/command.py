"""`python -m erl_trainer nano`: build the bundled model from a seed, and measure its skills."""

from __future__ import annotations

import argparse
import dataclasses
import json
import socket
from pathlib import Path
from typing import Any

from rich.console import Console


def main(argv: list[str]) -> int:
    """The command; the exit status: 1 where a gate is not passed.

    Raises:
        ValueError: A folder or an option is not usable.
    """
    args = _parser().parse_args(argv)
    console = Console(stderr=True, highlight=False)
    folder = args.check or args.out / "model"
    if args.check is None:
        _build(args, console)
    from erl_envs.policies.transformers import Transformers
    from erl_trainer.nano import gates

    policy = Transformers(str(folder))
    found = [gates.measure(policy, env, args.samples) for env in args.env or gates.TOLD]
    print(gates.table(found))
    skills = {skill.env: dataclasses.asdict(skill) for skill in found}
    (folder / "skills.json").write_text(json.dumps(skills, indent=1) + "\n", encoding="utf-8")
    return 1 if any(skill.failed() for skill in found) else 0


def _build(args: argparse.Namespace, console: Console) -> None:
    """Pre-train in `args.processes` processes; goes on from what is in the folder."""
    import torch.multiprocessing as processes

    from erl_trainer.nano import pretrain, tokenizer

    recipe = pretrain.Recipe(steps=args.steps, seed=args.seed, compiled=not args.no_compile)
    told = tokenizer.build()
    console.print(
        f"pre-training for {recipe.steps} steps in {args.processes} processes; "
        "stop it at any time, the same command goes on"
    )
    rest: tuple[Any, ...] = (recipe, told, args.out, args.processes, _free_port())
    if args.processes == 1:
        pretrain.run(0, *rest)
    else:
        processes.spawn(pretrain.run, args=rest, nprocs=args.processes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m erl_trainer nano",
        description="Build the bundled model from scratch, and measure what it can do.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/nano"), help="folder; an unfinished one is gone on")
    add("--steps", type=int, default=3600)
    add("--seed", type=int, default=0)
    add("--processes", type=int, default=2, help="of one thread each")
    add("--no-compile", action="store_true", help="there is no C++ compiler")
    add("--check", type=Path, metavar="MODEL", help="only measure this model folder")
    add("--env", action="append", help="measure this environment; all unless given")
    add("--samples", type=int, default=4, help="attempts of a task")
    return parser
