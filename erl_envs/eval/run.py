"""Plays a configured evaluation into a run folder, and sums it up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import erl_envs
from erl_envs import options, registry, tasks
from erl_envs.core import EnvError, Episode, Task
from erl_envs.eval.provenance import commit, hardware
from erl_envs.eval.report import render_report
from erl_envs.eval.runfolder import SCHEMA, RunFolder
from erl_envs.eval.statistics import summarise
from erl_envs.locks import hold
from erl_envs.policies import Policy, Sampling, Thoughts
from erl_envs.rollout import EnvPool, Job, Player, Role, rollout
from erl_envs.secrets import redact_json

REFLECTION_TEMPERATURE, REFLECTION_TOP_P = 0.5, 0.9  # PAPER: Training


@dataclass(frozen=True)
class Config:
    """What to evaluate.

    Attributes:
        envs: Environment ids.
        split: Task set of each.
        options: Environment id → its keyword options.
        limit: First so many tasks of each split; None for all.
        samples: Episodes a task.
        attempts: 1, or 2 with a reflection between them.
        seed: Of every random stream of the run.
        sampling: How the actor samples.
        reflection_sampling: How the reflector samples.
        concurrency: Most episodes at a time.
    """

    envs: Sequence[str]
    split: str = "test"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limit: int | None = None
    samples: int = 1
    attempts: int = 1
    seed: int = 0
    sampling: Sampling = Sampling()
    reflection_sampling: Sampling = Sampling(REFLECTION_TEMPERATURE, REFLECTION_TOP_P)
    concurrency: int = 64

    def of(self, name: str) -> Mapping[str, Any]:
        """An environment's options."""
        return self.options.get(name, {})


class Named(Protocol):
    """A policy as run.json names it, wherever it is loaded."""

    @property
    def spec(self) -> str:
        """The string that names it on the command line."""

    @property
    def revision(self) -> str:
        """What exactly it is."""

    @property
    def thoughts(self) -> Thoughts | None:
        """What becomes of earlier turns' thoughts in its prompts; None if it does not say."""

    @property
    def template(self) -> Mapping[str, Any]:
        """What its chat template was told beside the messages."""


class Executor(Protocol):
    """Plays a run's jobs somewhere."""

    @property
    def actor(self) -> Named:
        """Who plays."""

    @property
    def reflector(self) -> Named | None:
        """Who reflects; None if the actor does."""

    def play(self, jobs: Sequence[Job]) -> Iterator[Episode]:
        """The episodes of jobs, as they end."""

    def refused(self) -> dict[str, list[str]]:
        """Role → what of its sampling its server refused so far; only roles that lack something."""

    def close(self) -> None:
        """Let go of what was loaded."""


class Here:
    """Plays in this process; every process that plays for a run plays this way."""

    def __init__(self, config: Config, actor: Policy, reflector: Policy | None) -> None:
        """Args: reflector: None takes the actor.

        Raises:
            ValueError: A bad environment or option; the message lists the valid ones.
        """
        self.actor, self.reflector = actor, reflector
        self._config = config
        self._pool = EnvPool({name: config.of(name) for name in config.envs})

    def play(self, jobs: Sequence[Job]) -> Iterator[Episode]:
        """The episodes of jobs, as they end."""
        config = self._config
        players: dict[Role, Player] = {"actor": Player(self.actor, config.sampling)}
        if config.attempts == 2:
            reflector = self.reflector or self.actor
            players["reflector"] = Player(reflector, config.reflection_sampling)
        return rollout(jobs, self._pool, players, config.attempts, config.concurrency)

    def refused(self) -> dict[str, list[str]]:
        """Role → what of its sampling its server refused so far; only roles that lack something."""
        policies = {"policy": self.actor, "reflector": self.reflector}
        return {role: sorted(p.refused) for role, p in policies.items() if p and p.refused}

    def close(self) -> None:
        """Close the policies."""
        self.actor.close()
        if self.reflector is not None:
            self.reflector.close()


