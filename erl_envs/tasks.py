"""Task sets: `load(env, split)`, their content hashes, and what is known of them.

`python -m erl_envs.tasks list`, `describe ENV SPLIT`, `export ENV SPLIT [OUT]`.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape

from erl_envs import registry
from erl_envs.arguments import OK, Parser, complain, run_command
from erl_envs.core import EnvError, Reference, Task, TextEnv, canonical_json, digest
from erl_envs.files import write_whole
from erl_envs.options import build, read_pair
from erl_envs.output import check_printed
from erl_envs.retrieval.base import RetrievalError
from erl_envs.task_files import Entry, TaskFile, strictly

STRICT_HELP = "stop at what is no task in a file:PATH (the same as strict-file:PATH)"

SHOWN = 10
"""Of a file's entries that are told one by one."""


class TaskSet(NamedTuple):
    """A split's tasks; of a file's, what was left out, and which of the kept have a problem."""

    tasks: tuple[Task, ...]
    left_out: tuple[Entry, ...] = ()
    doubtful: tuple[Entry, ...] = ()


def splits(env: str, **options: Any) -> list[str]:
    """Names of an environment's task sets.

    Raises:
        ValueError: There is no such environment, or a bad option.
    """
    return list(_splits(env, options))


def load(env: str, split: str, **options: Any) -> tuple[Task, ...]:
    """A task set, the same in every process; what data holds twice is one task.

    Args:
        env: Environment id.
        split: One of `splits(env, **options)`; with `@SALT` behind it, other tasks of the same
            distribution, which nobody has seen who does not know the salt. Or `file:PATH`: the
            tasks of a file, of which those that are none are left out; `strict-file:PATH` raises.
        **options: The environment's; those that say where its data comes from matter here.

    Raises:
        ValueError: There is no such environment or split, the message lists those there are; or
            the file cannot be read, or holds no task.
    """
    return load_set(env, split, **options).tasks


def load_set(env: str, split: str, **options: Any) -> TaskSet:
    """A task set as `load` gives it, and what is to be said of the file that it came from.

    Raises:
        ValueError: As `load` does.
    """
    file = TaskFile.of(split)
    return _load(env, split, canonical_json(options), file and file.stamp())


@functools.lru_cache(maxsize=64)  # salts have no end
def _load(env: str, split: str, options: str, stamp: tuple[int, ...] | None) -> TaskSet:
    """Args: stamp: Of a file, which is read again when it has changed."""
    if file := TaskFile.of(split):
        return _read(env, split, file, json.loads(options))
    found = _splits(env, json.loads(options))
    name, at, salt = split.partition("@")
    if name not in found or (at and not salt):
        raise ValueError(
            f"{env} has no split {split!r}; valid: {', '.join(found)}, a salted one: test@SALT, "
            "or file:PATH"
        )
    return TaskSet(_once(Task(env, params, split) for params in found[name](salt)))


def _read(env: str, split: str, file: TaskFile, options: Mapping[str, Any]) -> TaskSet:
    cls = registry.env_class(env)
    entries = cls.read_tasks(file.text(cls.max_file), build(cls.Options, env, options))
    found = file.sort(entries, f"{env} tasks")
    drawn = (Task(env, entry.params, split) for entry in found.kept if entry.params is not None)
    return TaskSet(_once(drawn), found.left_out, found.doubtful)


def _once(drawn: Iterable[Task]) -> tuple[Task, ...]:
    return tuple({task.id: task for task in drawn}.values())


