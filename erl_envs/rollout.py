"""Environments × policy → episodes: the one loop that evaluation and trainer share.

An episode is a generator that reads like the algorithm: it yields a conversation that awaits an
answer, and is sent the answer. `drive` batches what many episodes are waiting for.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from erl_envs import registry
from erl_envs.calls import Stop
from erl_envs.core import (
    Attempt,
    EnvError,
    Episode,
    Message,
    Reflection,
    Task,
    TextEnv,
    Turn,
    digest,
)
from erl_envs.policies.base import Completion, Conversation, Policy, PolicyError, Sampling
from erl_envs.reflection import read_rulebook, reflection_messages, second_prompt

Role = Literal["actor", "reflector"]
Answer = Completion | PolicyError
T = TypeVar("T")

THRESHOLD = 1.0
"""Attempts with less reward are reflected on (the paper's τ)."""


class Ask(NamedTuple):
    """A conversation that awaits the answer of whoever has this role."""

    role: Role
    conversation: Conversation


Play = Generator[Ask, Answer, T]


@dataclass(frozen=True)
class Player:
    """A policy and how it samples."""

    policy: Policy
    sampling: Sampling


@dataclass(frozen=True)
class Job:
    """One episode to play: a task, which of its samples, and the run's seed."""

    task: Task
    sample: int
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        """The episode's key."""
        return (self.task.env, self.task.id, self.sample)

    def stream(self, stage: str) -> int:
        """Seed of a stage's random stream: the same wherever and in whatever order it is played."""
        return int(digest([self.seed, *self.key, stage])[:12], 16)


class EnvPool:
    """Environments to lend; each is lent to one episode at a time."""

    def __init__(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Args: options: environment id → its keyword options.

        Raises:
            ValueError: A bad id or option; the message lists the valid ones.
        """
        self._options = options
        self._idle: dict[str, list[TextEnv]] = {
            name: [registry.make(name, **kwargs)] for name, kwargs in options.items()
        }

    def lend(self, name: str) -> TextEnv:
        """An idle environment, a new one if there is none."""
        try:
            return self._idle[name].pop()
        except IndexError:
            return registry.make(name, **self._options[name])

    def give_back(self, env: TextEnv) -> None:
        """Take an environment back."""
        self._idle[env.name].append(env)


def attempt(env: TextEnv, job: Job, stage: str, prompt: str | None = None) -> Play[Attempt]:
    """One try at a task: y ~ π(·|x) or, with a prompt of its own, y ~ π(·|x, Δ).

    Args:
        env: Where to play.
        job: What to play.
        stage: `attempt_1` or `attempt_2`.
        prompt: System prompt; None takes the environment's.

    Returns:
        The attempt; where the environment or the policy failed, an invalid one with the reason.
    """
    seed = job.stream(f"{stage}/env")
    messages: list[Message] = []
    turns: list[Turn] = []
    conversation = Conversation(messages, (*job.key, stage), job.stream(stage), env)
    reward, feedback, outcome, error, done = 0.0, "", "", None, False
    try:
        observation, _ = env.reset(seed=seed, options={"task": job.task})
        messages.append({"role": "system", "content": prompt or env.system_prompt})
        messages.append({"role": "user", "content": observation})
        while not done:
            answer = yield Ask("actor", conversation)
            if isinstance(answer, PolicyError):
                raise answer
            messages.append({"role": "assistant", "content": answer.text})
            observation, step_reward, terminated, truncated, info = env.step(answer.text)
            messages.append({"role": "user", "content": observation})
            turns.append(
                Turn(
                    action=info["action"],
                    reward=step_reward,
                    note=info["note"],
                    usage=answer.usage,
                    stop=answer.stop_reason,
                    details=info.get("details"),
                    reasoning=answer.reasoning,
                )
            )
            reward += step_reward
            done = terminated or truncated
        feedback, outcome = info["feedback"], info["outcome"]
    except (EnvError, PolicyError) as fault:
        error = failure(fault)
    return Attempt(
        task=job.task,
        seed=seed,
        messages=messages,
        turns=turns,
        reward=reward if error is None else 0.0,
        feedback=feedback,
        outcome=outcome,
        valid=error is None,
        error=error,
        tokens=conversation.tokens(),
    )


def failure(error: EnvError | PolicyError) -> str:
    """Why an attempt or a reflection failed, as records tell it."""
    return f"{type(error).__name__}: {error}"


def reflect(
    env: TextEnv, job: Job, first: Attempt, memory: str | None = None
) -> Play[Reflection | PolicyError]:
    """Δ ~ π(·|x, y1, f1, r1, m): a rulebook from an attempt and its feedback."""
    messages = reflection_messages(env, first, memory)
    conversation = Conversation(messages, (*job.key, "reflection"), job.stream("reflection"), env)
    answer = yield Ask("reflector", conversation)
    if isinstance(answer, PolicyError):
        return answer
    messages.append({"role": "assistant", "content": answer.text})
    rulebook = read_rulebook(answer.text)
    prompt, tokens = second_prompt(env, rulebook, memory), conversation.tokens()
    return Reflection(messages, rulebook, prompt, answer.usage, tokens, answer.reasoning)


def episode(env: TextEnv, job: Job, attempts: int = 1, memory: str | None = None) -> Play[Episode]:
    """The paper's loop at inference: attempt, and if it failed, reflection and a second attempt."""
    first = yield from attempt(env, job, "attempt_1")
    if attempts == 1 or not first.valid or first.reward >= THRESHOLD:
        return Episode(job.task, job.sample, [first])
    reflection = yield from reflect(env, job, first, memory)
    if isinstance(reflection, PolicyError):
        return Episode(job.task, job.sample, [first], error=f"reflection: {reflection}")
    second = yield from attempt(env, job, "attempt_2", reflection.prompt)
    return Episode(job.task, job.sample, [first, second], reflection)


def drive(plays: Iterable[Play[T]], players: Mapping[Role, Player], width: int) -> Iterator[T]:
    """Play up to `width` generators at a time, answering all that wait in one batch.

    A finished one's place goes to the next at once. Results come in an order that depends on
    nothing but the answers.
    """
    coming = iter(plays)
    waiting: list[tuple[Play[T], Ask]] = []
    while True:
        while len(waiting) < width and (play := next(coming, None)) is not None:
            try:
                waiting.append((play, next(play)))
            except StopIteration as end:  # its environment failed before anyone was asked
                yield end.value
        if not waiting:
            return
        answers = _answer([ask for _, ask in waiting], players)
        still: list[tuple[Play[T], Ask]] = []
        for (play, _), answer in zip(waiting, answers, strict=True):
            try:
                still.append((play, play.send(answer)))
            except StopIteration as end:
                yield end.value
        waiting = still


def _answer(asks: Sequence[Ask], players: Mapping[Role, Player]) -> list[Answer]:
    answers: dict[int, Answer] = {}
    for role, player in players.items():
        mine = [i for i, ask in enumerate(asks) if ask.role == role]
        if mine:
            batch = [asks[i].conversation for i in mine]
            answers.update(zip(mine, player.policy.complete(batch, player.sampling), strict=True))
    return [answers[i] for i in range(len(asks))]


def rollout(
    jobs: Iterable[Job],
    pool: EnvPool,
    players: Mapping[Role, Player],
    attempts: int = 1,
    concurrency: int = 64,
) -> Iterator[Episode]:
    """Play jobs and give their episodes as they end.

    Local policies are asked in batches of up to `concurrency` conversations. Where every policy is
    remote, each episode goes its own pace, so none waits for the slowest of a batch.

    Args:
        jobs: What to play.
        pool: Environments to play in.
        players: The actor and, for two attempts, the reflector.
        attempts: 1, or 2 with a reflection between them.
        concurrency: Most episodes at a time.
    """

    def play(job: Job) -> Play[Episode]:
        env = pool.lend(job.task.env)
        played = yield from episode(env, job, attempts)
        pool.give_back(env)
        return played

    if all(player.policy.remote for player in players.values()):
        yield from _each_its_own_pace(map(play, jobs), players, concurrency)
    else:
        yield from drive(map(play, jobs), players, concurrency)


def _each_its_own_pace(
    plays: Iterator[Play[T]], players: Mapping[Role, Player], width: int
) -> Iterator[T]:
    stop = Stop()

    def run(play: Play[T]) -> list[T]:
        with stop.covers():
            return list(drive([_until(stop, play)], players, 1))

    with ThreadPoolExecutor(width) as threads:
        running: set[Future[list[T]]] = set()
        try:
            for play in itertools.chain(plays, itertools.repeat(None)):
                if play is not None:
                    running.add(threads.submit(run, play))
                    if len(running) < width:
                        continue
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            stop.set()  # whoever stops early waits for no server


def _until(stop: Stop, play: Play[T]) -> Play[T]:
    """A play that breaks off at its next answer once `stop` is set."""
    try:
        ask = next(play)
        while True:
            answer = yield ask
            if stop.is_set():
                raise CancelledError("the run was stopped")
            ask = play.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
