"""The environments behind OpenEnv: a FastAPI app with a session for each socket, and a client.

Tested with openenv 0.10.0. A session sends the policy's raw text and is told the observation;
with an attempt's last step comes its feedback, a declared field of `TextObservation`. OpenEnv's
task verbs name tasks by split and index and tell nothing else of them: a task's parameters hold
the board or the answer.
"""
# ruff: noqa: E402 - a missing framework is told of before it is imported

from __future__ import annotations

import asyncio
import functools
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from erl_envs import registry, tasks
from erl_envs.adapters.versions import require
from erl_envs.core import EnvError, Task
from erl_envs.options import build

require("openenv", "0.10")

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from openenv.core.client_types import StepResult
from openenv.core.env_client import EnvClient
from openenv.core.env_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import ConcurrencyConfig, EnvironmentMetadata

from erl_envs.adapters.openenv_routes import refuse_mcp
from erl_envs.adapters.openenv_tasks import at, read, served, spec
from erl_envs.adapters.openenv_types import TextAction, TextObservation, TextState
from erl_envs.asgi.limits import Limits

AT_WORK = threading.BoundedSemaphore(16)
"""Steps at a time, of all sessions: a search may hold a hundred megabytes."""

__all__ = ["TextAction", "TextClient", "TextEnvironment", "TextObservation", "TextState", "app"]


class TextEnvironment(Environment[TextAction, TextObservation, TextState]):
    """A session: one of our environments, and the attempt that it is at."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    FILE = "file"  # what clients call the split of the file that is served

    def __init__(self, name: str, options: Mapping[str, Any], file: str | None = None) -> None:
        """A session; `reset` starts an attempt.

        Args:
            name: Environment id.
            options: The environment's `Options`; no `render_mode`, for nobody would see it.
            file: A split `file:PATH` that clients call `FILE`; they cannot name one themselves.

        Raises:
            ValueError: No such environment or option; the message lists the valid ones.
        """
        super().__init__()
        self._options = dict(options)
        self._file = file
        build(registry.env_class(name).Options, name, options)
        self._env = registry.make(name, **options)
        self._state = TextState(env=name)
        self._closed = False

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        *,
        task: str | Mapping[str, Any] | None = None,
        split: str | None = None,
        index: int | None = None,
        **unknown: Any,
    ) -> TextObservation:
        """Start an attempt: at a task, at one of a split, or at a fresh one of the seed.

        Args:
            seed: Of the environment's random stream.
            episode_id: A name for the attempt; None makes one up.
            task: A task as JSON text or object, as in a `Row`.
            split: One of `list_splits()`, with `index`.
            index: Number of the task in it, from 0.
            **unknown: Nothing else is taken.

        Raises:
            ValueError: There is no such task, or an argument is unknown or bad; one line.
        """
        self._check_open()
        if unknown:
            raise ValueError(
                f"unknown reset argument {min(unknown)!r:.100}; "
                "valid: seed, episode_id, task, split, index"
            )
        if not (episode_id is None or (isinstance(episode_id, str) and len(episode_id) < 256)):
            raise ValueError(
                f"episode_id must be a string of at most 255 characters, not {episode_id!r:.100}"
            )
        found = self._task(task, split, index)
        with AT_WORK:
            text, info = self._env.reset(seed=seed, options={"task": found} if found else None)
        self._state = TextState(
            episode_id=episode_id or str(uuid.uuid4()),
            env=self._env.name,
            task_id=info["task_id"],
        )
        return TextObservation(text=text, system_prompt=self._env.system_prompt)

    def _task(
        self, task: str | Mapping[str, Any] | None, split: str | None, index: int | None
    ) -> Task | None:
        if (split is None) != (index is None):
            raise ValueError("a task of a split needs both split and index")
        if split is None or index is None:
            return None if task is None else read(task)
        if task is not None:
            raise ValueError("give a task, or split and index, not both")
        if not isinstance(split, str):
            raise ValueError(f"split must be a string, not {split!r:.100}")
        try:
            return at(self._served(split), index)
        except IndexError as error:
            raise ValueError(str(error)) from error

    def step(
        self, action: TextAction, timeout_s: float | None = None, **kwargs: Any
    ) -> TextObservation:
        """Send a message; an unreadable one costs a turn.

        Args:
            action: The message.
            timeout_s: OpenEnv's; a step is not cut short.
            **kwargs: OpenEnv's.

        Raises:
            RuntimeError: There is no attempt to go on with.
            EnvError: The environment failed, or the session was closed for its idleness.
        """
        self._check_open()
        with AT_WORK:
            text, reward, terminated, truncated, info = self._env.step(action.text)
        self._state.step_count += 1
        self._state.done = terminated or truncated
        return TextObservation(
            text=text,
            reward=reward,
            done=terminated or truncated,
            terminated=terminated,
            truncated=truncated,
            feedback=info.get("feedback"),
            outcome=info.get("outcome"),
        )

    @property
    def state(self) -> TextState:
        """Which attempt the session is at."""
        return self._state

    def close(self) -> None:
        """End the session: OpenEnv would let the socket of an idle one go on playing."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EnvError("the session was closed; connect again")

    def get_metadata(self) -> EnvironmentMetadata:
        """Name and description."""
        return EnvironmentMetadata(
            name=self._env.name,
            description=(type(self._env).__doc__ or "").partition("\n")[0],
            version="1",
        )

    # OpenEnv's task verbs; a first load may take seconds, which other sessions must not wait for

    async def list_splits(self) -> list[dict[str, str]]:
        """The environment's task sets."""
        names = await asyncio.to_thread(self._names)
        return [{"name": n, "type": "train" if n.endswith("train") else "test"} for n in names]

    async def num_tasks(self, split: str) -> int:
        """How many tasks a split has."""
        return len(await self._load(split))

    async def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """Index and id of every task of a split."""
        return await self.get_task_range(split)

    async def get_task(self, split: str, index: int) -> dict[str, Any]:
        """Index and id of a task.

        Raises:
            IndexError: There is no such task.
        """
        return spec(at(await self._load(split), index), index, split)

    async def get_task_range(
        self, split: str, start: int | None = None, stop: int | None = None
    ) -> list[dict[str, Any]]:
        """Index and id of the tasks of a slice."""
        numbered = list(enumerate(await self._load(split)))[start:stop]
        return [spec(task, index, split) for index, task in numbered]

    async def _load(self, split: str) -> tuple[Task, ...]:
        return await asyncio.to_thread(self._served, split)

    def _served(self, split: str) -> tuple[Task, ...]:
        return served(self._env.name, split, self._names(), self._options)

    def _names(self) -> dict[str, str]:
        own = {name: name for name in tasks.splits(self._env.name, **self._options)}
        return own | ({self.FILE: self._file} if self._file else {})


