"""`file:PATH` as a split: whatever the file is, it is read, or refused in one line."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from erl_envs import registry, tasks
from erl_envs.adapters import rows
from erl_envs.arguments import UNWRITABLE, one_line
from erl_envs.core import Step, Task, TextEnv
from erl_envs.eval import __main__ as evaluation
from erl_envs.frozenlake import FrozenLake
from erl_envs.json_rows import json_rows
from erl_envs.leaderboard import __main__ as leaderboard
from erl_envs.sokoban import Sokoban
from erl_envs.task_files import TaskFile, strictly
from erl_trainer.config import configure
from erl_trainer.origin import check_origin, origin

LEVEL = "#####\n#@$.#\n#####\n"
OTHER = "######\n#@ $.#\n######\n"
BAD = "####\n#@$#\n####\n"


def put(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return f"file:{path}"


def values(text: str) -> list[tuple[str, Any]]:
    return [(p, "bad" if isinstance(v, ValueError) else v) for p, v in json_rows(text)]


# Files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \r\n\t\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"#####\x00\x01", "is binary: byte 6 is 0"),
        (b"\x1f\x8b\x08\x00gzip", "is binary: byte 4 is 0"),
        ("only words\n", "holds no sokoban tasks"),
        (BAD, "holds no sokoban tasks; line 1: layout must hold as many boxes as goals"),
        ("[" * 100_000, "is no JSON: it is nested too deeply"),
        ('[{"layout": 3},\n{]', "line 2 is no JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, content: str | bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    split = put(tmp_path, "levels.xsb", content)
    assert tasks.main(["describe", "sokoban", split]) == 2
    err = capsys.readouterr().err
    assert message in err and str(tmp_path) in err and err.count("\n") == 1


def test_what_is_no_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "it is a folder"),
        (tmp_path / "pipe", "it is no plain file"),  # and nobody waits for it
        (tmp_path / "nothing", "No such file or directory"),
        (tmp_path / "a\0b", "embedded null byte"),
    ):
        assert tasks.main(["export", "sokoban", f"file:{path}"]) == 2
        err = capsys.readouterr().err
        shown = one_line(path)  # in which nothing is hidden
        assert f"cannot read {shown}" in err and message in err and err.count("\n") == 1
    assert tasks.main(["describe", "sokoban", "file:"]) == 2
    assert "or file:PATH" in capsys.readouterr().err


def test_a_file_that_is_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = LEVEL + "\n"
    monkeypatch.setattr(Sokoban, "max_file", 100 * len(level))
    assert len(tasks.load("sokoban", put(tmp_path, "levels.xsb", level * 100))) == 1
    put(tmp_path, "larger.xsb", level * 10_000)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"more than 1,900 bytes, the most that are read"):
        tasks.load("sokoban", f"file:{tmp_path}/larger.xsb")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000  # of 190,000 in the file


@pytest.mark.parametrize(
    "content",
    [
        LEVEL.replace("\n", "\r\n").encode(),
        LEVEL.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + LEVEL.encode(),
        LEVEL.encode("utf-16"),
        "Title: año\n".encode("latin-1") + LEVEL.encode(),
        LEVEL.rstrip().encode(),
        (LEVEL + "\n" + LEVEL).encode(),  # twice is once
    ],
)
def test_however_it_was_saved_it_is_the_same_task(tmp_path: Path, content: bytes) -> None:
    plain = tasks.load("sokoban", put(tmp_path, "plain.xsb", LEVEL))
    found = tasks.load("sokoban", put(tmp_path, "other.xsb", content))
    assert tasks.split_hash(found) == tasks.split_hash(plain) and len(found) == 1


# Rows


def test_rows_of_json_are_named_by_line_and_number() -> None:
    assert values('[1,\n2,\n\n{"a": 3}]\n') == [
        ("row 1 (line 1)", 1),
        ("row 2 (line 2)", 2),
        ("row 3 (line 4)", {"a": 3}),
    ]
    assert values('{"a": 1}\n\n{"a": 2\n{"a": 3}\n') == [
        ("line 1", {"a": 1}),
        ("line 3", "bad"),
        ("line 4", {"a": 3}),
    ]
    assert values('{\n"a": 1\n}') == [("line 1", {"a": 1})]
    assert values("[1]\n[2]\n") == [("line 1", [1]), ("line 2", [2])]
    assert values("[]") == []
    assert values('{"a": "\u2028 \u0085"}\n{"b": 1}') == [
        ("line 1", {"a": "\u2028 \u0085"}),
        ("line 2", {"b": 1}),
    ]
    assert [v for _, v in values('{"a": 1}\n' + "[" * 9_000 + "\n" + "9" * 9_000)] == [
        {"a": 1},
        "bad",
        "bad",
    ]
    assert values("[1]\n\n[") == [("line 1", [1]), ("line 3", "bad")]
    assert values(b'["\xff", 1]'.decode(errors="surrogateescape"))[0][1] == "bad"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1\n 2]", "line 2 is no JSON: a comma is missing"),
        ("[1,\n2", "line 2 is no JSON"),
        ("[\n1] 2", "line 2 is no JSON: more stands behind"),
    ],
)
def test_broken_json_names_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(json_rows(text))


def test_bad_rows_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    split = put(tmp_path, "levels.xsb", "\n".join([LEVEL, BAD, OTHER, BAD]))
    with caplog.at_level(logging.WARNING):
        assert len(tasks.load("sokoban", split)) == 2
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{tmp_path}/levels.xsb: 2 of 4 sokoban tasks left out, the first at ")
    assert "line 5: layout must hold as many boxes as goals" in line
    assert tasks.main(["describe", "sokoban", split]) == 0
    shown = capsys.readouterr().out
    assert "2 tasks" in shown and "left out        2" in shown and "line 13: layout" in shown


def test_strict_stops_at_the_first_bad_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = put(tmp_path, "levels.xsb", "\n".join([LEVEL, BAD, OTHER]))
    assert tasks.main(["describe", "sokoban", split, "--strict"]) == 2
    asked = ["--env", "sokoban", "--policy", "random", "--split", split, "--strict"]
    assert evaluation.main([*asked, "--out", str(tmp_path / "run")]) == 2
    one, two = capsys.readouterr().err.splitlines()
    assert one == two and f"{tmp_path}/levels.xsb line 5: layout must hold" in one
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"levels\.xsb line 5: layout must hold"):
        tasks.load("sokoban", f"strict-{split}")
    good = put(tmp_path, "good.xsb", LEVEL)
    assert tasks.main(["export", "sokoban", good, "--strict"]) == 0
    assert strictly(good) == f"strict-{good}" == strictly(strictly(good))
    assert tasks.main(["export", "sokoban", "test", "--strict"]) == 2
    assert "--strict is for a split file:PATH, not 'test'" in capsys.readouterr().err


def test_what_is_said_of_a_row_has_an_end(tmp_path: Path) -> None:
    split = put(
        tmp_path, "tasks.jsonl", json.dumps({"layout": ["x" * 10_000]}) + "\n" + "{" * 9_999
    )
    with pytest.raises(ValueError, match="holds no sokoban tasks") as caught:
        tasks.load("sokoban", split)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


# Tasks of any environment


class Counter(TextEnv):
    """Somebody's own environment."""

    name = "counter"
    actions = ("More",)

    def sample_task(self, rng: Any) -> dict[str, Any]:
        return {"to": int(rng.integers(1, 5))}

    def begin(self, params: Any) -> None:
        if set(params) - {"max_turns"} != {"to"} or type(params["to"]) is not int:
            raise ValueError(f"a counter task has the field to: {dict(params)}")
        self.left = params["to"]

    def observe(self) -> str:
        return str(self.left)

    def act(self, action: str) -> Step:
        self.left -= 1
        done = self.left <= 0
        return Step("One more.", reward=float(done), outcome="solved" if done else "")

    def solve(self) -> list[str]:
        return ["More"] * self.left

    @classmethod
    def splits(cls, options: Any) -> dict[str, Any]:
        return {"test": lambda salt: ({"to": n} for n in range(1, 6))}


