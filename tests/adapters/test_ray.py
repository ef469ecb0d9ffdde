"""A run on a Ray cluster is the run of one process; run with `make test-adapter-ray`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from loopback import Reply, Request, says, serving

pytest.importorskip("ray", reason="ray is not installed: make test-adapter-ray")

import ray
from ray.cluster_utils import Cluster

from erl_envs import policies, tasks
from erl_envs.eval import __main__ as cli
from erl_envs.eval.executor_ray import RayExecutor, _room
from erl_envs.eval.run import Config, evaluate
from erl_envs.eval.runfolder import RunFolder
from erl_envs.records import read_episodes
from erl_envs.rollout import Job

SECRET = "sk-nobody-may-see-this"


def started(tries: int = 4) -> Any:
    """A cluster; Ray gives up a start after 30 s, which a busy machine may well take."""
    memory = 80 << 20
    # a machine that is gone is missed after five seconds, one that is slow is waited for
    watch = {"health_check_period_ms": 500, "health_check_failure_threshold": 10}
    head = {"num_cpus": 1, "object_store_memory": memory, "_system_config": watch}
    for left in reversed(range(tries)):
        made = Cluster()
        try:
            made.add_node(**head, include_dashboard=False)
            made.add_node(num_cpus=1, object_store_memory=memory)
            return made
        except Exception:
            made.shutdown()
            if not left:
                raise
    raise AssertionError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines with a processor each."""
    made = started()
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = made.address
    yield made
    del os.environ["RAY_ADDRESS"]
    if before is not None:
        os.environ["RAY_ADDRESS"] = before
    made.shutdown()


def slow(request: Request) -> Reply:
    """A model that takes its time, goes Right or Down by the length of what it was told."""
    messages = request.body["messages"]
    time.sleep(0.02)
    last = messages[-1]["content"]
    text = "<prompt>Go Right.</prompt>" if "rulebook" in last else "```Right```"
    if len(messages) % 3 == 0:
        text = text.replace("```Right```", "```Down```")
    return says(text, usage={"prompt_tokens": len(last), "completion_tokens": 3})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(slow) as url:
        yield f"{url}/v1"


