"""`python -m erl_trainer sft`: learn a run's successes under the original prompt.

The run may be the oracle's (a cold start), or a deployed model's with two attempts: what it got
right after reflection is internalized, and the better model is served again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console

from erl_envs.arguments import Parser
from erl_envs.core import Episode, Message, Task, Tokens
from erl_envs.eval.progress import show_progress
from erl_envs.files import WriteError, is_unused, write_whole
from erl_envs.options import read_pair
from erl_envs.policies import nano
from erl_envs.policies.base import Conversation, Thoughts
from erl_envs.policies.chat import ChatTokens
from erl_envs.policies.transformers import Transformers, load
from erl_envs.records import read_episodes
from erl_trainer.batching import pad_id
from erl_trainer.checkpoint import save_model
from erl_trainer.config import DTYPES, Config
from erl_trainer.learner import Learner
from erl_trainer.metrics import Log
from erl_trainer.processes import failing_together, holding, is_first, join
from erl_trainer.types import NotFinite, Sample, Stage

CONFIG, METRICS = "config.json", "metrics.jsonl"
"""Files of a new model's folder, beside `model/`."""

Record = Callable[[Mapping[str, float], int], None]
"""Called with an update's metrics, and how many updates there will be."""


def main(argv: list[str]) -> int:
    """The command; the exit status.

    Raises:
        ValueError: A run, a model or a folder is not usable, or no episode succeeded.
        InUse: Another process writes the folder.
        WriteError: The folder cannot be written; nothing is kept.
    """
    args = _parser().parse_args(argv)
    join()  # whoever was launched with this one is known from here on
    for name in ("epochs", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    with holding(args.out):
        return _learn(args)


def _learn(args: argparse.Namespace) -> int:
    import torch

    if not is_unused(args.out, besides=(CONFIG, METRICS)):  # these alone are what a kill leaves
        raise ValueError(f"{args.out} is not empty; give another --out")
    episodes = [e for run in args.runs for e in read_episodes(run / "episodes.jsonl")]
    envs = sorted({episode.task.env for episode in episodes})
    if args.model == "nano" and len(envs) > 1:
        raise ValueError(f"nano has a model for each of {', '.join(envs)}: give runs of one")
    config = Config(
        lr=args.lr, seed=args.seed, lora_rank=args.lora_rank, warmup=args.warmup, dtype=args.dtype
    )
    name = str(nano.folder(envs[0])) if args.model == "nano" else args.model
    model, tokenizer = load(name)
    policy = Transformers(
        name,
        model.to(getattr(torch, config.dtype)),
        tokenizer,
        thoughts=args.thoughts,
        template=dict(map(read_pair, args.template)),
    )
    samples = [s for episode in episodes for s in corrected(episode, args.threshold, policy.chat)]
    if args.reflections != "none":
        least = args.threshold if args.reflections == "successful" else 0.0
        samples += [s for episode in episodes for s in reflected(episode, least, policy.chat)]
    if not samples:
        raise ValueError(
            f"no attempt in {', '.join(map(str, args.runs))} earned {args.threshold:g}"
        )
    too_long = [s for s in samples if len(s.ids) > policy.context]
    if too_long:
        longest = max(len(s.ids) for s in too_long)
        raise ValueError(f"an attempt has {longest} tokens; {args.model} reads {policy.context}")
    learner = Learner(policy.model, config, pad_id(policy.tokenizer))
    try:
        with _record(args) as record:
            fit(learner, samples, args.epochs, args.batch, args.seed, record)
            with failing_together(WriteError):
                save_model(learner.model, policy.tokenizer, args.out / "model")
    except NotFinite as failure:
        raise ValueError(f"{failure}: lower --lr; nothing is kept") from failure
    if is_first():
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"{len(samples)} samples learnt; the model is in {args.out / 'model'}"
        )
    return 0


