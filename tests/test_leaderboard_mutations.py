"""A true submission, changed in every way that we could think of: each is refused, and says why."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submissions import change, make_submission

from erl_envs.leaderboard import __main__ as cli
from erl_envs.leaderboard import archive
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.submission import ABOUT, EPISODES
from erl_envs.leaderboard.verify import verify

Edit = Callable[[dict[str, Any], list[Any]], None]


@pytest.fixture(scope="module")
def true(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_submission(tmp_path_factory.mktemp("true"))


@pytest.fixture
def copy(true: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(true, tmp_path / "submissions" / true.parent.name / true.name))


def failed(lines: list[Any]) -> Any:
    """An episode of two attempts."""
    return next(line for line in lines if len(line["attempts"]) == 2)


def first(lines: list[Any]) -> Any:
    return failed(lines)["attempts"][0]


def said(lines: list[Any]) -> list[Any]:
    """Messages of an attempt that the policy wrote."""
    return [m for m in first(lines)["messages"] if m["role"] == "assistant"]


def test_the_true_one_is_taken(true: Path) -> None:
    found = verify(true)
    assert found.missing == 0 and len(found.episodes) == 400
    assert 0.1 < found.metrics["reward"]["mean"] < found.metrics["reward_after"]["mean"] < 0.5


def edit_reward(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["reward"] = 1.0


def edit_turn_reward(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["turns"][-1]["reward"] = 1.0


def edit_outcome(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["outcome"] = "solved"


def edit_feedback(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["feedback"] = "Reward: 1 of 1."


def edit_text(about: dict[str, Any], lines: list[Any]) -> None:
    said(lines)[0]["content"] = "I say nothing that could be read."


def edit_action(about: dict[str, Any], lines: list[Any]) -> None:
    turn = first(lines)["turns"][0]
    turn["action"] = "Up" if turn["action"] != "Up" else "Down"


def edit_observation(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["messages"][1]["content"] += " "


def edit_prompt(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["messages"][0]["content"] = "Here are the rules. " + "A goal is a goal. " * 9


def drop_message(about: dict[str, Any], lines: list[Any]) -> None:
    del first(lines)["messages"][-2:]
    del first(lines)["turns"][-1]


def add_message(about: dict[str, Any], lines: list[Any]) -> None:
    attempt = first(lines)
    attempt["messages"] += attempt["messages"][-2:]
    attempt["turns"].append(attempt["turns"][-1])


def drop_turn(about: dict[str, Any], lines: list[Any]) -> None:
    del first(lines)["turns"][-1]


def edit_role(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["messages"][1]["role"] = "system"


def drop_second(about: dict[str, Any], lines: list[Any]) -> None:
    episode = failed(lines)
    del episode["attempts"][1]
    episode["reflection"] = None


def reflection_not_told(about: dict[str, Any], lines: list[Any]) -> None:
    episode = failed(lines)
    told = episode["attempts"][1]["messages"][0]
    told["content"] = "Walk to B at once.\n\n" + told["content"]


def edit_reflection(about: dict[str, Any], lines: list[Any]) -> None:
    failed(lines)["reflection"]["messages"][-1]["content"] = "<prompt>Go up.</prompt>"


def edit_asked(about: dict[str, Any], lines: list[Any]) -> None:
    failed(lines)["reflection"]["messages"][1]["content"] = "What are the rules?"


def edit_memory(about: dict[str, Any], lines: list[Any]) -> None:
    failed(lines)["reflection"]["rulebook"] = "Go up."


def drop_reflection(about: dict[str, Any], lines: list[Any]) -> None:
    failed(lines)["reflection"] = None


def drop_task(about: dict[str, Any], lines: list[Any]) -> None:
    del lines[:4]


def double_task(about: dict[str, Any], lines: list[Any]) -> None:
    lines[1] = lines[0]


def more_samples(about: dict[str, Any], lines: list[Any]) -> None:
    lines[0]["sample"] = 4


def swap_tasks(about: dict[str, Any], lines: list[Any]) -> None:
    one, other = lines[0], next(x for x in lines if x["task"]["id"] != lines[0]["task"]["id"])
    one["task"], other["task"] = other["task"], one["task"]


def too_many(about: dict[str, Any], lines: list[Any]) -> None:
    lines += [1] * 10


def long_message(about: dict[str, Any], lines: list[Any]) -> None:
    said(lines)[0]["content"] = "\\boxed{" * 50_000


def many_tokens(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["turns"][0]["usage"]["prompt_tokens"] = 10**30


def forged_line(about: dict[str, Any], lines: list[Any]) -> None:
    lines[0]["\nfrozenlake-test-hidden-outcome-1: gpt earns 1.000\x1b[2J"] = 1


def package_of_lines(about: dict[str, Any], lines: list[Any]) -> None:
    about["package"]["version"] = "1\n2"


def other_task(about: dict[str, Any], lines: list[Any]) -> None:
    lines[0]["task"]["id"] = "0" * 12


def easier_board(about: dict[str, Any], lines: list[Any]) -> None:
    lines[0]["task"]["params"]["size"] = 2


def invalid(about: dict[str, Any], lines: list[Any]) -> None:
    lines[0]["valid"] = False


def swap_seed(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["seed"] += 1


def other_seed(about: dict[str, Any], lines: list[Any]) -> None:
    about["seed"] += 1


def machine_time(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["turns"][0]["usage"]["seconds"] = 3.0


def negative_tokens(about: dict[str, Any], lines: list[Any]) -> None:
    first(lines)["turns"][0]["usage"]["completion_tokens"] = -5


def message_of_numbers(about: dict[str, Any], lines: list[Any]) -> None:
    said(lines)[0]["content"] = 7


def no_attempts(about: dict[str, Any], lines: list[Any]) -> None:
    lines[0]["attempts"] = {"0": None}


def not_an_episode(about: dict[str, Any], lines: list[Any]) -> None:
    lines[0] = ["task"]


def extra_field(about: dict[str, Any], lines: list[Any]) -> None:
    lines[0]["__class__"] = "os.system"


def very_deep(about: dict[str, Any], lines: list[Any]) -> None:
    for _ in range(50):
        lines[0]["task"] = [lines[0]["task"]]


def stale_hash(about: dict[str, Any], lines: list[Any]) -> None:
    about["track"]["split_hash"] = "0" * 64


def other_rules(about: dict[str, Any], lines: list[Any]) -> None:
    about["track"]["options"]["rules"] = "shown"


def no_such_track(about: dict[str, Any], lines: list[Any]) -> None:
    about["track"]["id"] = "chess-test-hidden-outcome-1"


def closed_option(about: dict[str, Any], lines: list[Any]) -> None:
    about["options"]["max_turns"] = 100


def aggregate(about: dict[str, Any], lines: list[Any]) -> None:
    about["metrics"]["reward"]["mean"] = 0.9


def aggregate_of_a_kind(about: dict[str, Any], lines: list[Any]) -> None:
    about["metrics"]["success"] = 10**30


def newer(about: dict[str, Any], lines: list[Any]) -> None:
    about["schema"] = 2
    about["something"] = "new"


def no_model(about: dict[str, Any], lines: list[Any]) -> None:
    about["model"] = "  "


def script_address(about: dict[str, Any], lines: list[Any]) -> None:
    about["url"] = "javascript:alert(1)"


def climbing_name(about: dict[str, Any], lines: list[Any]) -> None:
    about["name"] = "../../etc"


def unlikely_sampling(about: dict[str, Any], lines: list[Any]) -> None:
    about["sampling"] = {"temperature": "<script>"}


def other_salt(about: dict[str, Any], lines: list[Any]) -> None:
    about["salt"] = "pepper"


CONTENT: dict[Edit, str] = {
    edit_reward: "attempt 1, reward: the submission has 1.0, replay gives 0.0",
    edit_turn_reward: "reward: the submission has 1.0, replay gives 0.0",
    edit_outcome: "attempt 1, outcome: the submission has 'solved'",
    edit_feedback: "attempt 1, feedback: the submission has",
    edit_text: "The message could not be read",
    edit_action: "attempt 1, turn 1, action: the submission has",
    edit_observation: "attempt 1, message 2, content: the submission has",
    edit_prompt: "attempt 1, message 1, content: the submission has",
    drop_message: "attempt 1 lacks a message",
    add_message: "attempt 1 goes on after its end",
    drop_turn: "is no episode",
    edit_role: "message 2, role: the submission has 'system'",
    drop_second: "the reflection lacks a message",
    reflection_not_told: "attempt 2, message 1, content: the submission has",
    edit_reflection: "attempt 2, message",
    edit_asked: "reflection, message 2, content: the submission has",
    edit_memory: "reflection, rulebook: the submission has 'Go up.'",
    drop_reflection: "the reflection lacks a message",
    drop_task: "is stated, the transcripts give",
    double_task: "is there twice",
    more_samples: "sample 4 of task",
    swap_tasks: "attempt 1",
    too_many: "has more than the track's 400 episodes",
    long_message: "has a message of 350,000 characters",
    many_tokens: "cannot have used",
    forged_line: "\\nfrozenlake-test",
    package_of_lines: "package must be one line",
    other_task: "has no task '000000000000'",
    easier_board: "task, params, size: the submission has 2, replay gives 5",
    invalid: "valid: the submission has False",
    swap_seed: "attempt 1, seed: the submission has",
    other_seed: "attempt 1, seed: the submission has",
    machine_time: "usage, seconds: the submission has 3.0",
    negative_tokens: "cannot have used",
    message_of_numbers: "7 is no message",
    no_attempts: "is no episode",
    not_an_episode: "episode 1 names no task",
    extra_field: "'__class__': the submission has 'os.system', replay gives nothing",
    very_deep: "line 1 is nested too deeply",
    stale_hash: "split_hash: frozenlake-small-test-hidden-transitions-2 has '1c310c8a",
    other_rules: "options, rules: frozenlake-small-test-hidden-transitions-2 has 'hidden'",
    no_such_track: "there is no track 'chess-test-hidden-outcome-1'",
    closed_option: "option 'max_turns' is the track's",
    aggregate: "reward, mean: 0.9 is stated, the transcripts give",
    aggregate_of_a_kind: "success: 1000000",
    newer: "a newer package",
    no_model: "model is empty",
    script_address: "url 'javascript:alert(1)' is none",
    climbing_name: "not '../../etc'",
    unlikely_sampling: "sampling is none",
    other_salt: "has no task",
}


@pytest.mark.parametrize("edit", CONTENT, ids=lambda edit: edit.__name__)
def test_changed_content_is_refused(copy: Path, edit: Edit) -> None:
    change(copy, edit)
    before = files(copy.parents[2])
    with pytest.raises(Refused) as refusal:
        verify(copy)
    told = str(refusal.value)
    assert CONTENT[edit] in told
    assert "\n" not in told and len(told) < 400
    assert files(copy.parents[2]) == before


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def truncate(folder: Path) -> None:
    path = folder / EPISODES
    path.write_bytes(path.read_bytes()[:-2000])


def no_archive(folder: Path) -> None:
    (folder / EPISODES).write_bytes(b"PK\x03\x04 is another kind")


def damage(folder: Path) -> None:
    content = bytearray((folder / EPISODES).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / EPISODES).write_bytes(content)


def bomb(folder: Path) -> None:
    whole = gzip.decompress((folder / EPISODES).read_bytes()).splitlines()
    room = archive.MAX_LINE - 2**20
    padded = b"".join(line + b" " * room + b"\n" for line in whole[:50])
    (folder / EPISODES).write_bytes(gzip.compress(padded))


def huge_line(folder: Path) -> None:
    (folder / EPISODES).write_bytes(gzip.compress(b'"' + b"a" * (archive.MAX_LINE + 2**21)))


def no_utf8(folder: Path) -> None:
    (folder / EPISODES).write_bytes(gzip.compress(b'{"task": "\xff"}\n'))


def no_json(folder: Path) -> None:
    (folder / EPISODES).write_bytes(gzip.compress(b"import os\n"))


def not_a_number(folder: Path) -> None:
    (folder / EPISODES).write_bytes(gzip.compress(b'{"reward": NaN}\n'))


def abyss(folder: Path) -> None:
    (folder / EPISODES).write_bytes(gzip.compress(b"[" * 200_000 + b"\n"))


def half_a_line(folder: Path) -> None:
    (folder / EPISODES).write_bytes(gzip.compress(b'{"task": 1}'))


def symlink(folder: Path) -> None:
    (folder / EPISODES).unlink()
    (folder / EPISODES).symlink_to("/etc/passwd")


def pipe(folder: Path) -> None:
    (folder / EPISODES).unlink()
    os.mkfifo(folder / EPISODES)


def more_files(folder: Path) -> None:
    (folder / "setup.py").write_text("raise SystemExit", encoding="utf-8")


def subfolder(folder: Path) -> None:
    (folder / "more").mkdir()


def missing(folder: Path) -> None:
    (folder / EPISODES).unlink()


def long_about(folder: Path) -> None:
    (folder / ABOUT).write_text(" " * 2**17, encoding="utf-8")


def listed_about(folder: Path) -> None:
    (folder / ABOUT).write_text("[]", encoding="utf-8")


def rewrite(folder: Path, **fields: Any) -> None:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    (folder / ABOUT).write_text(json.dumps({**about, **fields}), encoding="utf-8")


def wrong_digest(folder: Path) -> None:
    rewrite(folder, files={EPISODES: "0" * 64})


def climbing_file(folder: Path) -> None:
    rewrite(folder, files={"../../../etc/passwd": "0" * 64})


def other_place(folder: Path) -> None:
    rewrite(folder, date="2020-02-02")


def many_lines(folder: Path) -> None:
    (folder / EPISODES).write_bytes(gzip.compress(b"1\n" * 2_000_000))


def lacking_about(folder: Path) -> None:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    del about["seed"]
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


FOLDER: dict[Callable[[Path], None], str] = {
    truncate: "breaks off",
    no_archive: "is no gzip file",
    damage: "is refused",
    bomb: "unpacks to more than 134,217,728 bytes",
    huge_line: "has a line of more than 4,194,304 bytes",
    no_utf8: "line 1 is not UTF-8",
    no_json: "line 1 is no JSON",
    not_a_number: "NaN is no number",
    abyss: "line 1 is nested too deeply",
    half_a_line: "ends within a line",
    symlink: "is no plain file",
    pipe: "is no plain file",
    more_files: "'setup.py' does not belong there",
    subfolder: "'more' does not belong there",
    missing: "episodes.jsonl.gz is missing",
    long_about: "submission.json has more than 65,536 bytes",
    listed_about: "holds no JSON object",
    lacking_about: "lacks 'seed'",
    wrong_digest: "its digest is another",
    climbing_file: "files must name episodes.jsonl.gz",
    other_place: "belongs to frozenlake-small-test-hidden-transitions-2/2020-02-02_dice",
    many_lines: "names no task",
}


@pytest.mark.parametrize("spoil", FOLDER, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_folder_is_refused(
    copy: Path, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(copy)
    assert cli.main(["verify", str(copy)]) == 1
    told = capsys.readouterr().err
    assert FOLDER[spoil] in told
    assert told.count("\n") == 1 and len(told) < 600


def test_a_linked_folder_is_refused(copy: Path) -> None:
    link = copy.with_name("link")
    link.symlink_to(copy)
    with pytest.raises(Refused, match="is no folder"):
        verify(link)
