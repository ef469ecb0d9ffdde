"""Plays a run's episodes on the workers of a Ray cluster; the run folder stays with the driver.

Each worker loads the policies itself and plays shards of the run by the loop that a single process
uses, and every episode has its own seeds, so it does not matter who plays which. Episodes come back
as they end. When a worker is lost, the others play what it owed.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

import erl_envs
from erl_envs.core import Episode
from erl_envs.eval.run import Config, Here
from erl_envs.policies import Policy, Thoughts
from erl_envs.rollout import Job
from erl_envs.secrets import redacted_errors

Loader = Callable[[], Policy]

SHARDS = 4
"""Shards a worker, so that the fast ones need not wait for the slow ones at the end."""


class Identity(NamedTuple):
    """A policy as run.json names it."""

    spec: str
    revision: str
    thoughts: Thoughts | None
    template: Mapping[str, Any]

    @classmethod
    def of(cls, policy: Policy) -> Identity:
        """A loaded policy's."""
        return cls(policy.spec, policy.revision, policy.thoughts, dict(policy.template))


@dataclass(frozen=True)
class Hired:
    """What a worker tells of itself once its policies are loaded.

    Attributes:
        host: Its machine.
        pid: Its process there.
        version: Of erl_envs there.
        actor: Who plays there.
        reflector: Who reflects there; None if the actor does.
    """

    host: str
    pid: int
    version: str
    actor: Identity
    reflector: Identity | None


class Worker:
    """A process of the cluster with policies and environments of its own."""

    def __init__(self, config: Config, actor: Loader, reflector: Loader | None) -> None:
        """Nothing is loaded yet: an error there has to reach the driver as it is."""
        self._config, self._actor, self._reflector = config, actor, reflector

    @redacted_errors()
    def load(self) -> Hired:
        """Load the policies.

        Raises:
            ValueError: One cannot be loaded here; one line that says why.
        """
        actor, reflector = self._actor(), self._reflector() if self._reflector else None
        self._here = Here(self._config, actor, reflector)
        return Hired(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=erl_envs.__version__,
            actor=Identity.of(actor),
            reflector=Identity.of(reflector) if reflector else None,
        )

    def refused(self) -> dict[str, list[str]]:
        """What servers refused of each role's sampling so far."""
        return self._here.refused()

    def play(self, jobs: Sequence[Job]) -> Iterator[Episode]:
        """The episodes of a shard, as they end."""
        with redacted_errors():  # here: another machine may have other secrets
            # Ray sends values into a generator; `yield from` would hand them on
            for episode in self._here.play(jobs):  # noqa: UP028
                yield episode


