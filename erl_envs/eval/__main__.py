"""`python -m erl_envs.eval`: measure a policy on the environments."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from erl_envs import policies, registry
from erl_envs.arguments import (
    INTERRUPTED,
    INVALID,
    OK,
    Parser,
    complain,
    interruptible,
    run_command,
    tell,
)
from erl_envs.eval.progress import show_progress
from erl_envs.eval.run import (
    REFLECTION_TEMPERATURE,
    REFLECTION_TOP_P,
    Config,
    Executor,
    Here,
    evaluate,
)
from erl_envs.eval.runfolder import RunFolder
from erl_envs.eval.table import print_run
from erl_envs.extras import missing_extra
from erl_envs.options import read_pair
from erl_envs.policies import Sampling, Thoughts, nano
from erl_envs.policies.openai import DEFAULT_URL
from erl_envs.task_files import strictly
from erl_envs.tasks import STRICT_HELP

ENVS, DEFAULT_POLICY = ("frozenlake", "sokoban", "hotpotqa"), "nano"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="python -m erl_envs.eval",
        description="Measure a policy on the environments and write a run folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--env", help=f"of {', '.join(registry.list_envs())}, by commas; by default ours")
    add(
        "--split",
        help="one of python -m erl_envs.tasks list (test; nano's small-test) or file:PATH",
    )
    add("--strict", action="store_true", help=STRICT_HELP)
    add("--policy", default=DEFAULT_POLICY, help=", ".join(policies.FORMS))
    add("--limit", type=_positive, help="first so many tasks of each environment")
    add("--samples", type=_positive, default=1, help="episodes a task")
    add("--attempts", type=int, choices=(1, 2), default=1, help="2 reflects on failed attempts")
    add("--reflector", help="policy that reflects; without it the policy itself")
    add(
        "--option",
        action="append",
        default=[],
        metavar="[ENV.]KEY=VALUE",
        help="environment option; the value is JSON or a plain word",
    )
    add("--seed", type=int, default=0, help="of every random stream of the run")
    add("--temperature", type=float, default=Sampling.temperature)
    add("--top-p", type=float, default=Sampling.top_p)
    add("--top-k", type=int, default=Sampling.top_k, help="0 keeps all")
    add("--max-tokens", type=int, default=Sampling.max_tokens, help="of one message")
    add("--base-url", default=DEFAULT_URL, help="server of openai: policies")
    add(
        "--extra-body",
        type=_json_object,
        metavar="JSON",
        help="what else requests to it hold, for options that it alone knows",
    )
    add(
        "--thoughts",
        choices=get_args(Thoughts),
        help="what becomes of earlier turns' thoughts; by default what the model's template does",
    )
    add(
        "--template",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for the policy's chat template, such as enable_thinking=false",
    )
    add("--tools", action="store_true", help="openai: policies get the environment's tools")
    add("--concurrency", type=_positive, default=64, help="most episodes at a time")
    add("--executor", choices=("local", "ray"), default="local", help="ray: a cluster's workers")
    add("--workers", type=_positive, help="how many of them; by default one a machine")
    add("--worker-gpus", type=float, default=0.0, help="graphics processors of each")
    add("--out", type=Path, help="run folder; by default runs/ and the time")
    add("--resume", action="store_true", help="go on with the run in --out")
    return parser


@interruptible()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        config = config_of(args)
        if args.resume and args.out is None:
            raise ValueError("--resume needs --out, the folder of the run to go on with")
        executor = _executor(args, config)
    except (ValueError, OSError) as error:
        return complain(error)
    folder = RunFolder(args.out or Path("runs") / datetime.now().strftime("%Y-%m-%d_%H%M%S"))
    console = Console(highlight=False, soft_wrap=True)
    try:
        with show_progress("episodes", bar=args.policy != "human") as progress:
            run = evaluate(config, executor, folder, args.resume, progress)
    except (ValueError, OSError) as error:
        return complain(error)
    except KeyboardInterrupt:
        print(f"interrupted; go on with --resume --out {folder.path}", file=sys.stderr)
        return INTERRUPTED
    finally:
        executor.close()
    print_run(run, console)
    console.print(f"run folder: {folder.path} (open report.html to read every transcript)")
    if invalid := run["counts"]["invalid"]:
        print(
            f"{invalid} of {run['counts']['episodes']} episodes are invalid and left out: "
            f'see "error" in episodes.jsonl; --resume plays them again',
            file=sys.stderr,
        )
        return INVALID
    return OK


def config_of(args: argparse.Namespace) -> Config:
    """The configuration of parsed arguments.

    Raises:
        ValueError: A value is bad; the message lists the valid ones.
    """
    is_nano = args.policy == nano.Nano.spec
    envs = [name for name in ENVS if not is_nano or name in nano.played()] or list(ENVS)
    if args.env is not None:
        envs = [name.strip() for name in args.env.split(",") if name.strip()]
    if not envs:
        raise ValueError(f"--env names no environment; valid: {', '.join(registry.list_envs())}")
    if len(set(envs)) < len(envs):
        raise ValueError(f"--env names an environment twice: {args.env}")
    split = args.split or (nano.SPLIT if is_nano else "test")
    return Config(
        envs=envs,
        split=strictly(split) if args.strict else split,
        options=_options(args.option, envs, nano.OPTIONS if is_nano else {}),
        limit=args.limit,
        samples=args.samples,
        attempts=args.attempts,
        seed=args.seed,
        sampling=Sampling(args.temperature, args.top_p, args.top_k, args.max_tokens),
        reflection_sampling=Sampling(
            REFLECTION_TEMPERATURE, REFLECTION_TOP_P, args.top_k, args.max_tokens
        ),
        concurrency=1 if args.policy == "human" else args.concurrency,
    )


def _options(
    pairs: Sequence[str], envs: Sequence[str], usual: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """`key=value` for every environment that has the option, `env.key=value` for one."""
    known = {name: {f.name for f in fields(registry.env_class(name).Options)} for name in envs}
    found = {name: dict(usual.get(name, {})) for name in envs}
    for pair in pairs:
        path, value = read_pair(pair)
        env, dot, key = path.rpartition(".")
        if dot and env not in found:
            raise ValueError(f"--option {pair!r} is for {env!r}; this run has {', '.join(envs)}")
        # one that nobody has goes to all, so that the first of them names the valid ones
        having = [name for name in envs if key in known[name]] or envs
        for name in [env] if dot else having:
            found[name][key] = value
    for name, options in found.items():
        registry.make(name, **options)  # raises now, before a model is loaded
    return found


def _executor(args: argparse.Namespace, config: Config) -> Executor:
    """Who plays the run, its policies loaded.

    Raises:
        ValueError: An argument does not fit, or a policy cannot be loaded, or one that should
            reflect cannot.
    """
    from erl_envs import tasks

    for name in config.envs:  # raises now, before a model is loaded
        tasks.load(name, config.split, **config.options[name])
    who = args.reflector or args.policy
    if config.attempts == 2 and who in ("random", "human"):
        raise ValueError(f"{who} writes no reflections; give --reflector one of the models")
    if config.attempts == 1 and args.reflector:
        raise ValueError("--reflector needs --attempts 2")
    if args.extra_body and not any(spec.startswith("openai:") for spec in (args.policy, who)):
        raise ValueError("--extra-body is for openai: policies")
    served = {
        "base_url": args.base_url,
        "concurrency": args.concurrency,
        "extra_body": args.extra_body,
    }
    actor = partial(
        policies.load,
        args.policy,
        tools=args.tools,
        thoughts=args.thoughts,
        template=dict(map(read_pair, args.template)),
        **served,
    )
    reflector = (
        None
        if args.reflector in (None, args.policy)
        else partial(policies.load, args.reflector, **served)
    )
    if args.executor == "local":
        if args.workers or args.worker_gpus:
            raise ValueError("--workers and --worker-gpus need --executor ray")
        return Here(config, actor(), reflector() if reflector else None)
    if "human" in (args.policy, args.reflector):
        raise ValueError("human sits at this machine; --executor ray plays on others")
    try:
        from erl_envs.eval.executor_ray import RayExecutor
    except ImportError as error:
        raise missing_extra("workers on a cluster", "ray", error) from error
    return RayExecutor(config, actor, reflector, args.workers, args.worker_gpus, tell)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {text[:60]}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


if __name__ == "__main__":
    run_command(main)
