"""A training run, from its configuration to its folder.

The folder holds `config.json`, `origin.json`, `metrics.jsonl`, `samples.jsonl`, checkpoints,
`model/` (what any policy loads) and, once it has ended, `done.json`. Everything that step k draws
is a function of the seed and k, so a resumed run is the same run.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from erl_envs import policies, tasks
from erl_envs.core import Task, digest
from erl_envs.files import WriteError, write_whole
from erl_envs.policies.base import PolicyError, Sampling
from erl_envs.rollout import EnvPool, Job, Player
from erl_trainer import checkpoint
from erl_trainer.actor import Actor, Team, players
from erl_trainer.batching import pad_id
from erl_trainer.config import Config
from erl_trainer.erl import Step, collect
from erl_trainer.failures import TooManyFailures, check_failures, reasons
from erl_trainer.learner import Learner, merge
from erl_trainer.memory import load_memory
from erl_trainer.metrics import Writer, describe, mean
from erl_trainer.processes import failing_together, gather, is_first
from erl_trainer.sync import StaleSampler, load_sampler, verify
from erl_trainer.types import (
    DONE,
    BrokenWeights,
    NotFinite,
    Stage,
    StopReason,
    task_names,
)

EVALUATION = Sampling(temperature=0.7, top_p=0.8, top_k=20)
"""How evaluation samples (PAPER: Training)."""

TIMES = {
    Stage.ATTEMPT_1: "time/rollout",
    Stage.REFLECTION: "time/reflection",
    Stage.ATTEMPT_2: "time/second_rollout",
}


def stream(*parts: Any) -> int:
    """The seed of a random stream that these parts name."""
    return int(digest(list(parts))[:12], 16)


def batch(all_tasks: Sequence[Task], step: int, size: int, seed: int) -> list[Task]:
    """The tasks of a step: each time through all of them in a new random order."""
    count = len(all_tasks)
    epochs = range(step * size // count, ((step + 1) * size - 1) // count + 1)
    orders = [np.random.default_rng([seed, epoch]).permutation(count) for epoch in epochs]
    start = step * size - epochs[0] * count
    return [all_tasks[int(i)] for i in np.concatenate(orders)[start : start + size]]


class Run:
    """A run under way.

    Attributes:
        step: Steps done.
        saved: Of the latest checkpoint; None before there is one.
        line: Metrics of the latest step while its evaluation is due; None once they are written.
        totals: Sampled and learnt tokens, optimizer updates and seconds so far.
    """

    def __init__(self, config: Config, model: Any, tokenizer: Any, folder: Path) -> None:
        """Get everything ready; nothing is played or written yet.

        Raises:
            ValueError: The configuration does not fit the environment or the model; one line.
        """
        self.config, self.tokenizer, self.folder = config, tokenizer, folder
        options = {config.env: config.options}
        self.train_tasks = tasks.load(config.env, config.train_split, **config.options)
        held_out = tasks.load(config.env, config.eval_split, **config.options)
        self.eval_tasks = held_out[: config.eval_tasks or None]
        self.learner = Learner(model, config, pad_id(tokenizer))
        self.sampler = load_sampler(
            config, self.learner.model, tokenizer, folder, self.learner.log_probs
        )
        self.memory = load_memory(config.memory)
        pool = EnvPool(options)
        reflector = (
            self.sampler.policy
            if config.reflector == "policy"
            else policies.load(config.reflector, config.reflector_url)
        )
        judged = replace(EVALUATION, max_tokens=config.max_tokens)
        who = players(config, self.sampler.policy, reflector)
        self.actor = Actor(pool, who, config.concurrency)
        self.judge = Actor(pool, {"actor": Player(self.sampler.policy, judged)}, config.concurrency)
        self.step = 0
        self.saved: int | None = None
        self.line: dict[str, float] | None = {}  # before step 1 an evaluation is due
        self.totals: defaultdict[str, float] = defaultdict(float)

    def save(self) -> None:
        """Write a checkpoint; every process must call it, and the first one writes."""
        state = {
            "learner": self.learner.state_dict(),
            "memory": self.memory.state(),
            "totals": dict(self.totals),
            "line": self.line,
        }
        checkpoint.save(self.folder / "checkpoints", self.step, state)
        self.saved = self.step

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            RuntimeError: One of `STOPS`: the sampler did not take its weights.
        """
        self.learner.load_state_dict(state["learner"])
        self.memory.load(state["memory"])
        self.totals.update(state["totals"])
        self.step = self.saved = state["step"]
        self.line = state["line"]
        self._sync()

    def _sync(self) -> float:
        """The sampler gets the weights; how far it lies from the trainer then (`verify`)."""
        self.sampler.sync(self.learner.model)
        return verify(self.sampler, self.learner.model, self.learner.log_probs)

    def evaluate(self) -> dict[str, float]:
        """The paper's protocol: first attempts, the initial prompt, n samples of each task.

        Raises:
            TooManyFailures: Of its attempts.
        """
        seed = stream("evaluation", self.config.seed, self.step)
        jobs = [
            Job(task, n, seed) for task in self.eval_tasks for n in range(self.config.eval_samples)
        ]
        attempts = Team(self.judge).attempt(jobs, Stage.ATTEMPT_1)
        seconds, _, _ = self.judge.take_costs()
        where, allowed = f"the evaluation after step {self.step}", self.config.max_failures
        check_failures(f"attempts of {where}", reasons(attempts), len(attempts), allowed)
        reward = mean(a.reward for a in attempts if a.valid)
        found = {"time/evaluation": sum(seconds.values())}
        return found if reward is None else {"eval/reward": reward, **found}

    def train_step(self) -> Step:
        """Collect, learn, remember, synchronise; `line` then tells how it went.

        Raises:
            NotFinite: A loss or gradient is not.
            BrokenWeights: What the model says after the update is not.
            TooManyFailures: Of the step's attempts and reflections.
            StaleSampler: The sampler did not take the new weights; the step is done all the same.
            PolicyError: It does not answer.
        """
        cfg = self.config
        chosen = batch(self.train_tasks, self.step, cfg.tasks_per_step, cfg.seed)
        seed = stream("training", cfg.seed, self.step)
        # every process collects the whole step: credit and memory are as one process has them
        collected = collect(chosen, Team(self.actor), self.memory, cfg, seed)
        seconds, sampled, failures = self.actor.take_costs()
        played = [a for t in collected.trials for a in (t.first, t.second) if a is not None]
        failed, where = reasons(played), f"step {self.step + 1}"
        check_failures(f"attempts of {where}", failed, len(played), cfg.max_failures)
        unwritten, written = gather(failures), [t for t in collected.trials if t.reflection]
        count = len(written) + len(unwritten)
        check_failures(f"reflections of {where}", unwritten, count, cfg.max_failures)
        began = time.perf_counter()
        learnt = merge(
            self.learner.update([s for s in collected.samples if s.update == number])
            for number in sorted({s.update for s in collected.samples})
        )
        self.totals["tokens/trained"] += learnt.pop("tokens", 0.0)
        self.totals["updates"] += learnt.pop("updates", 0.0)
        self.totals["tokens/sampled"] += sum(gather([sum(sampled.values())]))
        self.memory.store(collected.lessons)
        self.step += 1
        rewards = describe(collected.trials)
        credit = collected.credit
        self.line = {
            **{k: v for k, v in rewards.items() if v is not None},
            **learnt,
            **{TIMES[Stage(stage)]: value for stage, value in seconds.items()},
            "train/failures": float(len(failed) + len(unwritten)),
            "groups": credit.groups,
            "groups/flat": credit.flat,
            "groups/small": credit.small,
        }
        try:
            self.line["sync_gap"] = self._sync()
        except NotFinite as fault:
            told = task_names([s.task for s in collected.samples])
            raise BrokenWeights(f"{fault} after the update by tasks {told}") from fault
        finally:
            self.line["time/training"] = time.perf_counter() - began
        return collected