class RayExecutor:
    """Workers on a Ray cluster, hired for one run.

    Attributes:
        actor: Who plays, on every worker.
        reflector: Who reflects there; None if the actor does.
        hired: What each worker told of itself.
    """

    def __init__(
        self,
        config: Config,
        actor: Loader,
        reflector: Loader | None,
        workers: int | None = None,
        gpus: float = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Connect to the cluster and have the policies loaded there.

        The cluster is the one that RAY_ADDRESS names or that runs on this machine; without one, Ray
        starts one here for as long as this lasts.

        Args:
            config: What to play.
            actor: Loads who plays; runs on every worker.
            reflector: Loads who reflects; None takes the actor.
            workers: How many; None takes one for each machine of the cluster.
            gpus: Graphics processors of each; without any, a worker sees none.
            say: Told when a worker is lost.

        Raises:
            ValueError: There is no cluster at the address, it is too small, a policy cannot be
                loaded, or the workers have different versions of something; one line.
        """
        self._say = say
        self._own = not ray.is_initialized()
        if self._own:
            _connect()
        try:
            count = workers or _machines()
            _check_size(count, gpus)
            hire = ray.remote(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")(Worker)
            self._workers = [hire.remote(config, actor, reflector) for _ in range(count)]
            self.hired: list[Hired] = _loaded(self._workers)
        except BaseException:
            self.close()
            raise
        self.actor = self.hired[0].actor
        self.reflector = self.hired[0].reflector

    def play(self, jobs: Sequence[Job]) -> Iterator[Episode]:
        """The episodes of jobs, as they end on any worker.

        Raises:
            ValueError: Every worker was lost; what came back so far has been given.
        """
        owed = _shards(jobs, len(self._workers))
        idle = deque(range(len(self._workers)))
        running: dict[Any, tuple[int, dict[tuple[str, str, int], Job]]] = {}
        while owed or running:
            while owed and idle:
                number, shard = idle.popleft(), owed.popleft()
                episodes = self._workers[number].play.options(num_returns="streaming").remote(shard)
                running[episodes] = number, {job.key: job for job in shard}
            if not running:
                raise ValueError("every worker was lost; --resume goes on with new ones")
            (episodes,), _ = ray.wait(list(running), num_returns=1)
            number, left = running[episodes]
            try:
                episode: Episode = ray.get(next(episodes))
            except StopIteration:
                del running[episodes]
                idle.append(number)
            except (RayActorError, ObjectLostError):  # the latter where its machine went with it
                del running[episodes]
                owed.appendleft(list(left.values()))
                lost = self.hired[number]
                self._say(
                    f"worker {lost.pid} on {lost.host} was lost; others play its {len(left)} "
                    f"unfinished episodes"
                )
            else:
                del left[episode.key]
                yield episode

    def refused(self) -> dict[str, list[str]]:
        """Role → what of its sampling its server refused on any worker that is not lost."""
        found: dict[str, set[str]] = {}
        for worker in self._workers:
            with contextlib.suppress(RayActorError):
                for role, names in ray.get(worker.refused.remote()).items():
                    found.setdefault(role, set()).update(names)
        for role, names in found.items():
            self._say(f"the server of the {role} takes no {', '.join(sorted(names))}")
        return {role: sorted(names) for role, names in found.items()}

    def close(self) -> None:
        """Let the workers go, and the cluster if it was started or joined for this."""
        for worker in getattr(self, "_workers", ()):
            ray.kill(worker)
        if self._own:
            ray.shutdown()


def _connect() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run reports to nobody
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray ends the process where nobody listens
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(logging_level="ERROR", log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"no Ray cluster at {address or 'this machine'}: {why}") from error


def _machines() -> int:
    """Machines of the cluster that have a processor to lend."""
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())


def _check_size(workers: int, gpus: float) -> None:
    """Ray itself would wait for ever for a worker that has no place."""
    if not 0 <= gpus < math.inf:
        raise ValueError(f"a worker has 0 graphics processors or more, not {gpus}")
    room = _room(ray.nodes(), gpus)
    if room < max(workers, 1):
        raise ValueError(
            f"the cluster has room for {room} workers of 1 CPU and {gpus:g} GPU, not for {workers}"
        )


def _room(nodes: Iterable[Mapping[str, Any]], gpus: float) -> int:
    """How many workers the machines have a place for; none is on two machines.

    Args:
        nodes: Ray's.
        gpus: Graphics processors of a worker; a part is of one of them.
    """
    room = 0
    for node in nodes:
        if node["Alive"]:
            places, cards = int(node["Resources"].get("CPU", 0)), node["Resources"].get("GPU", 0)
            if gpus >= 1:
                places = min(places, int(cards / gpus))
            elif gpus:
                places = min(places, int(cards) * int(1 / gpus))
            room += places
    return room


def _loaded(workers: Sequence[Any]) -> list[Hired]:
    try:
        hired: list[Hired] = ray.get([worker.load.remote() for worker in workers])
    except RayTaskError as error:
        if isinstance(error.cause, ValueError):
            raise ValueError(f"on a worker: {error.cause}") from error
        raise
    except RayActorError as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"a worker was lost while it loaded: {why}") from error
    for other in hired[1:]:
        for what in ("version", "actor", "reflector"):
            one, two = getattr(hired[0], what), getattr(other, what)
            if one != two:
                raise ValueError(
                    f"the workers differ in {what}: {one} on {hired[0].host}, {two} on {other.host}"
                )
    return hired


def _shards(jobs: Sequence[Job], workers: int) -> deque[list[Job]]:
    size = max(1, math.ceil(len(jobs) / (SHARDS * workers)))
    return deque(list(jobs[at : at + size]) for at in range(0, len(jobs), size))
