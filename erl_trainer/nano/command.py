"""`python -m erl_trainer nano`: build the bundled models from a seed, and measure their skills."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from erl_envs.arguments import FAILED, OK, Parser, complain
from erl_envs.core import digest
from erl_envs.files import write_whole
from erl_envs.locks import hold
from erl_envs.output import protect
from erl_trainer.nano.recipe import OWN, Recipe


def main(argv: list[str]) -> int:
    """The command; the exit status: 1 where a gate is not passed.

    Raises:
        ValueError: An environment or a folder is not usable.
    """
    from erl_envs.policies.nano import load_model
    from erl_trainer.nano import gates

    args = _parser().parse_args(argv)
    envs = args.env or list(gates.TOLD)
    if unknown := sorted(set(envs) - set(gates.TOLD)):
        raise ValueError(f"nano plays {', '.join(gates.TOLD)}; not {unknown[0]}")
    if args.check is None and (code := _build(args, envs)) != OK:
        return code
    folders = [args.check / env if args.check else args.out / env / "model" for env in envs]
    found = []
    for env, folder in zip(envs, folders, strict=True):
        with nullcontext() if args.check else hold(args.out / env):
            found.append(gates.measure(load_model(folder), env, args.samples))
            if args.check is None:
                skills = json.dumps(dataclasses.asdict(found[-1]), indent=1) + "\n"
                write_whole(folder / "skills.json", skills)
    print(gates.table(found))
    if args.ship:
        ship(folders, envs, args.ship)
    return FAILED if any(skill.failed() for skill in found) else OK


def _build(args: argparse.Namespace, envs: list[str]) -> int:
    """Pre-train a model for each environment, each in a process of its own; the exit status."""
    import torch.multiprocessing as processes

    from erl_trainer.nano import pretrain

    for env in envs:
        with hold(args.out / env):
            pretrain.check_folder(_recipe(args, env), args.out / env)
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"pre-training {', '.join(envs)}, a core each; the same command goes on where it stopped"
    )
    try:
        processes.spawn(_one, args=(args, envs), nprocs=len(envs))
    except processes.ProcessExitedException as end:  # it has said why, unless it was killed
        if end.signal_name:
            complain(f"a process that pre-trains was ended by {end.signal_name}")
        return FAILED if end.signal_name else end.exit_code
    return OK


def _one(number: int, args: argparse.Namespace, envs: list[str]) -> None:
    from erl_trainer.nano import pretrain, tokenizer

    protect()
    env = envs[number]
    words = tokenizer.build(by_twos=env == "hotpotqa")
    try:
        # not the parent: where that is killed, this goes on for a moment
        with hold(args.out / env):
            pretrain.pretrain(_recipe(args, env), words, args.out / env)
    except (ValueError, OSError) as error:
        raise SystemExit(complain(error)) from error


def _recipe(args: argparse.Namespace, env: str) -> Recipe:
    own = {**OWN[env], **({} if args.steps is None else {"steps": args.steps})}
    return Recipe(env=env, seed=args.seed, compiled=not args.no_compile, **own)


def ship(models: Sequence[Path], envs: Sequence[str], out: Path) -> None:
    """Copy models to where the nano policy finds them, in bfloat16, with a revision of their own.

    Args:
        models: Folders.
        envs: What each plays.
        out: `erl_envs/models/nano`.
    """
    import torch

    from erl_envs.policies.transformers import load, weights_hash
    from erl_trainer.checkpoint import save_model

    with hold(out):
        for folder, env in zip(models, envs, strict=True):
            model, tokenizer = load(str(folder))
            skills = (folder / "skills.json").read_text(encoding="utf-8")
            save_model(model.to(torch.bfloat16), tokenizer, out / env)
            write_whole(out / env / "skills.json", skills)
        made = sorted(out.glob("*/config.json"))
        revision = digest([weights_hash(load(str(path.parent))[0]) for path in made])[:16]
        write_whole(out / "revision", revision + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m erl_trainer nano",
        description="Build the bundled models from scratch, and measure what they can do.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/nano"), help="folder; an unfinished one is gone on")
    add("--env", action="append", help="an environment's model; all unless given")
    add("--steps", type=int, help="other than the environment's own")
    add("--seed", type=int, default=0)
    add("--no-compile", action="store_true", help="there is no C++ compiler")
    add("--check", type=Path, metavar="MODELS", help="only measure the models in this folder")
    add("--ship", type=Path, metavar="FOLDER", help="copy the models there, in bfloat16")
    add("--samples", type=int, default=4, help="attempts of a task")
    return parser
