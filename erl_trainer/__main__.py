"""`python -m erl_trainer train | curves | nano | sft`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from rich.console import Console

from erl_envs.arguments import INTERRUPTED, OK, Parser, complain, run_command
from erl_envs.eval.progress import show_progress
from erl_envs.files import read_json
from erl_envs.options import read_pair
from erl_trainer.config import Config, configure

COMMANDS = "train, curves, nano, sft"

_GOES_ON = {
    "train": "; the same command with --resume goes on",
    "nano": "; the same command goes on where it was",
    "sft": "; nothing is kept",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "curves": _curves,
        "nano": _nano,
        "sft": _sft,
    }
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print(f"usage: python -m erl_trainer COMMAND …   commands: {COMMANDS}")
        return OK
    if arguments[0] not in commands:
        return complain(f"no command {arguments[0]!r}; valid: {COMMANDS}")
    try:
        return commands[arguments[0]](arguments[1:])
    except (ValueError, OSError) as error:
        return complain(error)
    except KeyboardInterrupt:
        print(f"stopped{_GOES_ON.get(arguments[0], '')}", file=sys.stderr)
        return INTERRUPTED


def _train(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m erl_trainer train",
        description="Train a model with ERL or GRPO.",
        epilog=_options(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--algo", choices=["erl", "grpo"], help="erl unless the file says")
    parser.add_argument("--preset", choices=["default", "paper"])
    parser.add_argument("--config", type=Path, help="JSON file of algo, preset and fields")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the folder, as its config.json says",
    )
    parser.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the environment",
    )
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for the model's chat template, such as enable_thinking=false",
    )
    args, rest = parser.parse_known_args(argv)
    held = args.out / "config.json"
    path = args.config or (held if args.resume and held.exists() else None)
    fields = {**(_read(path) if path else {}), **_fields(rest)}
    named = {"algo": fields.pop("algo", "erl"), "preset": fields.pop("preset", "default")}
    algo, preset = args.algo or named["algo"], args.preset or named["preset"]
    for name, pairs in (("env_options", args.option), ("template", args.template)):
        if pairs:
            fields[name] = {**fields.get(name, {}), **dict(map(read_pair, pairs))}
    config = configure(preset, algo, **fields)
    from erl_trainer.launch import start

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with show_progress("steps") as progress:
        names = {"algo": algo, "preset": preset}
        return start(config, names, args.out, args.resume, console.print, progress)


def _options() -> str:
    """The configuration's fields as options: each with its default, and what its docstring says."""
    attributes = (Config.__doc__ or "").partition("Attributes:\n")[2]
    told = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", attributes, re.MULTILINE)
    defaults = dataclasses.asdict(Config())
    lines = ["fields of the configuration, as options:"]
    for name, text in told:
        lines.append(f"  --{name.replace('_', '-')} ({json.dumps(defaults[name])})")
        words = " ".join(text.split())
        lines += textwrap.wrap(words, 92, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object of algo, preset and fields")
    return found


def _fields(rest: Sequence[str]) -> dict[str, Any]:
    """`--group-size 4` → {"group_size": 4}, by the field's type."""
    hints = get_type_hints(Config)
    found: dict[str, Any] = {}
    words = iter(rest)
    for word in words:
        name, has_value, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--") or name not in hints:
            raise ValueError(f"unknown option {word!r}; valid: {', '.join(sorted(hints))}")
        if not has_value:
            try:
                value = next(words)
            except StopIteration:
                raise ValueError(f"--{name.replace('_', '-')} needs a value") from None
        found[name] = value if hints[name] is str else _value(value)
        if get_origin(hints[name]) is tuple and isinstance(found[name], str):
            found[name] = tuple(filter(None, value.split(",")))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _curves(argv: list[str]) -> int:
    from erl_trainer import curves

    return curves.main(argv)


def _nano(argv: list[str]) -> int:
    from erl_trainer import nano

    return nano.main(argv)


def _sft(argv: list[str]) -> int:
    from erl_trainer import sft

    return sft.main(argv)


if __name__ == "__main__":
    run_command(main)
