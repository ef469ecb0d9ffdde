"""From a configuration to a run: the model, the folder, the checkpoint, one process or several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from erl_envs.arguments import FAILED, OK, tell
from erl_envs.files import WriteError, read_json, write_whole
from erl_envs.policies import PolicyError, nano
from erl_envs.policies.local import context_length
from erl_envs.policies.transformers import load as load_model
from erl_envs.policies.transformers import revision
from erl_envs.secrets import redact_json
from erl_trainer import checkpoint
from erl_trainer.config import BEFORE, FREE, Config, to_json
from erl_trainer.context import check_context, needed_context
from erl_trainer.metrics import check_loggers, read_lines
from erl_trainer.origin import ORIGIN, check_origin, origin
from erl_trainer.processes import failing_together, holding, is_first, join
from erl_trainer.sync import StaleSampler
from erl_trainer.train import STOPS, Run, train
from erl_trainer.types import DONE, STOPPED


def start(
    config: Config,
    names: Mapping[str, str],
    out: Path,
    resume: bool,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> int:
    """Train in a folder, a new one or (with `resume`) one that holds the same run.

    Args:
        config: Of the run.
        names: The algorithm's and the preset's, for the folder.
        out: The folder.
        resume: Whether to go on with a run.
        say: Tells a person a line.
        progress: Tells (steps done, steps in all).

    Returns:
        The exit status: 0, or 1 where the run had to stop.

    Raises:
        ValueError: The configuration, the folder or a checkpoint is not usable; one line.
        InUse: Another run's process writes the folder.
        WriteError: The folder cannot be written; what it holds can be gone on with.
    """
    join()  # whoever was launched with this one is known from here on
    if not is_first():
        say = progress = _say_nothing
    with holding(out):
        return _start(config, names, out, resume, say, progress)


def _start(
    config: Config,
    names: Mapping[str, str],
    out: Path,
    resume: bool,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> int:
    written = redact_json(json.loads(json.dumps({**names, **to_json(config)})))
    check_folder(written, out, resume)
    check_loggers(config.loggers)
    found = held_checkpoint(out) if resume else None
    state = None if found is None else checkpoint.load(found)
    model, tokenizer = load_model(
        str(nano.folder(config.env)) if config.model == "nano" else config.model
    )
    made_of = origin(config, revision(model))
    check_origin(made_of, out)
    needed = needed_context(config, tokenizer)
    check_context(config, context_length(model), needed)
    try:
        run = Run(config, model.to(getattr(torch, config.dtype)), tokenizer, out)
    except (PolicyError, StaleSampler) as failure:
        raise ValueError(f"cannot sample with backend {config.backend}: {failure}") from failure
    try:
        check_context(config, run.sampler.policy.context, needed)
        with failing_together(WriteError):
            if is_first():  # nothing is written before all of the above is known to work
                write_whole(out / ORIGIN, json.dumps(made_of, indent=1) + "\n")
                write_whole(out / "config.json", json.dumps(written, indent=1) + "\n")
        if state is not None:
            run.load(state)
            say(f"going on from step {run.step}")
        train(run, say, progress)
    except tuple(STOPS) as failure:
        if is_first():
            reason = next(STOPS[kind] for kind in STOPS if isinstance(failure, kind))
            done = {"reason": reason, "step": run.step, "message": str(failure)}
            write_whole(out / STOPPED, json.dumps(done) + "\n")
            saved = checkpoint.latest(out / "checkpoints")
            goes_on = f"from {saved}" if saved else "from the beginning"
            tell(f"stopped at step {run.step}: {failure}; --resume goes on {goes_on}")
        return FAILED
    finally:
        run.sampler.policy.close()
    return OK


def _say_nothing(*_: Any) -> None:
    """What the processes but the first tell a person."""


def held_checkpoint(out: Path) -> Path | None:
    """The latest checkpoint of a run's folder, None where it has not come to its first.

    Raises:
        ValueError: It had one, which is gone.
    """
    found = checkpoint.latest(out / "checkpoints")
    if found is None and (out / "config.json").exists():
        held = read_json(out / "config.json")
        done = max((line["step"] for line in read_lines(out / "metrics.jsonl")), default=0)
        # a step's line is written before its checkpoint: one step may be ahead
        if done > held["checkpoint_every"] or (out / DONE).exists():
            raise ValueError(f"{out} holds {done} steps but no checkpoint; give another --out")
    return found


def check_folder(written: Mapping[str, Any], out: Path, resume: bool) -> None:
    """Compare a configuration with the one that a folder holds.

    Raises:
        ValueError: The folder holds a run and `resume` is not given, or it is another run.
    """
    path = out / "config.json"
    if path.exists():
        if not resume:
            raise ValueError(f"{out} holds a run; go on with it by --resume, or give another --out")
        # a field that is younger than the run was what its default is, or what runs did before it
        held = redact_json({**to_json(Config()), **BEFORE, **read_json(path)})
        free = {"steps", *FREE}  # more steps are the same run
        for name in sorted(set(written) - free):
            if held.get(name) != written[name]:
                values = f"{held.get(name)!r}, not {written[name]!r}"
                raise ValueError(
                    f"{out} holds a run with another {name} ({values}); give another --out"
                )
