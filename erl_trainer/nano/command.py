"""`python -m erl_trainer nano`: build the bundled models from a seed, and measure their skills."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from rich.console import Console


def main(argv: list[str]) -> int:
    """The command; the exit status: 1 where a gate is not passed.

    Raises:
        ValueError: An environment or a folder is not usable.
    """
    from erl_envs.policies.transformers import Transformers
    from erl_trainer.nano import gates

    args = _parser().parse_args(argv)
    envs = args.env or list(gates.TOLD)
    if unknown := sorted(set(envs) - set(gates.TOLD)):
        raise ValueError(f"nano plays {', '.join(gates.TOLD)}; not {unknown[0]}")
    if args.check is None:
        _build(args, envs)
    found = []
    for env in envs:
        folder = (args.check or args.out) / env / ("" if args.check else "model")
        found.append(gates.measure(Transformers(str(folder)), env, args.samples))
        skills = json.dumps(dataclasses.asdict(found[-1]), indent=1) + "\n"
        (folder / "skills.json").write_text(skills, encoding="utf-8")
    print(gates.table(found))
    return 1 if any(skill.failed() for skill in found) else 0


def _build(args: argparse.Namespace, envs: list[str]) -> None:
    """Pre-train a model for each environment, each in a process of its own."""
    import torch.multiprocessing as processes

    Console(stderr=True, highlight=False).print(
        f"pre-training {', '.join(envs)}, a core each; the same command goes on where it stopped"
    )
    processes.spawn(_one, args=(args, envs), nprocs=len(envs))


def _one(number: int, args: argparse.Namespace, envs: list[str]) -> None:
    from erl_trainer.nano import pretrain, tokenizer

    recipe = pretrain.Recipe(
        env=envs[number], steps=args.steps, seed=args.seed, compiled=not args.no_compile
    )
    pretrain.pretrain(recipe, tokenizer.build(), args.out / envs[number])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m erl_trainer nano",
        description="Build the bundled models from scratch, and measure what they can do.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/nano"), help="folder; an unfinished one is gone on")
    add("--env", action="append", help="an environment's model; all unless given")
    add("--steps", type=int, default=8000)
    add("--seed", type=int, default=0)
    add("--no-compile", action="store_true", help="there is no C++ compiler")
    add("--check", type=Path, metavar="MODELS", help="only measure the models in this folder")
    add("--samples", type=int, default=4, help="attempts of a task")
    return parser
