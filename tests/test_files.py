"""Files and folders are whole or not there, and a disk that takes no more is told in one line."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from disks import small_disk
from submissions import ALONE, make_run, make_submission

from erl_envs import files
from erl_envs.arguments import OK, UNWRITABLE, USAGE
from erl_envs.eval import __main__ as evaluation
from erl_envs.eval.runfolder import RunFolder
from erl_envs.files import Lines, WriteError, is_unused, keep_lines, new_folder, write_whole
from erl_envs.leaderboard import __main__ as leaderboard
from erl_envs.leaderboard.submit import submit
from erl_envs.policies.scripted import Replay
from erl_envs.records import read_episodes

EVAL = ["--env", "frozenlake", "--policy", "random", "--limit", "6", "--samples", "3", "--out"]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error, after what told the progress."""
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("episodes ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    with small_disk(1000), pytest.raises(WriteError, match=f"cannot write {path}: File too large"):
        write_whole(path, "new" * 1000)
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("first", "second"):
        with new_folder(folder) as part:
            (part / name).write_text(name, encoding="utf-8")
    assert [path.name for path in folder.iterdir()] == ["second"]
    for fault in (OSError("it broke"), KeyboardInterrupt(), ValueError("os error")):
        with pytest.raises((WriteError, KeyboardInterrupt, ValueError)), new_folder(folder) as part:
            (part / "third").write_text("third", encoding="utf-8")
            raise fault
    with (
        pytest.raises(WriteError, match=r"folder: I/O error: No space \(os error 28\)$"),
        new_folder(folder),
    ):
        raise Exception("I/O error: No space (os error 28)\nand more")  # as tokenizers does
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_kill_leaves_of_a_folder_is_no_obstacle(tmp_path: Path) -> None:
    for name in ("part", "old"):
        (tmp_path / f".folder.{name}" / "rest").mkdir(parents=True)
    assert is_unused(tmp_path)
    with new_folder(tmp_path / "folder") as part:
        (part / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert not is_unused(tmp_path) and is_unused(tmp_path, besides=["folder"])
    assert is_unused(tmp_path / "nowhere")


def test_a_line_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "lines")
    lines.write("one")
    with small_disk(1000), pytest.raises(WriteError, match="File too large"):
        lines.write("two" * 1000)
    lines.write("√")
    lines.close()
    assert (tmp_path / "lines").read_text(encoding="utf-8") == "one\n√\n"


@pytest.mark.parametrize(
    ("kept", "left", "copied"),
    [
        ([True, True], "a\nb\n", False),  # "c" is half a line
        ([True], "a\n", False),
        ([], "", False),
        ([True, False], "a\n", False),
        ([False, True], "b\n", True),
    ],
)
def test_lines_are_dropped_in_place_where_they_can_be(
    kept: Sequence[bool], left: str, copied: bool, tmp_path: Path
) -> None:
    path = tmp_path / "lines"
    path.write_text("a\nb\nc", encoding="utf-8")
    before = path.stat().st_ino
    with small_disk(1000 if copied else 0):  # no room for anything
        keep_lines(path, kept)
    assert path.read_text(encoding="utf-8") == left
    assert (path.stat().st_ino != before) == copied


def test_a_full_disk_ends_a_run_that_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert evaluation.main([*EVAL, str(whole)]) == OK
    # room for some of the episodes
    with small_disk((whole / "episodes.jsonl").stat().st_size // 2):
        capsys.readouterr()
        assert evaluation.main([*EVAL, str(out)]) == UNWRITABLE
        assert f"cannot write {out / 'episodes.jsonl'}: File too large" in told(capsys)
        played = (out / "episodes.jsonl").read_bytes()
        assert 0 < len(read_episodes(out / "episodes.jsonl")) < 18
        # no more room, but nothing is lost by trying
        assert evaluation.main([*EVAL, str(out), "--resume"]) == UNWRITABLE
        assert (out / "episodes.jsonl").read_bytes() == played
    assert evaluation.main([*EVAL, str(out), "--resume"]) == OK
    ours, theirs = (
        sorted(episode.key for episode in read_episodes(path / "episodes.jsonl"))
        for path in (out, whole)
    )
    assert ours == theirs
    # its numbers can be summed up again, its report may be as large as the disk is small
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with small_disk((out / "run.json").stat().st_size + 1000):
        capsys.readouterr()
        assert evaluation.main([*EVAL, str(out), "--resume"]) == UNWRITABLE
        assert f"cannot write {out / 'report.html'}: File too large" in told(capsys)
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {**after, "run.json": b""} == {**before, "run.json": b""}


def test_a_resumed_run_needs_no_room_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert evaluation.main([*EVAL, str(out)]) == OK
    whole = (out / "episodes.jsonl").read_bytes()
    (out / "episodes.jsonl").write_bytes(whole[:-10])  # as a kill leaves it
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    with small_disk(0):
        _, finished = RunFolder(out).resume(run)
    assert len(finished) == 17
    assert (out / "episodes.jsonl").read_bytes() == whole[: whole[:-10].rfind(b"\n") + 1]


def test_a_run_that_was_killed_as_it_began_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in (files.LOCK, ".run.json.part"):
        (out / name).touch()
    assert evaluation.main([*EVAL, str(out)]) == OK
    assert sorted(os.listdir(out)) == ["episodes.jsonl", "report.html", "run.json"]


def test_an_episode_that_stands_twice_is_found_by_whoever_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    path = run / "episodes.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[3]]), encoding="utf-8")
    message = f"{path} line {len(lines) + 1} holds the episode of line 4 again: two processes"
    doubled = path.read_bytes()
    resumed = ["--env", "frozenlake", "--split", "small-test", "--samples", "4", "--resume"]
    policy = ["--policy", "random", "--option", "feedback=outcome", "--out", str(run)]
    assert evaluation.main([*resumed, *policy]) == USAGE
    assert message in told(capsys) and path.read_bytes() == doubled
    readers: list[Callable[[], Any]] = [
        lambda: Replay.of_run("replay:run", run),
        lambda: list(RunFolder(run).episodes),
        lambda: submit(run, "frozenlake", ALONE, tmp_path / "out"),
    ]
    for read in readers:
        with pytest.raises(ValueError, match="holds the episode of line 4 again"):
            read()


def test_an_episode_of_no_task_of_the_run_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert evaluation.main([*EVAL, str(out)]) == OK
    line = json.loads((out / "episodes.jsonl").read_text(encoding="utf-8").splitlines()[0])
    with (out / "episodes.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "sample": 3}) + "\n")
    capsys.readouterr()
    assert evaluation.main([*EVAL, str(out), "--resume"]) == USAGE
    assert "holds an episode of no task: ('frozenlake', " in told(capsys)


def test_a_full_disk_leaves_nothing_of_a_submission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    words = ["submit", str(run), "--name", "a", "--model", "m", "--revision", "1"]
    with small_disk(5000):
        assert leaderboard.main([*words, "--out", str(tmp_path / "out")]) == UNWRITABLE
    assert "_a: File too large" in told(capsys)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_site_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_submission(tmp_path)
    site = tmp_path / "site"
    words = ["build", "--home", str(tmp_path), "--site", str(site)]
    assert leaderboard.main(words) == OK
    before = {path: path.read_bytes() for path in sorted(site.rglob("*")) if path.is_file()}
    with small_disk(20_000):
        capsys.readouterr()
        assert leaderboard.main(words) == UNWRITABLE
    assert f"cannot write {site / 'entries'}: File too large" in told(capsys)
    assert before == {path: path.read_bytes() for path in sorted(site.rglob("*")) if path.is_file()}


class TestTrainer:
    """Its commands on a full disk; training itself is in test_train.py."""

    @pytest.fixture(autouse=True)
    def torch(self) -> None:
        pytest.importorskip("torch")
        pytest.importorskip("matplotlib")

    def test_sft_keeps_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from tiny_models import untrained_nano

        from erl_trainer.__main__ import main

        oracle = [*EVAL, str(tmp_path / "run"), "--policy", "oracle"]
        assert evaluation.main(oracle) == OK
        model, out = untrained_nano(tmp_path / "model"), tmp_path / "out"
        learn = ["sft", "--from", str(tmp_path / "run"), "--model", model, "--out", str(out)]
        with small_disk(20_000):
            capsys.readouterr()
            assert main([*learn, "--epochs", "1"]) == UNWRITABLE
        err = capsys.readouterr().err.splitlines()
        assert err[-1].startswith(f"error: cannot write {out / 'model'}: ")
        assert "File too large" in err[-1] and not out.exists()

    def test_sft_that_was_killed_begins_anew(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from tiny_models import untrained_nano

        from erl_trainer.__main__ import main

        assert evaluation.main([*EVAL, str(tmp_path / "run"), "--policy", "oracle"]) == OK
        model, out = untrained_nano(tmp_path / "model"), tmp_path / "out"
        learn = ["sft", "--from", str(tmp_path / "run"), "--model", model, "--out", str(out)]
        (out / ".model.part").mkdir(parents=True)
        (out / "config.json").write_text("{}", encoding="utf-8")
        (out / "metrics.jsonl").write_text('{"step": 1}\n{"st', encoding="utf-8")
        assert main([*learn, "--epochs", "1"]) == OK
        assert sorted(os.listdir(out)) == ["config.json", "metrics.jsonl", "model"]
        assert [json.loads(x)["step"] for x in (out / "metrics.jsonl").open(encoding="utf-8")] == [
            1
        ]
        assert main([*learn, "--epochs", "1"]) == USAGE  # that one is finished

    def test_tensorboard_s_thread_says_nothing_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("tensorboard")
        from erl_trainer.metrics import Trackers

        monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
        before = set(threading.enumerate())
        trackers = Trackers(["tensorboard"], tmp_path, {}, 0)
        mine = set(threading.enumerate()) - before
        with (
            small_disk(20_000),
            pytest.raises(WriteError, match="tensorboard: File too large"),
        ):
            trackers.write(1, {f"metric {number}": 1.0 for number in range(1000)})
            trackers.close()
        for thread in mine:
            thread.join(60)
        assert mine and "Traceback" not in capfd.readouterr().err

        def fail() -> None:
            raise KeyError("another thread's")

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        assert "another thread's" in capfd.readouterr().err

    def test_figures_stay_as_they_were(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from erl_trainer.__main__ import main

        grid = {
            "environments": {"lake": {"env": "frozenlake"}},
            "methods": {"GRPO": {"algo": "grpo", "steps": 1}},
            "seeds": [0],
        }
        (tmp_path / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
        run = tmp_path / "out" / "runs" / "lake" / "grpo" / "0"
        run.mkdir(parents=True)
        (run / "config.json").write_text("{}", encoding="utf-8")
        (run / "done.json").write_text('{"reason": "steps"}', encoding="utf-8")
        rows = [{"step": 0, "eval/reward": 0.1}, {"step": 1, "eval/reward": 0.5}]
        (run / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
        draw = ["curves", str(tmp_path / "grid.json"), "--out", str(tmp_path / "out")]
        assert main([*draw, "--draw-only"]) == OK
        out = tmp_path / "out"
        before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
        with small_disk(10_000):
            capsys.readouterr()
            assert main([*draw, "--draw-only"]) == UNWRITABLE
        assert "curves_steps.png: File too large" in told(capsys)
        assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    def test_pre_training_is_told_by_the_process_that_failed(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        from erl_trainer.__main__ import main

        words = ["nano", "--env", "sokoban", "--steps", "1", "--no-compile", "--out"]
        with small_disk(50_000):
            assert main([*words, str(tmp_path)]) == UNWRITABLE
        errors = [x for x in capfd.readouterr().err.splitlines() if "pre-training" not in x]
        assert len(errors) == 1 and errors[0].startswith(f"error: cannot write {tmp_path}/sokoban/")
        assert not list((tmp_path / "sokoban").glob("*"))
