"""Task sets: pinned hashes, no board in two splits, none unsolvable in its turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from erl_envs import registry, tasks
from erl_envs.core import EnvError, Task, digest
from erl_envs.frozenlake import FrozenLake
from erl_envs.frozenlake.levels import board_of
from erl_envs.retrieval import RetrievalError

GAMES = ("frozenlake", "sokoban")

PINNED = {
    ("frozenlake", "train"): (10_000, "9f4793d9a9d1e5fc"),
    ("frozenlake", "test"): (200, "5e6cf6df437f8e60"),
    ("frozenlake", "hard"): (100, "2dce8206ef5d1daf"),
    ("hotpotqa", "small-train"): (800, "83a02ef47e51c755"),
    ("hotpotqa", "small-test"): (100, "faacf0e74e74c148"),
    ("frozenlake", "small-train"): (800, "d78bf14e82a89ebd"),
    ("frozenlake", "small-test"): (100, "1c310c8a8b7a0c7b"),
    ("frozenlake", "paper-train"): (10_000, "93d99ca232c8a32d"),
    ("frozenlake", "paper-test"): (100, "7a2ce403e65ff573"),
    ("hotpotqa", "train"): (2_000, "cdc3955ebb1af095"),
    ("hotpotqa", "test"): (200, "13b8118b4e11102e"),
    ("hotpotqa", "hard"): (100, "419278727908e448"),
    ("sokoban", "train"): (10_000, "2dc356e98242fba7"),
    ("sokoban", "test"): (200, "336ae16ab8c19bef"),
    ("sokoban", "hard"): (100, "cc1e51a81b51c5c4"),
    ("sokoban", "small-train"): (800, "3fb0a27dc5ce0a29"),
    ("sokoban", "small-test"): (100, "d3df813d45a57f2b"),
    ("sokoban", "paper-train"): (10_000, "6d1ccd7cfac21c13"),
    ("sokoban", "paper-test"): (100, "dcc028c37f279e97"),
}


def boards(env: str, split: str) -> list[str]:
    found = tasks.load(env, split)
    if env == "frozenlake":
        return [board_of(task.params)[0] for task in found]
    return ["\n".join(task.params["layout"]) for task in found]


@pytest.mark.parametrize(("env", "split"), PINNED)
def test_counts_and_hashes_are_pinned(env: str, split: str) -> None:
    found = tasks.load(env, split)
    assert (len(found), tasks.split_hash(found)[:16]) == PINNED[env, split]
    assert all(task.split == split and task.env == env for task in found)


@pytest.mark.parametrize("env", registry.list_envs())
def test_every_split_is_pinned(env: str) -> None:
    assert {(env, split) for split in tasks.splits(env)} == {key for key in PINNED if key[0] == env}


@pytest.mark.parametrize("env", GAMES)
def test_no_board_stands_in_two_splits_or_twice(env: str) -> None:
    ours = [boards(env, split) for split in ("train", "test", "hard")]
    everything = [board for split in ours for board in split]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("env", ["frozenlake", "sokoban"])
def test_no_small_test_board_is_trained_on(env: str) -> None:
    held_out = set(boards(env, "small-test"))
    assert len(held_out) == 100
    assert held_out.isdisjoint(boards(env, "small-train") + boards(env, "train"))


@pytest.mark.parametrize(("env", "split"), [key for key in PINNED if not key[1].endswith("train")])
def test_every_task_is_solvable_in_its_turns(env: str, split: str) -> None:
    assert solvable(env, tasks.load(env, split))


@pytest.mark.parametrize("env", GAMES)
def test_a_share_of_train_is_solvable_in_its_turns(env: str) -> None:
    assert solvable(env, tasks.load(env, "train")[::50])


@pytest.mark.slow
@pytest.mark.parametrize("env", GAMES)
@pytest.mark.parametrize("split", ["train", "paper-train"])
def test_all_of_train_is_solvable_in_its_turns(env: str, split: str) -> None:
    assert solvable(env, tasks.load(env, split))


def solvable(name: str, some: Iterable[Task]) -> bool:
    env = registry.make(name)
    for task in some:
        env.reset(options={"task": task})
        plan = env.oracle()
        if plan is None or len(plan) > env.max_turns:
            return False
    return True


def test_the_papers_leak_is_there_and_ours_is_not() -> None:
    train, test = boards("frozenlake", "paper-train"), boards("frozenlake", "paper-test")
    assert sum(board in set(train) for board in test) == 18  # PAPER.md: measured
    assert len(set(train)) == 8_502


def test_describe_matches_the_papers_measured_values() -> None:
    lake = tasks.describe("frozenlake", "paper-test")
    room = tasks.describe("sokoban", "paper-test")
    assert lake["random"] == pytest.approx(0.193, abs=5e-4)
    assert room["random"] == pytest.approx(0.028, abs=5e-4)
    assert lake["ceiling"] == room["ceiling"] == 1.0
    moves = sum(turns * count for turns, count in room["difficulty"].items()) / 100
    assert moves == pytest.approx(5.77)  # PAPER.md: mean shortest solution
    assert lake["unsolvable"] == room["unsolvable"] == 0


def test_a_task_is_its_content() -> None:
    task = tasks.load("frozenlake", "test")[0]
    assert task.id == digest(["frozenlake", dict(task.params)])[:12]
    assert Task.from_json(task.to_json()) == task
    with pytest.raises(ValueError, match="does not match"):
        Task("frozenlake", {"seed": 1, "size": 4, "p": 0.7}, id=task.id)
    with pytest.raises(ValueError, match="unknown task fields \\['sede'\\]"):
        Task.from_json({**task.to_json(), "sede": 1})
    with pytest.raises(ValueError, match="missing task fields \\['params'\\]"):
        Task.from_json({"env": "frozenlake"})
    with pytest.raises(ValueError, match="params must be a mapping, not 3"):
        Task.from_json({"env": "frozenlake", "params": 3})


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert tasks.main(["list"]) == 0
    assert (
        "frozenlake train test small-train small-test hard paper-train paper-test"
        in capsys.readouterr().out
    )
    assert tasks.main(["describe", "sokoban", "paper-test"]) == 0
    out = capsys.readouterr().out
    assert "100 tasks" in out and "0.02766" in out and "1.00000" in out and "█" in out
    assert tasks.main(["export", "frozenlake", "paper-test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Task.from_json(json.loads(line)) for line in lines] == list(
        tasks.load("frozenlake", "paper-test")
    )


def test_an_export_whose_reader_has_enough_ends_quietly() -> None:
    command = f"{sys.executable} -m erl_envs.tasks export frozenlake train | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["describe", "chess", "test"],
            "no environment 'chess'; valid: frozenlake, hotpotqa, sokoban",
        ),
        (
            ["export", "sokoban", "tset"],
            "sokoban has no split 'tset'; valid: train, test, small-train",
        ),
    ],
)
def test_bad_arguments_are_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tasks.main(argv) == 2
    err: Any = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_what_data_holds_twice_is_one_task(tmp_path: Path) -> None:
    question = {
        "_id": "1",
        "question": "Who painted ships?",
        "answer": "Ada Quill",
        "type": "bridge",
        "supporting_facts": [["Ada Quill", 0]],
        "context": [["Ada Quill", ["Ada Quill painted ships."]]],
    }
    path = tmp_path / "questions.json"
    path.write_text(json.dumps([question, {**question, "_id": "2"}]), encoding="utf-8")
    assert len(tasks.load("hotpotqa", "all", data=f"file:{path}")) == 1


class Closed(FrozenLake):
    """The lake of every other task is closed."""

    asked = 0

    def begin(self, params: Any) -> None:
        type(self).asked += 1
        if type(self).asked % 2:
            raise EnvError("the lake is closed")
        super().begin(params)


class Down(Closed):
    """Its retriever is down."""

    def begin(self, params: Any) -> None:
        type(self).asked += 1
        raise RetrievalError("nobody answers")


def test_what_cannot_be_asked_is_unknown() -> None:
    chosen = tasks.load("frozenlake", "small-test")[:4]
    found = tasks.references(Closed(), chosen)
    assert [reference is None for reference in found] == [True, False, True, False]
    Down.asked = 0
    assert tasks.references(Down(), chosen) == [None] * 4
    assert Down.asked == 1


def test_a_server_that_is_down_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    down = ["--option", "retriever=http", "--option", "retriever_url=http://127.0.0.1:9/retrieve"]
    assert tasks.main(["describe", "hotpotqa", "small-test", *down]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