@contextmanager
def _record(args: argparse.Namespace) -> Iterator[Record]:
    """What writes into the new model's folder: the first process. A fault removes the folder."""
    log: Log | None = None
    try:
        with failing_together(WriteError):
            if is_first():
                told = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
                told["runs"] = [str(run) for run in args.runs]
                write_whole(args.out / CONFIG, json.dumps(told, indent=1) + "\n")
                log = Log(args.out / METRICS, 0)
        with show_progress("updates", bar=is_first()) as progress:

            def record(line: Mapping[str, float], updates: int) -> None:
                with failing_together(WriteError):
                    if log:
                        log.write(line)
                        progress(int(line["step"]), updates)

            yield record
    except BaseException:  # there is no going on from a part
        if is_first():
            shutil.rmtree(args.out, ignore_errors=True)
        raise
    finally:
        if log:
            log.close()


def corrected(episode: Episode, threshold: float, chat: ChatTokens) -> Iterator[Sample]:
    """The first of an episode's attempts that succeeded, under the first attempt's prompt."""
    for attempt in episode.attempts:
        if attempt.valid and attempt.reward >= threshold:
            system = episode.attempts[0].messages[0]
            told = [system, *attempt.messages[1:]]
            yield from _imitated(Stage.DISTILL, episode.task, told, attempt.reward, chat)
            return


def reflected(episode: Episode, least: float, chat: ChatTokens) -> Iterator[Sample]:
    """An episode's reflection, if it has a rulebook whose second attempt earned `least`."""
    reflection = episode.reflection
    if reflection is None or reflection.rulebook is None or len(episode.attempts) < 2:
        return
    second = episode.attempts[1]
    if second.valid and second.reward >= least:
        yield from _imitated(Stage.REFLECTION, episode.task, reflection.messages, 1.0, chat)


def _imitated(
    stage: Stage, task: Task, messages: Sequence[Message], weight: float, chat: ChatTokens
) -> list[Sample]:
    parts = encode(messages, chat)
    return [
        Sample(
            stage=stage,
            task=task.id,
            kind="imitate",
            ids=part.ids,
            sampled=part.sampled,
            logprobs=part.logprobs,
            reward=weight,
            advantage=weight,
            share=1 / len(parts),
        )
        for part in parts
    ]


def encode(messages: Sequence[Message], chat: ChatTokens) -> Sequence[Tokens]:
    """The stretches of a conversation as a policy would have sampled it, ends of turns included.

    The environment's last answer, which nobody answers, is left out.
    """
    conversation = Conversation([], ("", "", 0, ""), 0)
    for message in messages:
        if message["role"] == "assistant":
            chat.tell(conversation)
            ids = chat.answer_ids(message["content"])
            conversation.add_sampled(ids, [0.0] * len(ids))
        conversation.messages.append(message)
    return conversation.tokens()


def fit(
    learner: Learner, samples: Sequence[Sample], epochs: int, batch: int, seed: int, record: Record
) -> None:
    """Learn the samples some times over, each time in a new random order."""
    updates = -(-len(samples) // batch) * epochs
    done = 0
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(samples))
        for start in range(0, len(samples), batch):
            found = learner.update([samples[i] for i in order[start : start + batch]])
            done += 1
            record({"step": done, "epoch": epoch, **found}, updates)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m erl_trainer sft",
        description="Learn a run's successful attempts under the original prompt.",
    )
    add = parser.add_argument
    add("--from", dest="runs", type=Path, action="append", required=True, help="a run folder")
    add("--model", default="nano", help="nano, a folder or a hub id")
    add("--out", type=Path, required=True, help="folder of the new model")
    add("--threshold", type=float, default=1.0, help="least reward of an attempt that is learnt")
    add(
        "--reflections",
        choices=("none", "successful", "all"),
        default="none",
        help="which rulebooks to learn too: none, those that helped, or all (an oracle's)",
    )
    add("--thoughts", choices=get_args(Thoughts), help="of earlier turns: as in evaluation")
    add("--template", action="append", default=[], metavar="KEY=VALUE", help="likewise")
    add("--epochs", type=int, default=3)
    add("--batch", type=int, default=32, help="attempts of an optimizer update")
    add("--lr", type=float, default=1e-4)
    add("--warmup", type=int, default=0, help="updates")
    add("--lora-rank", type=int, default=0, help="0 trains every weight")
    add("--dtype", choices=DTYPES, default=Config.dtype, help="of the weights, trained and saved")
    add("--seed", type=int, default=0)
    return parser