def evaluate(
    config: Config,
    executor: Executor,
    folder: RunFolder,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Play, and write the run folder.

    Args:
        config: What to play.
        executor: Who plays it, and where.
        folder: Where to write.
        resume: Go on with the folder's run.
        progress: Called with the numbers of finished and of all episodes.

    Returns:
        The content of `run.json`.

    Raises:
        ValueError: A bad option, split or folder; the message lists what is valid.
        InUse: Another process plays into the folder.
        WriteError: The folder cannot be written; what is there can be gone on with.
    """
    sets = {
        name: tasks.load(name, config.split, **config.of(name))[: config.limit]
        for name in config.envs
    }
    _try_out(config, sets)
    run = redact_json(_describe(config, executor, sets))
    jobs = [
        Job(task, sample, config.seed)
        for name in config.envs
        for sample in range(config.samples)
        for task in sets[name]
    ]
    with hold(folder.path):
        try:
            _play(jobs, executor, folder, run, resume, progress)
        finally:
            folder.close()
        return _finish(config, run, sets, folder)


def _play(
    jobs: Sequence[Job],
    executor: Executor,
    folder: RunFolder,
    run: dict[str, Any],
    resume: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Play what the folder does not have; `run` is told who began it."""
    finished: set[tuple[str, str, int]] = set()
    if resume:
        before, finished = folder.resume(run)
        if strange := finished - {job.key for job in jobs}:
            raise ValueError(f"{folder.episodes_path} holds an episode of no task: {min(strange)}")
        # what played the episodes that are there; what goes on with it is told beside it
        run["resumed"] = [*before.get("resumed", []), {k: run[k] for k in ("package", "started")}]
        run |= {name: before[name] for name in ("package", "started", "refused") if name in before}
    else:
        folder.start(run)
    waiting = [job for job in jobs if job.key not in finished]
    done = len(finished)
    progress(done, len(jobs))
    for episode in executor.play(waiting):
        folder.append(episode)
        done += 1
        progress(done, len(jobs))
    # a resumed run has not asked for what it found
    run["refused"] = {**run.get("refused", {}), **executor.refused()}


def _try_out(config: Config, sets: Mapping[str, Sequence[Task]]) -> None:
    """Reset each environment once, so that what it lacks is told before anything is written."""
    for name, found in sets.items():
        with contextlib.suppress(EnvError):  # a server that is down may be up again by its turn
            registry.make(name, **config.of(name)).reset(seed=0, options={"task": found[0]})


def _finish(
    config: Config, run: dict[str, Any], sets: Mapping[str, Sequence[Task]], folder: RunFolder
) -> dict[str, Any]:
    """Metrics and report, from the file alone, which need not fit into memory."""
    run["metrics"] = {
        name: summarise(
            (episode for episode in folder.episodes if episode.task.env == name),
            [task.id for task in sets[name]],
            tasks.references(registry.make(name, **config.of(name)), sets[name]),
            config.attempts,
        )
        for name in config.envs
    }
    run["counts"] = {
        what: sum(metrics[what] for metrics in run["metrics"].values())
        for what in ("episodes", "invalid")
    }
    run["finished"] = _now()
    folder.write_json("run.json", run)
    folder.write_text("report.html", render_report(run, folder.episodes))
    return run


def _describe(
    config: Config, executor: Executor, sets: Mapping[str, Sequence[Task]]
) -> dict[str, Any]:
    """run.json before the first episode."""
    two = config.attempts == 2
    actor, reflector = executor.actor, executor.reflector
    return {
        "schema": SCHEMA,
        "package": {"version": erl_envs.__version__, "commit": commit()},
        "policy": _identity(actor),
        "reflector": _identity(reflector or actor) if two else None,
        "sampling": asdict(config.sampling),
        "reflection_sampling": asdict(config.reflection_sampling) if two else None,
        "seed": config.seed,
        "samples": config.samples,
        "attempts": config.attempts,
        "limit": config.limit,
        "envs": {name: _environment(config, name, sets[name]) for name in sets},
        "refused": {},
        "hardware": hardware(),
        "started": _now(),
        "finished": None,
        "counts": None,
        "metrics": None,
    }


def _environment(config: Config, name: str, chosen: Sequence[Task]) -> dict[str, Any]:
    """What decides an environment's episodes; a corpus only where there is one to search.

    And how much of a file of tasks is none, where any is.
    """
    env = registry.make(name, **config.of(name))
    corpus = env.corpus_hash(chosen)
    whole = tasks.load_set(name, config.split, **config.of(name))
    return {
        "options": options.to_json(env.options),
        "split": config.split,
        "split_hash": tasks.split_hash(whole.tasks),
        "tasks": len(chosen),
        **({"left_out": len(whole.left_out)} if whole.left_out else {}),
        **({"corpus_hash": corpus} if corpus else {}),
    }


def _identity(policy: Named) -> dict[str, Any]:
    """What tells a policy from others; what it does with thoughts only where it has any say."""
    said = {"thoughts": policy.thoughts, "template": dict(policy.template)}
    told = {name: value for name, value in said.items() if value}
    return {"spec": policy.spec, "revision": policy.revision, **told}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