class TextClient(EnvClient[TextAction, TextObservation, TextState]):
    """A session at a server: `reset(task=…)`, `step(TextAction(text=…))`, `state()`."""

    def _step_payload(self, action: TextAction) -> dict[str, Any]:
        return {"text": action.text}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[TextObservation]:
        reward, done = payload["reward"], payload["done"]
        observation = TextObservation(**payload["observation"], reward=reward, done=done)
        return StepResult(observation=observation, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> TextState:
        return TextState(**payload)


def app(
    env: str,
    options: Mapping[str, Any] | None = None,
    max_sessions: int = 64,
    max_body: int = 1 << 20,
    idle: float = 600.0,
    file: str | None = None,
) -> FastAPI:
    """An environment as an OpenEnv application, its data loaded.

    Args:
        env: Environment id.
        options: The environment's.
        max_sessions: Most sessions at a time.
        max_body: Most bytes of an HTTP request; of a socket's messages, the server's limit holds.
        idle: Seconds without a message after which a session is closed, and that a body may take.
        file: A split `file:PATH` to serve under the name `file`.

    Raises:
        ValueError: A bad environment, option or file; the message says what is valid.
    """
    if file is not None:
        tasks.load(env, file, **(options or {}))
    session = functools.partial(TextEnvironment, env, dict(options or {}), file)
    session().reset(seed=0)
    made: FastAPI = create_fastapi_app(
        session,
        TextAction,
        TextObservation,
        concurrency_config=ConcurrencyConfig(
            max_concurrent_envs=max_sessions, session_timeout=idle
        ),
        env_name=env,
        state_cls=TextState,
        mode="simulation",
    )
    for kind, status in ((ValueError, 422), (RuntimeError, 409), (EnvError, 503)):
        made.add_exception_handler(kind, functools.partial(_told, status))
    made.add_exception_handler(RequestValidationError, _malformed)
    refuse_mcp(made)
    made.add_middleware(Limits, max_body=max_body, idle=idle)
    return made


async def _malformed(_: Request, error: Exception) -> JSONResponse:
    """The first of what is wrong with a body: FastAPI would tell each, and repeat it."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return JSONResponse({"detail": f"{where[:60]}: {first['msg']}"}, 422)


async def _told(status: int, _: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status)
