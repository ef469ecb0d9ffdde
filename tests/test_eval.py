"""The evaluation run as a person uses it: numbers, resume, bad input, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Reply, Request, says, serving

import erl_envs
from erl_envs import policies, tasks
from erl_envs.core import Reference
from erl_envs.eval import __main__ as cli
from erl_envs.eval.statistics import bootstrap_mean, pass_at_k, summarise
from erl_envs.leaderboard.tracks import CORPORA
from erl_envs.policies import Completion
from erl_envs.policies.scripted import Human
from erl_envs.records import read_episodes


def main(argv: list[str]) -> int:
    """The command line: a random policy on the games alone, unless it says otherwise."""
    usual = {"--env": "frozenlake,sokoban", "--policy": "random"}
    given = [word for flag, value in usual.items() if flag not in argv for word in (flag, value)]
    return cli.main([*given, *argv])


def lines(path: Path) -> list[dict[str, Any]]:
    """episodes.jsonl without its times."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k != "seconds"}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    return [timeless(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def run_json(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return found


def test_a_run_writes_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["--out", str(out), "--limit", "20", "--samples", "3", "--seed", "5"]) == 0
    shown = capsys.readouterr().out
    assert "oracle" in shown and "pass@2" in shown and "shortest solution" in shown
    run = run_json(out)
    assert run["counts"] == {"episodes": 120, "invalid": 0}
    for env in ("frozenlake", "sokoban"):
        facts, metrics = run["envs"][env], run["metrics"][env]
        assert facts["split_hash"] == tasks.split_hash(tasks.load(env, "test"))
        low, mean, high = (metrics["reward"][key] for key in ("low", "mean", "high"))
        assert low <= mean <= high
        assert metrics["reference"]["oracle"] == 1.0
        assert metrics["pass_at"]["1"] == pytest.approx(mean) and "2" in metrics["pass_at"]
        assert sum(row["tasks"] for row in metrics["by_difficulty"]) == 20
    assert len(read_episodes(out / "episodes.jsonl")) == 120
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not list(out.glob(".*")), "a part file was left"


def test_the_default_is_all_three_environments(tmp_path: Path) -> None:
    out = tmp_path / "run"
    args = ["--limit", "3", "--option", "symbols=random", "--option", "hotpotqa.top_k=2"]
    assert cli.main([*args, "--out", str(out), "--policy", "random"]) == 0
    run = run_json(out)
    assert list(run["metrics"]) == ["frozenlake", "sokoban", "hotpotqa"]
    assert run["envs"]["sokoban"]["options"]["symbols"] == "random"
    assert run["envs"]["hotpotqa"]["options"]["top_k"] == 2
    again = tmp_path / "again"
    assert cli.main([*args, "--out", str(again), "--policy", f"replay:{out}"]) == 0
    assert lines(again / "episodes.jsonl") == lines(out / "episodes.jsonl")


