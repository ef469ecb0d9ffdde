"""Ctrl-C while a server is silent: the run ends at once, and goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from loopback import Reply, Request, says, serving

from erl_envs.arguments import INTERRUPTED, interruptible
from erl_envs.eval.__main__ import main
from erl_envs.records import read_episodes

PATIENCE = 60.0
"""Seconds after which a silent server answers: a run that waits for that is found out."""

FROZENLAKE = ["--env", "frozenlake", "--limit", "6", "--concurrency", "4"]
HOTPOTQA = ["--env", "hotpotqa", "--limit", "4", "--concurrency", "4"]
SEARCH = "<search>Where is it?</search>"
FOUND = {"result": [[{"document": {"title": "It", "text": "It is there."}, "score": 1.0}]]}


class Server:
    """A model and a retriever that fall silent.

    Attributes:
        silent: Says which requests wait for the end; None for none.
        gave_up: Set once a request has waited in vain for its client to leave.
    """

    def __init__(self, silent: Callable[[Request], bool], interrupt_at: int) -> None:
        self.silent: Callable[[Request], bool] | None = silent
        self.interrupt = partial(os.kill, os.getpid(), signal.SIGINT)
        self.left = threading.Semaphore(interrupt_at - 1)
        self.over, self.gave_up = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> Reply:
        if self.silent and self.silent(request):
            if not self.left.acquire(blocking=False):
                self.interrupt()
            if not self.over.wait(PATIENCE):
                self.gave_up.set()
        if request.path == "/retrieve":
            return Reply(FOUND)
        text = json.dumps(request.body["messages"])
        if "rulebook" in text.lower() and "<prompt>" in text:
            return says("<prompt>Go right.</prompt>")
        return says(SEARCH if "<search>" in text else "```Left```")


@contextmanager
def falling_silent(silent: Callable[[Request], bool], at: int) -> Iterator[tuple[str, Server]]:
    """A server that interrupts (this process, if not told) once so many requests wait in it."""
    server = Server(silent, at)
    with serving(server) as url:
        try:
            yield url, server
        finally:
            server.over.set()


def anything(_: Request) -> bool:
    return True


def searches(request: Request) -> bool:
    return request.path == "/retrieve"


def reflections(request: Request) -> bool:
    return request.path != "/retrieve" and "<prompt>" in json.dumps(request.body)


@pytest.mark.parametrize(
    ("args", "silent", "waiting"),
    [
        (["--policy", "openai:m", *FROZENLAKE], anything, 4),
        (["--policy", "openai:m", "--attempts", "2", *FROZENLAKE], reflections, 4),
        (["--policy", "openai:m", "--option", "retriever=http", *HOTPOTQA], searches, 4),
        # a policy of this process: the search is waited for in the main thread
        (["--policy", "oracle", "--option", "retriever=http", *HOTPOTQA], searches, 1),
        # both: a whole batch is
        (["--policy", "oracle", "--reflector", "openai:m", "--attempts", "2", "--option",
          "max_turns=1", *FROZENLAKE], anything, 4),
    ],
    ids=["messages", "reflections", "searches", "searches-here", "a-batch"],
)  # fmt: skip
def test_ctrl_c_does_not_wait_for_a_silent_server(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    silent: Callable[[Request], bool],
    waiting: int,
) -> None:
    out = tmp_path / "run"
    with falling_silent(silent, waiting) as (url, server):
        whole = [*args, "--base-url", f"{url}/v1", "--out", str(out)]
        if "retriever=http" in args:
            whole += ["--option", f"retriever_url={url}/retrieve"]
        assert main(whole) == INTERRUPTED
        assert not server.gave_up.is_set()
        assert f"go on with --resume --out {out}" in capsys.readouterr().err
        assert all(episode.valid for episode in read_episodes(out / "episodes.jsonl"))
        server.silent = None
        assert main([*whole, "--resume"]) == 0
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert (
        run["counts"]["invalid"] == 0
        and run["counts"]["episodes"] == run["envs"][args_env(args)]["tasks"]
    )


def args_env(args: list[str]) -> str:
    return args[args.index("--env") + 1]


def test_a_process_ends_at_once(tmp_path: Path) -> None:
    """The interpreter, too, waits for nobody."""
    with falling_silent(anything, 4) as (url, server):
        args = ["--policy", "openai:m", "--base-url", f"{url}/v1", *FROZENLAKE]
        command = [sys.executable, "-m", "erl_envs.eval", *args, "--out", str(tmp_path / "run")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
            server.interrupt = partial(process.send_signal, signal.SIGINT)
            _, told = process.communicate(timeout=3 * PATIENCE)
        assert process.returncode == INTERRUPTED
        assert not server.gave_up.is_set()
    assert told.splitlines()[-1].startswith("interrupted; go on with --resume")


def test_a_second_ctrl_c_ends_the_process_where_it_is(tmp_path: Path) -> None:
    """What the first one tidies up may take long, as where a person's own policy is closed."""
    args = ["--policy", "random", *FROZENLAKE, "--out", str(tmp_path / "run")]
    program = f"""
import os, signal, sys, threading
from erl_envs.eval import run
from erl_envs.eval.__main__ import main

def interrupted(*_):
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait({PATIENCE})

def close(_):
    print("first", flush=True)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    threading.Event().wait({PATIENCE})
    print("waited", flush=True)

run._finish, run.Here.close = interrupted, close
sys.exit(main({args!r}))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=3 * PATIENCE,
    )
    assert ended.stdout == "first\n"
    assert ended.returncode == INTERRUPTED and "Traceback" not in ended.stderr
    assert main([*args, "--resume"]) == 0


def test_the_handler_of_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone() -> None:
    thread = threading.Thread(target=lambda: interruptible().__enter__())
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