def timeless(value: Any) -> Any:
    """A JSON value without times."""
    times = ("seconds", "started", "finished")
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in times}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def same_run(one: Path, two: Path) -> None:
    """The same episodes, each once, and the same run.json, but for times."""
    runs, episodes = [], []
    for out in (one, two):
        runs.append(timeless(json.loads((out / "run.json").read_text(encoding="utf-8"))))
        runs[-1].pop("resumed", None)  # that it was is no difference in what was played
        lines = (out / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
        episodes.append(sorted(json.dumps(timeless(json.loads(line))) for line in lines))
        keys = [episode.key for episode in read_episodes(out / "episodes.jsonl")]
        assert len(set(keys)) == len(keys) == runs[-1]["counts"]["episodes"]
        assert (out / "report.html").exists()
    assert runs[0] == runs[1]
    assert episodes[0] == episodes[1]


def test_a_clusters_run_is_the_single_process_run(cluster: Any, tmp_path: Path) -> None:
    args = ["--policy", "random", "--limit", "12", "--samples", "2", "--seed", "5"]
    assert cli.main([*args, "--out", str(tmp_path / "one")]) == 0
    assert cli.main([*args, "--out", str(tmp_path / "ray"), "--executor", "ray"]) == 0
    same_run(tmp_path / "one", tmp_path / "ray")
    assert not ray.is_initialized(), "who joined the cluster leaves it"


def server_run(server: str) -> tuple[list[str], Config, Any]:
    """A run with a slow model: its arguments, the configuration they make, and the policy."""
    args = ["--env", "frozenlake,sokoban", "--policy", "openai:slow", "--base-url", server]
    args += ["--limit", "10", "--attempts", "2", "--concurrency", "2"]
    config = cli.config_of(cli.build_parser().parse_args(args))
    return args, config, partial(policies.load, "openai:slow", server)


def test_a_worker_is_killed_midway(
    cluster: Any, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    args, config, load = server_run(server)
    said: list[str] = []
    executor = RayExecutor(config, load, None, workers=2, say=said.append)
    try:
        assert len({hired.pid for hired in executor.hired}) == 2

        def kill_one(done: int, total: int) -> None:
            if done == 6:
                os.kill(executor.hired[0].pid, signal.SIGKILL)

        out = tmp_path / "ray"
        run = evaluate(config, executor, RunFolder(out), progress=kill_one)
    finally:
        executor.close()
    (line,) = said
    assert line.startswith(f"worker {executor.hired[0].pid} on ") and "others play its" in line
    assert run["counts"] == {"episodes": 20, "invalid": 0}
    assert cli.main([*args, "--out", str(tmp_path / "one")]) == 0
    same_run(tmp_path / "one", out)
    assert not any(SECRET.encode() in path.read_bytes() for path in out.iterdir())


def test_all_workers_are_lost_and_the_run_resumes(
    cluster: Any, server: str, tmp_path: Path
) -> None:
    args, config, load = server_run(server)
    out = tmp_path / "ray"
    executor = RayExecutor(config, load, None, workers=2)

    def kill_all(done: int, total: int) -> None:
        if done == 5:
            for hired in executor.hired:
                os.kill(hired.pid, signal.SIGKILL)

    with pytest.raises(ValueError, match="every worker was lost; --resume goes on"):
        evaluate(config, executor, RunFolder(out), progress=kill_all)
    executor.close()
    before = (out / "episodes.jsonl").read_bytes()
    assert 5 <= before.count(b"\n") < 20
    more = ["--out", str(out), "--executor", "ray", "--workers", "1", "--resume"]
    assert cli.main([*args, *more]) == 0
    assert (out / "episodes.jsonl").read_bytes().startswith(before)
    assert cli.main([*args, "--out", str(tmp_path / "one")]) == 0
    same_run(tmp_path / "one", out)


def test_what_a_server_does_not_take_is_recorded(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def picky(request: Request) -> Reply:
        told = {"message": "Unknown parameter: 'top_k'."}
        return Reply({"error": told}, 400) if "top_k" in request.body else says("```Up```")

    with serving(picky) as url:
        args = ["--env", "frozenlake", "--policy", "openai:m", "--base-url", f"{url}/v1"]
        out = tmp_path / "ray"
        more = ["--limit", "4", "--executor", "ray", "--workers", "2", "--out", str(out)]
        assert cli.main([*args, *more]) == 0
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["refused"] == {
        "policy": ["top_k"]
    }
    assert "the server of the policy takes no top_k" in capsys.readouterr().err


def test_ctrl_c_does_not_wait_for_a_silent_server(cluster: Any, tmp_path: Path) -> None:
    over, gave_up = threading.Event(), threading.Event()

    def silent(_: Request) -> Reply:
        os.kill(os.getpid(), signal.SIGINT)
        if not over.wait(60):
            gave_up.set()
        return says("```Up```")

    with serving(silent) as url:
        args = ["--env", "frozenlake", "--policy", "openai:m", "--base-url", f"{url}/v1"]
        out = tmp_path / "ray"
        more = ["--limit", "4", "--concurrency", "1", "--executor", "ray", "--workers", "1"]
        assert cli.main([*args, *more, "--out", str(out)]) == 130
        assert not gave_up.is_set()
        over.set()
    assert (out / "episodes.jsonl").read_text(encoding="utf-8") == ""


def machine(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"memory": 1e9, **resources}}


ROOM: list[tuple[list[dict[str, Any]], float, int]] = [
    ([], 0, 0),
    ([machine(CPU=2), machine(CPU=1.5), machine()], 0, 3),
    ([machine(CPU=8), machine(alive=False, CPU=8)], 0, 8),
    ([machine(CPU=4, GPU=1), machine(CPU=4, GPU=1)], 2, 0),  # no machine has two
    ([machine(CPU=4, GPU=4), machine(CPU=4, GPU=1)], 2, 2),
    ([machine(CPU=1, GPU=8), machine(CPU=8)], 1, 1),  # processors run out first, or the others
    ([machine(CPU=16, GPU=1)], 0.1, 10),
    ([machine(CPU=16, GPU=2)], 0.6, 2),  # a part is of one processor
]


@pytest.mark.parametrize(("nodes", "gpus", "room"), ROOM)
def test_workers_are_counted_machine_by_machine(
    nodes: list[dict[str, Any]], gpus: float, room: int
) -> None:
    assert _room(nodes, gpus) == room


BAD: list[tuple[list[str], str]] = [
    (["--workers", "3"], "room for 2 workers of 1 CPU and 0 GPU, not for 3"),
    (["--worker-gpus", "1"], "room for 0 workers of 1 CPU and 1 GPU, not for 2"),
    (["--worker-gpus", "-1"], "0 graphics processors or more, not -1.0"),
    (["--policy", "human"], "human sits at this machine"),
    (["--policy", "randm"], "on a worker: no policy 'randm'; valid: nano, random"),
    (["--split", "tset"], "no split 'tset'"),
    (["--attempts", "2"], "random writes no reflections"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=lambda v: " ".join(v)[:40])
def test_bad_arguments_are_one_line_and_write_nothing(
    cluster: Any,
    argv: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = ["--env", "sokoban", "--policy", "random", "--executor", "ray"]
    out = tmp_path / "run"
    assert cli.main([*usual, *argv, "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not out.exists() and not ray.is_initialized()


@pytest.mark.parametrize("when", ["load", "play"])
def test_a_workers_error_tells_none_of_its_secrets(cluster: Any, when: str) -> None:
    """They are its own: the driver's environment does not hold them."""

    def load() -> policies.Policy:
        key = os.environ["WORKER_KEY"] = "worker-only-key-7"

        def fail(*_: Any) -> Any:
            try:
                raise OSError(f"illegal header {key!r}")
            except OSError as error:
                raise KeyError(f"no answer at http://me:{key}@host") from error

        policy = policies.load("random")
        policy.complete = fail  # type: ignore[method-assign, assignment]
        return fail() if when == "load" else policy

    config = Config(["frozenlake"], split="small-test", limit=2)
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        executor = RayExecutor(config, load, None, workers=1)
        try:
            list(executor.play([Job(tasks.load("frozenlake", "small-test")[0], 0, 0)]))
        finally:
            executor.close()
    shown = "".join(traceback.format_exception(caught.value))
    assert "worker-only-key-7" not in shown
    assert "illegal header '[WORKER_KEY]'" in shown and "http://[secret]@host" in shown


def test_no_cluster_at_the_address_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    args = ["--env", "sokoban", "--policy", "random", "--executor", "ray"]
    assert cli.main([*args, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "no Ray cluster at 127.0.0.1:9" in err and err.count("\n") == 1


def test_ray_missing_and_options_without_it_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--env", "sokoban", "--policy", "random", "--out", str(tmp_path / "run")]
    assert cli.main([*args, "--workers", "2"]) == 2
    assert "--workers and --worker-gpus need --executor ray" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "erl_envs.eval.executor_ray")
    assert cli.main([*args, "--executor", "ray"]) == 2
    err = capsys.readouterr().err
    assert "need the package 'ray': pip install 'erl-envs[ray]'" in err and err.count("\n") == 1


def test_a_machine_is_lost_midway(cluster: Any, server: str, tmp_path: Path) -> None:
    """Last: the cluster has one machine less afterwards."""
    args, config, load = server_run(server)
    said: list[str] = []
    executor = RayExecutor(config, load, None, workers=2, say=said.append)

    def unplug(done: int, total: int) -> None:
        if done == 6:
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

    out = tmp_path / "ray"
    try:
        run = evaluate(config, executor, RunFolder(out), progress=unplug)
    finally:
        executor.close()
    assert len(said) == 1 and run["counts"] == {"episodes": 20, "invalid": 0}
    assert cli.main([*args, "--out", str(tmp_path / "one")]) == 0
    same_run(tmp_path / "one", out)