def _splits(env: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    cls = registry.env_class(env)
    return cls.splits(build(cls.Options, env, options))


def split_hash(tasks: Sequence[Task]) -> str:
    """Content hash of a task set: its tasks in order, without the split's name."""
    return digest([[task.env, task.params] for task in tasks])


def references(env: TextEnv, tasks: Sequence[Task]) -> list[Reference | None]:
    """What is known of each task under the environment's options; None where its search gave up.

    A retriever that fails is not asked again: its tasks could take half a minute each.
    """
    found: list[Reference | None] = []
    for task in tasks:
        try:
            env.reset(seed=0, options={"task": task})
            found.append(env.reference())
        except RetrievalError:
            break
        except EnvError:
            found.append(None)
    return [*found, *[None] * (len(tasks) - len(found))]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None if a value is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def describe(name: str, split: str, **options: Any) -> dict[str, Any]:
    """Counts, difficulty, exact random reward, ceiling and hash of a task set.

    Raises:
        ValueError: A bad environment, split or option.
    """
    tasks, left_out, doubtful = load_set(name, split, **options)
    env = registry.make(name, **options)
    found = references(env, tasks)
    known = [reference for reference in found if reference is not None]
    difficulty = Counter(reference.difficulty for reference in known)
    return {
        "env": name,
        "split": split,
        "tasks": len(tasks),
        "hash": split_hash(tasks),
        "left_out": [f"{entry.place}: {entry.problem}" for entry in left_out],
        "doubtful": [f"{entry.place}: {entry.problem}" for entry in doubtful],
        "unsolvable": difficulty.pop(None, 0),
        "unknown": len(found) - len(known),
        "difficulty": dict(sorted(difficulty.items())),
        "random": mean([reference.random for reference in known]),
        "ceiling": mean([reference.ceiling for reference in known]),
        "more": env.more_facts(tasks),
    }


def _print_description(facts: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{facts['env']} {escape(facts['split'])}[/]: {facts['tasks']} tasks")
    console.print(f"hash            {facts['hash']}")
    for what in ("left_out", "doubtful"):
        if lines := facts[what]:
            console.print(f"{what.replace('_', ' '):<15} {len(lines)}")
            for line in [*lines[:SHOWN], *(["…"] if len(lines) > SHOWN else [])]:
                console.print(f"                {line}", markup=False)
    console.print(f"random policy   {_number(facts['random'])} (exact expected reward)")
    console.print(f"ceiling         {_number(facts['ceiling'])}")
    console.print(f"not solvable    {facts['unsolvable']} within their turns")
    if facts["unknown"]:
        console.print(f"unknown         {facts['unknown']}: the solver reached its bound")
    for fact, value in facts["more"].items():
        console.print(f"{fact:<15} {value}")
    console.print("turns of a shortest solution:")
    most = max(facts["difficulty"].values(), default=1)
    for turns, count in facts["difficulty"].items():
        console.print(f"{turns:>4}  {'█' * round(40 * count / most) or '▏'} {count}")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.5f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(prog="python -m erl_envs.tasks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="environments and their splits")
    for name, text in (
        ("describe", "what is known of a task set"),
        ("export", "its tasks as JSON lines, which --split file:OUT reads"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("env")
        command.add_argument("split", help="one of `list`, or file:PATH")
        if name == "export":
            command.add_argument("out", type=Path, nargs="?", help="by default standard output")
        command.add_argument("--strict", action="store_true", help=STRICT_HELP)
        command.add_argument(
            "--option", action="append", default=[], metavar="KEY=VALUE", help="of the environment"
        )
    args = parser.parse_args(argv)
    try:
        if args.command == "list":
            for env in registry.list_envs():
                print(env, *splits(env))
        elif args.command == "describe":
            _print_description(describe(args.env, _split(args), **_options(args)))
        else:
            found = load(args.env, _split(args), **_options(args))
            lines = "".join(json.dumps(task.to_json()) + "\n" for task in found)
            if args.out is None:
                print(lines, end="")
            else:
                write_whole(args.out, lines)
        check_printed()
    except (ValueError, EnvError, OSError) as error:
        return complain(error)
    return OK


def _split(args: argparse.Namespace) -> str:
    return strictly(args.split) if args.strict else str(args.split)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return dict(read_pair(pair) for pair in args.option)


if __name__ == "__main__":
    run_command(main)