STOPS: Mapping[type[RuntimeError], StopReason] = {
    NotFinite: StopReason.NOT_FINITE,
    TooManyFailures: StopReason.FAILURES,
    StaleSampler: StopReason.SAMPLER,
    PolicyError: StopReason.SAMPLER,
}
"""What stops a run."""

SAVED: tuple[type[Exception], ...] = (ValueError, *STOPS)
"""What a checkpoint is written after: also a sample that is too long for the model."""


def train(run: Run, say: Callable[[str], None], progress: Callable[[int, int], None]) -> None:
    """Train to the end, writing the folder as it goes.

    Args:
        run: A new one, or one that loaded a checkpoint.
        say: Tells a person a line.
        progress: Tells (steps done, steps in all).

    Raises:
        RuntimeError: One of `STOPS`. What was learnt is in a checkpoint, unless it broke the model.
        WriteError: The folder cannot be written; the latest checkpoint can be gone on from.
    """
    cfg, folder = run.config, run.folder
    told = run.step if run.line is None else run.step - 1
    writer: Writer | None = None
    with failing_together(WriteError):
        if is_first():
            writer = Writer(folder, cfg, run.tokenizer, told, run.step)
    try:
        while run.line is not None or run.step < cfg.steps:
            progress(run.step, cfg.steps)
            began = time.perf_counter()
            try:
                line = _advance(run, writer, say)
            except BrokenWeights:
                raise
            except SAVED:
                if run.saved != run.step:  # a step learnt in part does not replace a whole one
                    run.save()
                raise
            if run.step:  # what is measured before training is not its time
                run.totals["time/wall"] += time.perf_counter() - began
            with failing_together(WriteError):
                if writer and line:
                    writer.metrics(run.step, {**line, **run.totals})
                run.line = None
                if run.step == cfg.steps or (run.step and run.step % cfg.checkpoint_every == 0):
                    run.save()
        progress(run.step, cfg.steps)
        with failing_together(WriteError):
            checkpoint.save_model(run.learner.model, run.tokenizer, folder / "model")
            if writer:
                done = {"reason": StopReason.STEPS, "step": run.step}
                write_whole(folder / DONE, json.dumps(done) + "\n")
    finally:
        if writer:
            writer.close()


def _advance(run: Run, writer: Writer | None, say: Callable[[str], None]) -> dict[str, float]:
    """A step, unless one's evaluation is still due, and the evaluation after it; metrics of both.

    Raises:
        RuntimeError: One of `STOPS`.
        WriteError: The samples cannot be written.
    """
    if run.line is None:
        collected = run.train_step()
        with failing_together(WriteError):
            if writer:
                writer.samples(run.step, collected.samples)
        if not any(collected.credit.values):
            say(f"step {run.step}: in no group do the rewards differ")
    line = run.line or {}
    if run.config.eval_every and run.step % run.config.eval_every == 0:
        line = {**line, **run.evaluate()}
        say(f"step {run.step}: {_reward(line)}")
    return line


def _reward(found: Mapping[str, float]) -> str:
    return f"{found['eval/reward']:.3f}" if "eval/reward" in found else "no attempt was valid"
