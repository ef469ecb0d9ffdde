"""One process at a time writes a folder: every command, whoever dies, whatever the file system."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from submissions import make_run

from erl_envs import locks
from erl_envs.arguments import IN_USE
from erl_envs.eval import __main__ as evaluation
from erl_envs.eval.run import Here
from erl_envs.files import LOCK, WriteError
from erl_envs.leaderboard import __main__ as leaderboard
from erl_envs.locks import InUse, hold, is_held
from erl_envs.records import read_episodes

Busy = Callable[[Path], subprocess.Popen[str]]

HOLDER = """
import sys
from pathlib import Path
from erl_envs.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

EVAL = ["--env", "frozenlake", "--policy", "random", "--limit", "6", "--samples", "3", "--out"]


@pytest.fixture
def busy() -> Iterator[Busy]:
    """Starts a process that holds a folder until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(folder)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="utf-8")
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_second_starter_is_told_who_holds_it(tmp_path: Path, busy: Busy) -> None:
    holder = busy(tmp_path / "run")
    assert is_held(tmp_path / "run")
    with pytest.raises(InUse, match=rf"run is in use by process {holder.pid} on \S+; one at a"):
        hold(tmp_path / "run").__enter__()


@pytest.mark.usefixtures("impatient")
def test_a_killed_process_leaves_no_lock(tmp_path: Path, busy: Busy) -> None:
    holder = busy(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists() and not is_held(tmp_path)
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_who_waits_gets_it_once_it_is_free(
    tmp_path: Path, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = busy(tmp_path / "run")

    def end(seconds: float) -> None:
        holder.communicate()  # it ends, and removes the folder that it had made

    monkeypatch.setattr("erl_envs.locks.time.sleep", end)
    with hold(tmp_path / "run"):
        assert holder.returncode == 0 and is_held(tmp_path / "run")


def test_a_lock_on_a_file_that_is_gone_is_none(
    tmp_path: Path, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, lock = busy(tmp_path / "run"), locks._lock

    def late(handle: int, folder: Path) -> bool:
        holder.communicate()  # between the file's being opened and its being locked
        return lock(handle, folder)

    monkeypatch.setattr(locks, "_lock", late)
    with hold(tmp_path / "run"):
        monkeypatch.undo()
        assert is_held(tmp_path / "run")


def test_nothing_is_left_of_a_lock(tmp_path: Path) -> None:
    with hold(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with hold(tmp_path / "run"):
        (tmp_path / "run" / "kept").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["kept"]
    with hold(tmp_path / "run"), pytest.raises(ValueError, match="is no folder"):
        hold(tmp_path / "run" / "kept").__enter__()


@pytest.mark.usefixtures("impatient")
def test_a_folder_removed_and_made_again_keeps_the_new_ones_lock(
    tmp_path: Path, busy: Busy
) -> None:
    with hold(tmp_path / "run"):
        (tmp_path / "run" / LOCK).unlink()
        (tmp_path / "run").rmdir()
        busy(tmp_path / "run")
    assert is_held(tmp_path / "run")


def test_a_file_system_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("erl_envs.locks.fcntl.flock", none)
    with hold(tmp_path):
        pass
    err = capsys.readouterr().err
    assert err == (
        f"{tmp_path} cannot be locked (No locks available): see that nothing else writes it\n"
    )
    monkeypatch.setattr(locks, "fcntl", None)  # Windows
    with hold(tmp_path), hold(tmp_path):
        pass
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("erl_envs.locks.os.open", refuse)
    with pytest.raises(WriteError, match=r"cannot write .*: Read-only file system"):
        hold(tmp_path).__enter__()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_eval_refuses_a_folder_in_use(
    resume: list[str], tmp_path: Path, busy: Busy, capsys: pytest.CaptureFixture[str]
) -> None:
    if resume:
        assert evaluation.main([*EVAL, str(tmp_path)]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    holder = busy(tmp_path)
    capsys.readouterr()
    assert evaluation.main([*EVAL, str(tmp_path), *resume]) == IN_USE
    err = capsys.readouterr().err
    assert f"in use by process {holder.pid} on " in err and err.count("\n") == 1
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != LOCK}
    assert after == before
    # who only reads asks for no lock
    if resume:
        again = [*EVAL, str(tmp_path / "again"), "--policy", f"replay:{tmp_path}"]
        assert evaluation.main(again) == 0


@pytest.mark.usefixtures("impatient")
def test_a_run_that_is_resumed_twice_has_each_episode_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    play = Here.play
    codes: list[int | None] = []

    def and_again(self: Here, jobs: Any) -> Iterator[Any]:
        for number, episode in enumerate(play(self, jobs)):
            if number == 5 and not codes:  # another one begins while this one plays
                codes.append(None)
                codes[0] = evaluation.main([*EVAL, str(out), "--resume"])
            yield episode

    monkeypatch.setattr(Here, "play", and_again)
    assert evaluation.main([*EVAL, str(out)]) == 0
    assert codes == [IN_USE]
    assert len({episode.key for episode in read_episodes(out / "episodes.jsonl")}) == 18
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["counts"]["episodes"] == 18


@pytest.mark.usefixtures("impatient")
def test_the_leaderboard_s_folders_are_locked(
    tmp_path: Path, busy: Busy, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "submissions").mkdir()
    out, run = tmp_path / "out", make_run(tmp_path / "run")
    track = out / "frozenlake-small-test-hidden-outcome-1"
    submit = ["submit", str(run), "--name", "a", "--model", "m", "--revision", "1"]
    for folder, argv in (
        (track, [*submit, "--out", str(out)]),
        (tmp_path, ["build", "--home", str(tmp_path), "--site", str(tmp_path / "site")]),
    ):
        holder = busy(folder)
        assert leaderboard.main(argv) == IN_USE
        assert f"in use by process {holder.pid} on " in capsys.readouterr().err
        holder.communicate()
    assert leaderboard.main([*submit, "--out", str(out)]) == 0
    [entry] = track.iterdir()  # and no lock
    assert not entry.name.startswith(".")


@pytest.mark.usefixtures("impatient")
class TestTrainer:
    """Its commands; none loads a model before it holds the folder."""

    @pytest.fixture(autouse=True)
    def torch(self) -> None:
        pytest.importorskip("torch")
        pytest.importorskip("matplotlib")

    @pytest.mark.parametrize(
        ("argv", "folder"),
        [
            (["train", "--out", "RUN"], "RUN"),
            (["train", "--out", "RUN", "--resume"], "RUN"),
            (["sft", "--from", "nowhere", "--out", "RUN"], "RUN"),
            (["nano", "--env", "sokoban", "--out", "RUN"], "RUN/sokoban"),
            (["curves", "GRID", "--out", "RUN"], "RUN"),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_its_commands_refuse_a_folder_in_use(
        self,
        argv: list[str],
        folder: str,
        tmp_path: Path,
        busy: Busy,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        from erl_trainer.__main__ import main

        grid = {
            "environments": {"lake": {"env": "frozenlake"}},
            "methods": {"GRPO": {"algo": "grpo"}},
            "seeds": [0],
        }
        (tmp_path / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
        at = {"RUN": str(tmp_path / "run"), "GRID": str(tmp_path / "grid.json")}
        holder = busy(Path(folder.replace("RUN", at["RUN"])))
        assert main([at.get(word, word) for word in argv]) == IN_USE
        err = capsys.readouterr().err
        assert f"in use by process {holder.pid} on " in err and err.count("\n") == 1

    def test_of_several_processes_the_first_holds_it(self, tmp_path: Path, busy: Busy) -> None:
        from launching import together

        holder = busy(tmp_path)
        train = ["-m", "erl_trainer", "train", "--loggers", "[]", "--out", str(tmp_path)]
        for said in together(train, code=IN_USE):
            assert f"in use by process {holder.pid} on " in said

    def test_a_grid_waits_for_a_run_that_another_left_behind(
        self, tmp_path: Path, busy: Busy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from erl_trainer.curves import runner
        from erl_trainer.curves.grid import Run

        runs = [Run("lake", "GRPO", seed, 1, {}) for seed in (0, 1)]
        holder, begun = busy(tmp_path / runs[0].folder), []

        def train(config: Path, folder: Path) -> list[str]:
            begun.append((folder.name, holder.poll()))
            if len(begun) == 1:  # as if another had been quicker to hold it
                return [sys.executable, "-c", f"raise SystemExit({IN_USE})"]
            holder.communicate()
            return [sys.executable, "-c", f"open({str(folder / 'done.json')!r}, 'w').write('{{}}')"]

        calls = iter(range(1000))

        def show(*_: Any) -> None:
            next(calls)  # ends a test that waits in vain

        monkeypatch.setattr(runner, "_POLL", 0.01)
        assert runner.run_all(runs, tmp_path, 2, show, train) == []
        # the free one first, again once it was refused, and then the other
        assert begun == [("1", None), ("1", None), ("0", 0)]