def test_replay_gets_the_same_rewards(tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(["--out", str(first), "--limit", "15", "--samples", "2"]) == 0
    assert (
        main(
            ["--out", str(again), "--limit", "15", "--samples", "2", "--policy", f"replay:{first}"]
        )
        == 0
    )
    assert lines(again / "episodes.jsonl") == lines(first / "episodes.jsonl")
    assert (
        run_json(again)["metrics"]["sokoban"]["reward"]
        == run_json(first)["metrics"]["sokoban"]["reward"]
    )


def test_a_slippery_run_replays_too(tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    args = ["--env", "frozenlake", "--option", "is_slippery=true", "--limit", "15"]
    assert main([*args, "--out", str(first)]) == 0
    assert main([*args, "--out", str(again), "--policy", f"replay:{first}"]) == 0
    assert lines(again / "episodes.jsonl") == lines(first / "episodes.jsonl")


def test_two_processes_write_the_same_episodes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "erl_envs.eval", "--policy", "random", "--limit", "5"]
    for seed in ("0", "4242"):
        subprocess.run(
            [*command, "--out", str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
    assert lines(tmp_path / "0/episodes.jsonl") == lines(tmp_path / "4242/episodes.jsonl")


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    args = ["--limit", "12", "--samples", "2"]
    assert main([*args, "--out", str(whole)]) == 0
    assert main([*args, "--out", str(cut)]) == 0
    # as a kill leaves it: some lines, the last one half written, no metrics and no report
    text = (cut / "episodes.jsonl").read_bytes()
    (cut / "episodes.jsonl").write_bytes(text[: len(text) // 3])
    run = run_json(cut)
    run["metrics"] = run["counts"] = None
    (cut / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (cut / "report.html").unlink()
    kept = text[: len(text) // 3].count(b"\n")
    assert main([*args, "--out", str(cut), "--resume"]) == 0
    resumed = (cut / "episodes.jsonl").read_bytes()
    assert resumed.splitlines()[:kept] == text.splitlines()[:kept]
    keys = [episode.key for episode in read_episodes(cut / "episodes.jsonl")]
    assert len(keys) == len(set(keys)) == 48
    by_key = sorted(lines(cut / "episodes.jsonl"), key=json.dumps)
    assert by_key == sorted(lines(whole / "episodes.jsonl"), key=json.dumps)
    for env in ("frozenlake", "sokoban"):
        ours, theirs = (run_json(out)["metrics"][env] for out in (cut, whole))
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert (cut / "report.html").exists()


def test_resuming_another_configuration_shows_the_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["--out", str(out), "--limit", "3"]) == 0
    before = (out / "episodes.jsonl").read_bytes()
    capsys.readouterr()
    args = ["--out", str(out), "--limit", "4", "--option", "rules=shown", "--resume"]
    assert main(args) == 2
    err = capsys.readouterr().err
    assert "limit: 3 → 4" in err and "envs.sokoban.options.rules: 'hidden' → 'shown'" in err
    assert err.count("\n") == 1
    assert (out / "episodes.jsonl").read_bytes() == before


BAD_ARGUMENTS = [
    (["--option", "rulez=shown"], "no option 'rulez'; valid options: rules"),
    (["--option", "rules=seen"], "'hidden', 'shown'"),
    (["--option", "rules"], "an option must look like key=value"),
    (["--option", "chess.rules=shown"], "this run has frozenlake, sokoban"),
    (["--option", "frozenlake.max_turns=0"], "max_turns"),
    (["--option", "sokoban.size=[9,4]"], "size"),
    (["--env", "chess"], "no environment 'chess'; valid: frozenlake, hotpotqa, sokoban"),
    (["--env", "sokoban,sokoban"], "twice"),
    (["--env", ","], "names no environment"),
    (
        ["--split", "tset"],
        "no split 'tset'; valid: train, test, small-train, small-test, hard, paper-train, ",
    ),
    (["--policy", "randm"], "no policy 'randm'; valid: nano, random, oracle, human, transformers:"),
    (["--policy", "transformers:"], "no policy 'transformers:'"),
    (["--policy", "replay:nowhere"], "nowhere/episodes.jsonl"),
    (["--policy", "openai:x", "--base-url", "localhost:8000"], "bad base URL 'localhost:8000'"),
    (["--attempts", "2"], "random writes no reflections"),
    (["--attempts", "3"], "invalid choice"),
    (["--reflector", "openai:x"], "--reflector needs --attempts 2"),
    (["--limit", "0"], "must be 1 or more"),
    (["--samples", "x"], "invalid _positive value"),
    (["--temperature", "-1"], "temperature must be 0 or more"),
    (["--temperature", "nan"], "temperature must be 0 or more"),
    (["--top-p", "0"], "top-p must be above 0"),
    (["--env", "hotpotqa", "--option", "retriever=http"], "needs retriever_url"),
    (["--env", "hotpotqa", "--option", "retriever=dense"], "needs retriever_model"),
    (["--env", "hotpotqa", "--option", "retriever=wikipedia"], "ERL_ENVS_CONTACT"),
    (["--env", "hotpotqa", "--option", "retriever=bing"], "'bm25', 'rank_bm25', 'dense'"),
    (["--env", "hotpotqa", "--option", "data=file:/nowhere.json"], "cannot read /nowhere.json"),
    (["--env", "hotpotqa", "--option", "data=moon"], "bad value 'moon' for data"),
    (["--nonsense"], "unrecognized arguments"),
    (["--resume"], "--resume needs --out"),
]


@pytest.mark.parametrize(("argv", "message"), BAD_ARGUMENTS, ids=lambda v: " ".join(v)[:40])
def test_bad_arguments_are_one_line_and_write_nothing(
    argv: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(argv)
    except SystemExit as stop:
        code = int(str(stop.code))
    err = capsys.readouterr().err
    assert code == 2 and message in err and err.count("\n") == 1 and err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    assert main(["--out", str(tmp_path), "--limit", "1"]) == 2
    assert "is not empty; give --resume" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    assert main(["--out", str(tmp_path / "precious.txt"), "--limit", "1"]) == 2
    assert main(["--out", str(tmp_path / "precious.txt/below"), "--limit", "1"]) == 2
    assert main(["--out", str(tmp_path), "--limit", "1", "--resume"]) == 2


def test_a_broken_episode_file_names_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["--out", str(out), "--limit", "2"]) == 0
    whole = (out / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
    (out / "episodes.jsonl").write_text("\n".join([whole[0], '{"task": 3}', ""]), encoding="utf-8")
    assert main(["--out", str(out), "--limit", "2", "--resume"]) == 2
    assert "line 2 is no episode" in capsys.readouterr().err
    assert '{"task": 3}' in (out / "episodes.jsonl").read_text(
        encoding="utf-8"
    )  # it was left as it was


def test_a_dead_server_makes_invalid_episodes_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("erl_envs.policies.openai.time.sleep", lambda seconds: None)
    out = tmp_path / "run"
    url = "http://127.0.0.1:9/v1"  # discard: nothing listens there
    args = ["--policy", "openai:m", "--base-url", url, "--limit", "2", "--out", str(out)]
    assert main(args) == 3
    captured = capsys.readouterr()
    assert "4 of 4 episodes are invalid" in captured.err and "episodes 2 of 4, " in captured.err
    run = run_json(out)
    assert run["counts"] == {"episodes": 4, "invalid": 4}
    assert run["metrics"]["sokoban"]["reward"]["mean"] is None
    assert "failed 5 times" in read_episodes(out / "episodes.jsonl")[0].attempts[0].error  # type: ignore[operator]


def goes_right(request: Request) -> Reply:
    """A model that goes Right, and reflects when asked to."""
    asks = "rulebook" in request.body["messages"][-1]["content"]
    text = "<prompt>Go Right.</prompt>" if asks else "```Right```"
    return says(text, usage={"prompt_tokens": 7, "completion_tokens": 3})


@pytest.fixture
def server() -> Iterator[str]:
    with serving(goes_right) as url:
        yield f"{url}/v1"


def test_two_attempts_through_a_server_and_the_key_stays_out(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    out = tmp_path / "run"
    args = ["--policy", "openai:right", "--base-url", server, "--limit", "8", "--attempts", "2"]
    assert main([*args, "--out", str(out)]) == 0
    run = run_json(out)
    metrics = run["metrics"]["frozenlake"]
    assert metrics["reward_after"] is not None and metrics["success_after"] is not None
    assert metrics["tokens"]["completion"] == 3 * sum(
        len(attempt.turns)
        for episode in read_episodes(out / "episodes.jsonl")
        if episode.task.env == "frozenlake"
        for attempt in episode.attempts
    ) + 3 * sum(
        episode.reflection is not None
        for episode in read_episodes(out / "episodes.jsonl")
        if episode.task.env == "frozenlake"
    )
    assert all(
        episode.attempts[1].messages[0]["content"].startswith("Go Right.\n\nYou have 8 turns.")
        for episode in read_episodes(out / "episodes.jsonl")
        if len(episode.attempts) == 2
    )
    for path in out.rglob("*"):
        assert b"very-secret" not in path.read_bytes()


def test_invalid_episodes_are_played_again_on_resume(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erl_envs.policies.openai.time.sleep", lambda seconds: None)
    out, dead = tmp_path / "run", "http://127.0.0.1:9/v1"
    args = ["--policy", "openai:m", "--limit", "2", "--out", str(out), "--base-url"]
    assert main([*args, dead]) == 3
    assert main([*args, server, "--resume"]) == 0
    assert run_json(out)["counts"] == {"episodes": 4, "invalid": 0}


def test_a_run_killed_as_it_began_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    args = ["--limit", "2", "--out", str(out)]
    assert main(args) == 0
    (out / "episodes.jsonl").unlink()
    before = {"package": {"version": "0", "commit": "c"}, "started": "then"}
    (out / "run.json").write_text(json.dumps({**run_json(out), **before}), encoding="utf-8")
    assert main([*args, "--resume"]) == 0
    run = run_json(out)
    assert run["counts"]["episodes"] == 4
    # who began it is not forgotten
    assert {name: run[name] for name in before} == before
    [resumed] = run["resumed"]
    assert resumed["package"]["version"] == erl_envs.__version__ and resumed["started"] != "then"
    (out / "run.json").write_text("[]", encoding="utf-8")
    assert main([*args, "--resume"]) == 2
    assert "run.json is no JSON object" in capsys.readouterr().err


def test_what_is_searched_and_offered_is_part_of_a_run(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    args = ["--env", "hotpotqa", "--policy", "openai:m", "--base-url", server, "--limit", "1"]
    assert main([*args, "--out", str(out)]) == 0
    run = run_json(out)
    assert run["envs"]["hotpotqa"]["corpus_hash"] == CORPORA["test"]
    assert main([*args, "--out", str(out), "--resume", "--tools"]) == 2
    assert "policy.revision: 'm' → 'm, with tools'" in capsys.readouterr().err
    run["envs"]["hotpotqa"]["corpus_hash"] = "another"
    (out / "run.json").write_text(json.dumps(run), encoding="utf-8")
    assert main([*args, "--out", str(out), "--resume"]) == 2
    assert "envs.hotpotqa.corpus_hash: 'another' → " in capsys.readouterr().err


def test_what_fails_after_a_first_attempt_does_not_take_it_away(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert (
        main(["--env", "frozenlake", "--limit", "10", "--policy", "oracle", "--out", str(out)]) == 0
    )
    solved = read_episodes(out / "episodes.jsonl")
    episodes = []
    for number, episode in enumerate(solved):
        [first] = episode.attempts
        lost = replace(first, reward=0.0)
        broken = replace(first, reward=0.0, valid=False, error="EnvError: it broke")
        episodes.append(
            episode
            if number < 4  # solved
            else replace(episode, attempts=[lost], error="reflection: it broke")
            if number < 8
            else replace(episode, attempts=[lost, broken])
            if number == 8
            else replace(episode, attempts=[broken])
        )
    found = summarise(episodes, [e.task.id for e in episodes], [None] * 10, 2)
    assert (found["episodes"], found["invalid"]) == (10, 6)
    assert found["reward"]["mean"] == found["reward_after"]["mean"] == pytest.approx(4 / 9)
    assert found["pass_at"] == {"1": pytest.approx(4 / 9)}
    assert [row["success"] for row in found["by_difficulty"]] == [pytest.approx(4 / 9)]


def test_an_interrupt_tells_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = iter(range(10**6))

    def interrupted(self: Any, conversation: Any) -> Completion:
        if next(calls) == 300:
            raise KeyboardInterrupt
        return Completion("```Up```")

    monkeypatch.setattr(policies.scripted.Random, "reply", interrupted)
    out = tmp_path / "run"
    assert main(["--out", str(out), "--concurrency", "4"]) == 130
    assert f"--resume --out {out}" in capsys.readouterr().err
    done = len(read_episodes(out / "episodes.jsonl"))
    assert 0 < done < 400
    assert main(["--out", str(out), "--concurrency", "4", "--resume"]) == 0
    assert run_json(out)["counts"]["episodes"] == 400


def test_a_person_can_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    human = Human(io.StringIO("right\n" * 8 + "```Left```\n" * 8), screen)
    monkeypatch.setitem(policies._PLAIN, "human", lambda: human)
    out = tmp_path / "run"
    assert main(["--policy", "human", "--limit", "1", "--out", str(out)]) == 0
    assert "[turn 1 of 8] > " in screen.getvalue() and "You have 8 turns." in screen.getvalue()
    assert read_episodes(out / "episodes.jsonl")[0].attempts[0].turns[0].action == "Right"


def test_what_a_server_does_not_take_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies: list[Any] = []

    def answer(request: Request) -> Reply:
        bodies.append(request.body)
        if "top_k" in request.body:
            told = {"message": "Unrecognized request argument supplied: top_k"}
            return Reply({"error": told}, 400)
        return says("```Up```")

    out = tmp_path / "run"
    with serving(answer) as url:
        args = [
            "--policy",
            "openai:m",
            "--base-url",
            f"{url}/v1",
            "--limit",
            "2",
            "--attempts",
            "2",
        ]
        args += ["--env", "frozenlake", "--out", str(out), "--extra-body", '{"effort": "low"}']
        assert main(args) == 0
        told = capsys.readouterr()
        assert told.err.count("openai:m takes no top_k") == 1
        # nor does this server say what anything costs
        assert re.search(r"tokens +│ +│ +unknown", told.out)
        run = run_json(out)
        assert run["refused"] == {"policy": ["top_k"]}
        assert run["policy"]["revision"] == 'm, with {"effort":"low"}'
        assert run["metrics"]["frozenlake"]["tokens"] == {"prompt": None, "completion": None}
        assert main([*args, "--resume"]) == 0  # with nothing left to ask
        assert run_json(out)["refused"] == {"policy": ["top_k"]}
        args[args.index("--extra-body") + 1] = '{"effort": "high"}'
        assert main([*args, "--resume"]) == 2
        assert "with another configuration: policy.revision" in capsys.readouterr().err
    assert all(body["effort"] == "low" for body in bodies)


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("{", "is no JSON"),
        ("[1]", "must be a JSON object"),
        ('{"temperature": 1}', "cannot say 'temperature'"),
    ],
)
def test_a_bad_extra_body_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: str, told: str
) -> None:
    args = ["--policy", "openai:m", "--extra-body", extra, "--out", str(tmp_path / "run")]
    try:
        code = main(args)
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    assert code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "run").exists()


def test_an_extra_body_is_for_servers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--extra-body", '{"a": 1}', "--out", str(tmp_path / "run")]) == 2
    assert "--extra-body is for openai: policies" in capsys.readouterr().err


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(4, 0, 2) == 0.0
    assert pass_at_k(4, 1, 2) == pytest.approx(1 - 3 / 6)  # 3 of the 6 pairs miss the one success
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert pass_at_k(4, 4, 1) == 1.0


def test_the_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        estimate = bootstrap_mean(rng.binomial(1, 0.3, 100).tolist(), seed=trial)
        assert estimate["low"] is not None and estimate["high"] is not None
        covered += estimate["low"] <= 0.3 <= estimate["high"]
    assert 0.90 <= covered / 200 <= 0.99
    assert bootstrap_mean([])["mean"] is None
    assert bootstrap_mean([1.0, 1.0]) == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_metrics_do_not_depend_on_the_order_of_completion(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["--out", str(out), "--env", "sokoban", "--limit", "10", "--samples", "4"]) == 0
    episodes = read_episodes(out / "episodes.jsonl")
    ids = [task.id for task in tasks.load("sokoban", "test")[:10]]
    known: list[Reference | None] = [Reference(1, 0.1, 1.0)] * 10
    one = summarise(episodes, ids, known, 1)
    assert summarise(episodes[::-1], ids, known, 1) == one
