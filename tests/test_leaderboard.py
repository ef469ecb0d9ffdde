"""Tracks are frozen, a run is packed with nothing in it but itself, and pages come of replay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from submissions import ALONE, ENTRY, change, make_run, make_submission, read

from erl_envs import registry, tasks
from erl_envs.core import Usage, digest
from erl_envs.leaderboard import __main__ as cli
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.build import (
    REPLAYED,
    REPRODUCED,
    _check_reproduced,
    markdown,
    read_boards,
)
from erl_envs.leaderboard.replay import replay
from erl_envs.leaderboard.submission import ABOUT, EPISODES
from erl_envs.leaderboard.submit import submit
from erl_envs.leaderboard.tracks import FREE, HASHES, TASKS, TRACKS
from erl_envs.leaderboard.verify import measure, verify
from erl_envs.policies import Completion, Conversation, Sampling
from erl_envs.policies.scripted import Random
from erl_envs.records import read_episodes
from erl_envs.rollout import EnvPool, Job, Player, rollout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", ("frozenlake", "hotpotqa"))


def test_tracks_are_frozen() -> None:
    """A change here is another track: give it a version."""
    assert len(TRACKS) == 110
    assert digest([track.specification() for track in TRACKS.values()])[:16] == "52a5b73a8b0a0ce1"


@pytest.mark.parametrize(("env", "split"), HASHES)
def test_their_tasks_are_those_of_the_package(env: str, split: str) -> None:
    track = TRACKS[f"{env}-{split}-hidden-outcome-1"]
    assert len(track.tasks()) == TASKS[split]


def test_other_tasks_are_not_the_track(monkeypatch: pytest.MonkeyPatch) -> None:
    track = TRACKS["sokoban-test-hidden-outcome-1"]
    monkeypatch.setitem(HASHES, ("sokoban", "test"), "0" * 64)
    with pytest.raises(ValueError, match="tasks are not those of sokoban-test-hidden-outcome-1"):
        track.tasks()


def test_a_player_chooses_only_how_it_is_told() -> None:
    track = TRACKS["frozenlake-test-hidden-outcome-1"]
    assert track.make({"coordinates": True, "prompt_style": "compact"}).options.rules == "hidden"
    with pytest.raises(ValueError, match=r"option 'symbols' is the track's; free are prompt_style"):
        track.make({"symbols": "canonical"})


def test_a_run_becomes_a_submission_for_each_environment(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", str(run), "--name", "dice", "--model", "dice", "--revision", "1"]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("replayed") == 2
    folders = sorted(path.parents[1].name for path in tmp_path.rglob(ABOUT))
    assert folders == [
        "frozenlake-small-test-hidden-outcome-1",
        "hotpotqa-small-test-hidden-outcome-1",
    ]
    assert cli.main([*words, "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_nothing_of_the_machine_goes_with_it(run: Path, tmp_path: Path) -> None:
    folder, _ = submit(run, "frozenlake", ALONE, tmp_path)
    about, (submission, lines) = (folder / ABOUT).read_text(encoding="utf-8"), read(folder)
    ran = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert "hardware" not in about and str(run) not in about and ran["started"] not in about
    spent = [turn["usage"]["seconds"] for line in lines for turn in line["attempts"][0]["turns"]]
    assert set(spent) == {0.0}
    assert submission.options == {"prompt_style": "full", "coordinates": False}
    assert set(submission.options) <= set(FREE)


def test_the_same_run_packs_to_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first, _ = submit(run, "frozenlake", ALONE, tmp_path / "a")
    second, _ = submit(run, "frozenlake", ALONE, tmp_path / "b")
    for name in (ABOUT, EPISODES):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"limit": 9}, "only its first 9 tasks"),
        ({"samples": 1}, "wants --samples 4; the run has 1"),
        ({"split": "small-train"}, "no track 'frozenlake-small-train-hidden-outcome-1'"),
        ({"options": {"frozenlake": {"feedback": "solution"}}}, "has feedback='outcome'"),
        ({"options": {"frozenlake": {"symbols": "canonical"}}}, "has symbols='opaque'"),
    ],
)
def test_a_run_that_belongs_to_no_track_is_not_packed(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    run = make_run(tmp_path / "run", **config)
    with pytest.raises(ValueError, match=message):
        submit(run, "frozenlake", ALONE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_not_packed(run: Path, tmp_path: Path) -> None:
    ran = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "run.json").write_text(json.dumps({**ran, "finished": None}), encoding="utf-8")
    with pytest.raises(ValueError, match="is not finished"):
        submit(tmp_path, "frozenlake", ALONE, tmp_path / "out")


def test_a_key_in_a_transcript_is_not_published(run: Path, tmp_path: Path) -> None:
    lines = (run / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
    episode = json.loads(lines[0])
    episode["attempts"][0]["messages"][2]["content"] = "my key is sk-" + "a1" * 20
    (tmp_path / "episodes.jsonl").write_text(
        "\n".join([json.dumps(episode), *lines[1:]]), encoding="utf-8"
    )
    (tmp_path / "run.json").write_text(
        (run / "run.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="holds what looks like a key"):
        submit(tmp_path, "frozenlake", ALONE, tmp_path / "out")


def test_a_missing_episode_counts_as_failed(run: Path, tmp_path: Path) -> None:
    """An episode whose server failed is left out of the transcripts, not of the average."""
    whole, _ = submit(run, "frozenlake", ALONE, tmp_path / "whole")
    kept = []
    for line in (run / "episodes.jsonl").read_text(encoding="utf-8").splitlines():
        episode = json.loads(line)
        if episode["attempts"][0]["reward"] == 1 and not episode["error"]:
            episode["valid"], episode["error"] = False, "PolicyError: no answer"
        kept.append(json.dumps(episode) + "\n")
    (tmp_path / "episodes.jsonl").write_text("".join(kept), encoding="utf-8")
    (tmp_path / "run.json").write_text(
        (run / "run.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    folder, found = submit(tmp_path, "frozenlake", ALONE, tmp_path / "out")
    assert found.missing > 50 and found.metrics["episodes"] == 400
    assert found.metrics["reward"]["mean"] == 0
    assert verify(folder).metrics == found.metrics
    assert verify(whole).missing == 0


@pytest.mark.parametrize("env", ["frozenlake", "sokoban", "hotpotqa"])
def test_salted_tasks_are_for_maintainers(
    tmp_path: Path, env: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_submission(tmp_path, env, split="hard@a secret", samples=1)
    found = verify(folder)
    public = {task.id for task in tasks.load(env, "hard")}
    assert found.submission.salt == "a secret"
    assert not public & {episode.task.id for episode in found.episodes}
    assert cli.main(["verify", str(folder)]) == 1
    assert "its tasks are salted" in capsys.readouterr().err
    assert cli.main(["verify", "--salted", str(folder)]) == 0
    with pytest.raises(Refused, match="its tasks are salted, and it reproduces nothing"):
        read_boards(tmp_path)


def claim(home: Path, entry: Path, again: Path) -> None:
    names = [f"{path.parent.name}/{path.name}" for path in (entry, again)]
    (home / "reproduced.json").write_text(json.dumps({names[0]: names[1]}), encoding="utf-8")


def test_an_entry_is_reproduced_where_a_maintainer_says_so(tmp_path: Path) -> None:
    entry = make_submission(tmp_path)
    name = replace(ENTRY, name="dice-again")
    again = make_submission(tmp_path, entry=name, split="small-test@2026", seed=1)
    claim(tmp_path, entry, again)
    boards = {board.track.id: board for board in read_boards(tmp_path)}
    assert sum(board.track.default for board in boards.values()) == len(boards) == 12
    (row,) = boards["frozenlake-small-test-hidden-transitions-2"].entries
    assert (row.verified.submission.name, row.tier) == ("dice", REPRODUCED)


@pytest.mark.parametrize(
    ("change_of", "config", "message"),
    [
        ({"model": "loaded dice"}, {"seed": 1}, "has another model"),
        ({"reflector": "a sage"}, {"seed": 1}, "has another reflector"),
        ({}, {"split": "hard", "samples": 1}, "is on another track"),
    ],
)
def test_what_is_not_played_again_is_not_reproduced(
    tmp_path: Path, change_of: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    entry = make_submission(tmp_path)
    again = make_submission(tmp_path, entry=replace(ENTRY, name="again", **change_of), **config)
    assert {board.entries[0].tier for board in read_boards(tmp_path) if board.entries} == {REPLAYED}
    claim(tmp_path, entry, again)
    with pytest.raises(Refused, match=message):
        read_boards(tmp_path)


def test_other_token_counts_are_no_other_episodes(tmp_path: Path) -> None:
    entry = make_submission(tmp_path)
    verified = verify(entry)
    other = replace(verified.submission, files={EPISODES: "0" * 64})
    again = replace(verified, submission=other)
    with pytest.raises(Refused, match="is the same episodes"):
        _check_reproduced({"one": verified, "two": again}, "one", "two")


class Thinking(Random):
    """Tells its thoughts apart, and not what they cost."""

    def reply(self, conversation: Conversation) -> Completion:
        reflects = conversation.key[-1] == "reflection"
        text = "<prompt>Go.</prompt>" if reflects else super().reply(conversation).text
        return Completion(text, usage=Usage(None, None, 0.0), reasoning="What if …")


def test_thoughts_and_unknown_tokens_are_replayed() -> None:
    [task, *_] = tasks.load("frozenlake", "small-test")
    job = Job(task, 0, 7)
    options = {"frozenlake": {"feedback": "transitions"}}
    players: Any = {"actor": Player(Thinking(), Sampling())}
    players["reflector"] = players["actor"]
    [episode] = rollout([job], EnvPool(options), players, attempts=2)
    recorded = json.loads(json.dumps(episode.to_json()))
    thought = [turn["reasoning"] for turn in recorded["attempts"][0]["turns"]]
    assert set(thought) == {"What if …"} == {recorded["reflection"]["reasoning"]}
    env = registry.make("frozenlake", **options["frozenlake"])
    again = replay(env, job, 2, recorded)
    assert again == episode and again.attempts[0].usage.completion_tokens is None
    for bad, told in ((3, "is no thought"), ("x" * 200_001, "200,000 at most")):
        recorded["attempts"][1]["turns"][0]["reasoning"] = bad
        with pytest.raises(Refused, match=told):
            replay(env, job, 2, recorded)


def test_who_reflected_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oracle reflected in this run: name it"):
        make_submission(tmp_path, entry=ALONE)
    assert not (tmp_path / "submissions" / "frozenlake-small-test-hidden-transitions-2").exists()
    make_submission(tmp_path / "named")
    assert "reflected on by `the rules`" in markdown(read_boards(tmp_path / "named"))


def test_nobody_reflects_on_one_attempt(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nobody reflects on frozenlake-small-test-hidden-outcome"):
        make_submission(tmp_path, attempts=1)


def test_who_was_offered_tools_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ("hotpotqa", "frozenlake"))
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    about["policy"]["revision"] = "dice, with tools"
    (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ValueError, match="was offered tools: say so"):
        submit(run, "hotpotqa", ALONE, tmp_path / "submissions")
    _, verified = submit(run, "hotpotqa", replace(ALONE, tools=True), tmp_path / "submissions")
    assert verified.submission.tools
    _, verified = submit(run, "frozenlake", ALONE, tmp_path / "submissions")  # which has none
    assert not verified.submission.tools


def test_a_submission_is_verified_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_submission(tmp_path)
    monkeypatch.chdir(folder)
    assert cli.main(["verify", "."]) == 0
    monkeypatch.chdir(folder.parent)
    assert cli.main(["verify", folder.name]) == 0
    (tmp_path / "file").touch()
    run = tmp_path / "runs" / "frozenlake-dice"
    words = ["--name", "n", "--model", "m", "--revision", "1", "--reflector", "rules", "--out"]
    assert cli.main(["submit", str(run), *words, str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_missing_episodes_have_no_turns(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    track = TRACKS["frozenlake-small-test-hidden-outcome-1"]
    episodes = read_episodes(run / "episodes.jsonl")
    whole, half = (measure(track, some) for some in (episodes, episodes[::2]))
    assert half["episodes"] == whole["episodes"] == 400
    assert half["turns"] == pytest.approx(whole["turns"], rel=0.1)
    assert half["reward"]["mean"] < whole["reward"]["mean"]


def test_build_refuses_what_does_not_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_submission(tmp_path)
    moved = folder.parent.with_name("frozenlake-test-hidden-outcome-1")
    folder.parent.rename(moved)
    assert cli.main(["build", "--home", str(tmp_path), "--site", str(tmp_path / "site")]) == 1
    assert "belongs to frozenlake-small-test-hidden-transitions-2/" in capsys.readouterr().err
    assert not (tmp_path / "README.md").exists() and not (tmp_path / "site").exists()


def test_build_writes_the_pages(tmp_path: Path) -> None:
    folder = make_submission(tmp_path, entry=replace(ENTRY, model="<b>|dice|</b> ![x](y) @z"))
    words = ["build", "--home", str(tmp_path), "--site", str(tmp_path / "site")]
    assert cli.main(words) == 0
    table = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| 1 | `dice`: `<b>¦dice¦</b> ![x](y) @z` reflected on by" in table
    assert "<b>" not in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    page = tmp_path / "site" / "entries" / folder.parent.name / f"{folder.name}.html"
    assert 'href="../../index.html"' in page.read_text(encoding="utf-8")
    before = {path: path.read_bytes() for path in (tmp_path / "site").rglob("*.html")}
    assert cli.main(words) == 0
    assert before == {path: path.read_bytes() for path in (tmp_path / "site").rglob("*.html")}


def test_tokens_that_nobody_counted_are_shown_as_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submissions.policies.load", lambda _: Thinking())
    home = tmp_path / "home"
    verified = verify(make_submission(home, samples=4))
    assert verified.metrics["tokens"] == {"prompt": None, "completion": None}
    assert cli.main(["build", "--home", str(home), "--site", str(home / "site")]) == 0
    assert '<td class="n">–</td>' in (home / "site" / "index.html").read_text(encoding="utf-8")


def test_one_bad_submission_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = make_submission(tmp_path / "good")
    bad = make_submission(tmp_path / "bad")

    def lie(about: dict[str, Any], lines: list[Any]) -> None:
        about["metrics"]["reward"]["mean"] = 1.0

    change(bad, lie)
    with pytest.raises(Refused):
        verify(bad)
    assert cli.main(["verify", str(bad), str(good)]) == 1
    told = capsys.readouterr()
    assert "is refused" in told.err and "in 400 episodes, replayed" in told.out


def test_tracks_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tracks"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 12
    assert cli.main(["tracks", "sokoban-hard-shown-outcome-1"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["rules"] == "shown"
    assert cli.main(["tracks", "chess"]) == 2
    assert "no track 'chess'" in capsys.readouterr().err


def test_the_repository_s_own_boards_hold() -> None:
    """A change that alters what a transcript would have been is a new version of its track."""
    home = Path(__file__).parents[1] / "leaderboards"
    boards = read_boards(home)
    assert (home / "README.md").read_text(encoding="utf-8") == markdown(boards)
    assert sum(len(board.entries) for board in boards) > 0