@pytest.fixture(autouse=True)
def counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRY_POINTS, "counter", Counter)


@pytest.mark.parametrize("env", ["counter", "frozenlake", "sokoban", "hotpotqa"])
def test_what_was_exported_reads_back_the_same(
    env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = {"counter": "test", "sokoban": "hard", "frozenlake": "hard"}.get(env, "small-test")
    out = tmp_path / "tasks.jsonl"
    assert tasks.main(["export", env, split, str(out)]) == 0
    assert capsys.readouterr().out == "" and not list(tmp_path.glob(".*"))
    public, found = tasks.load(env, split), tasks.load(env, f"file:{out}")
    assert [task.id for task in found] == [task.id for task in public]
    assert tasks.split_hash(found) == tasks.split_hash(public)
    assert {task.split for task in found} == {f"file:{out}"}
    assert tasks.main(["export", env, f"file:{out}", str(tmp_path / "again.jsonl")]) == 0
    assert tasks.load(env, f"file:{tmp_path}/again.jsonl")[0].params == public[0].params


def test_the_tasks_of_a_users_own_environment(tmp_path: Path) -> None:
    lines = [
        {"to": 2},
        {"to": "2"},
        Task("counter", {"to": 3}).to_json(),
        {**Task("counter", {"to": 3}).to_json(), "id": "0" * 12},
        Task("sokoban", {"to": 3}).to_json(),
        {"to": 2, "max_turns": 0},
        3,
    ]
    split = put(tmp_path, "own.jsonl", "\n".join(map(json.dumps, lines)))
    found = tasks.load_set("counter", split)
    assert [task.params for task in found.tasks] == [{"to": 2}, {"to": 3}]
    assert [f"{entry.place}: {entry.problem}" for entry in found.left_out] == [
        "line 2: a counter task has the field to: {'to': '2'}",
        "line 4: task id '000000000000' does not match its parameters (they give "
        f"{Task('counter', {'to': 3}).id!r})",
        "line 5: this is counter; the task is for 'sokoban'",
        "line 6: task field max_turns must be a whole number from 1 to 1000: 0",
        "line 7: a task is a JSON object, not 3",
    ]


def test_an_export_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (tmp_path, tmp_path / "nowhere" / "tasks.jsonl"):
        assert tasks.main(["export", "counter", "test", str(out)]) == UNWRITABLE
        err = capsys.readouterr().err
        assert f"cannot write {out}" in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# Who takes them


def test_a_path_is_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[red]" / "[").mkdir(parents=True)
    put(tmp_path / "[red]" / "[", "red].txt", "SG\n")
    split = "file:[red]/[/red].txt"
    assert tasks.main(["describe", "frozenlake", split]) == 0
    assert split in capsys.readouterr().out
    asked = ["--env", "frozenlake", "--policy", "oracle", "--split", split, "--out", "run"]
    assert evaluation.main(asked) == 0
    assert split in capsys.readouterr().out


def test_an_evaluation_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = put(tmp_path, "levels.xsb", "\n".join([LEVEL, BAD, OTHER]))
    out = str(tmp_path / "run")
    asked = ["--env", "sokoban", "--policy", "oracle", "--split", split, "--out", out]
    assert evaluation.main(asked) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    facts = run["envs"]["sokoban"]
    assert facts["split"] == split and (facts["tasks"], facts["left_out"]) == (2, 1)
    assert facts["split_hash"] == tasks.split_hash(tasks.load("sokoban", split))
    assert run["metrics"]["sokoban"]["reward"]["mean"] == 1.0
    assert evaluation.main([*asked, "--resume"]) == 0
    capsys.readouterr()
    put(tmp_path, "levels.xsb", LEVEL)
    assert evaluation.main([*asked, "--resume"]) == 2
    err = capsys.readouterr().err
    assert "with another configuration" in err and "envs.sokoban.split_hash" in err
    entry = ["--name", "me", "--model", "oracle", "--revision", "1"]
    assert leaderboard.main(["submit", out, *entry, "--out", str(tmp_path / "board")]) == 2
    err = capsys.readouterr().err
    assert f"the run played tasks of a file, {split}; no track has those" in err
    assert err.count("\n") == 1 and not (tmp_path / "board").exists()


def test_a_file_is_part_of_what_a_training_run_is_made_of(tmp_path: Path) -> None:
    split = put(tmp_path, "levels.xsb", LEVEL)
    config = configure("default", "erl", env="sokoban", train_split=split, eval_split=split)
    made = origin(config, "r")
    assert made["train_split"] == tasks.split_hash(tasks.load("sokoban", split))
    (tmp_path / "origin.json").write_text(json.dumps(made), encoding="utf-8")
    check_origin(origin(config, "r"), tmp_path)
    put(tmp_path, "levels.xsb", OTHER)
    with pytest.raises(ValueError, match="holds a run whose train_split was"):
        check_origin(origin(config, "r"), tmp_path)
    strict = dataclasses.replace(config, train_split=f"strict-{split}")
    assert origin(strict, "r") == origin(config, "r")


def test_adapters_take_a_file(tmp_path: Path) -> None:
    split = put(tmp_path, "maps.txt", "SFG\n\nSFFG\n")
    boards = [json.loads(row["task"])["params"] for row in rows.rows("frozenlake", split)]
    assert boards == [{"desc": ["SFG"]}, {"desc": ["SFFG"]}]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    split = put(tmp_path, "maps.txt", "SFG\n")
    assert len(tasks.load("frozenlake", split)) == 1
    put(tmp_path, "maps.txt", "SFG\n\nSFFG\n")
    assert len(tasks.load("frozenlake", split)) == 2


@pytest.mark.parametrize("split", ["file:levels", "strict-file:levels"])
def test_a_salt_is_part_of_a_path(split: str, tmp_path: Path) -> None:
    put(tmp_path, "levels@home.txt", "SG\n")
    prefix = split.removesuffix("levels")
    assert tasks.load("frozenlake", f"{prefix}{tmp_path}/levels@home.txt")[0].params == {
        "desc": ["SG"]
    }
    assert TaskFile.of("test@file:x") is None and FrozenLake.max_file == TextEnv.max_file
