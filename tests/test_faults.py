"""The table of faults is made by a script that finds faults; here its rows at their smallest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faults
import pytest
from faulty import kills, servers
from faulty.commands import Evaluation, Fault, differences, undisturbed


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--env frozenlake --policy random --limit 3"
    monkeypatch.setattr(Evaluation, "words", words)


def test_every_row_has_a_name_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faults.main(["--out", str(tmp_path), "--list"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(set(names)) == len(names) > 50
    assert list(tmp_path.iterdir()) == []


def test_a_kill_is_recovered_from_recorded_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path), "--kills", "1", "--only", "SIGKILL: eval, random"]
    assert faults.main(words) == 0
    [line] = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["held"] and json.loads(line)["row"] == "SIGKILL: eval, random"
    assert "| SIGKILL: eval, random | 1 of 1 | bit for bit |" in capsys.readouterr().out
    tried: list[str] = []

    def lost(self: kills.Kill, trial: str) -> str:
        tried.append(trial)
        raise Fault("an episode is lost")

    monkeypatch.setattr(kills.Kill, "run", lost)
    assert faults.main(words) == 0 and tried == []
    assert faults.main([*words, "--kills", "2"]) == 1 and tried == ["1"]
    assert "| 1 of 2 | bit for bit |" in (told := capsys.readouterr().out) and "is lost |" in told


def test_a_process_ends_at_the_call_that_is_named(tmp_path: Path) -> None:
    inside = kills.KillInside(Evaluation(tmp_path), 4)
    first, *_, last = inside.trials()
    assert first == "0 before" and last.endswith(" after")
    calls = (tmp_path / "calls.log").read_text(encoding="utf-8").splitlines()
    assert any(" replace " in call and call.endswith("/run.json") for call in calls)
    place = next(n for n, call in enumerate(calls) if call.endswith("/report.html"))
    out = inside.fresh()
    inside._run(out, FAULT_AT=f"{place} before")
    assert (out / ".report.html.part").exists() and not (out / "report.html").exists()
    assert inside.recover(out) == ""


def test_what_differs_is_a_fault(tmp_path: Path) -> None:
    command = Evaluation(tmp_path)
    whole, _ = undisturbed(command, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    lines = (whole / "episodes.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for name in ("run.json", "report.html"):
        (out / name).write_text((whole / name).read_text(encoding="utf-8"), encoding="utf-8")
    for changed, message in (
        ([*lines, lines[0]], "1 episodes stand twice"),
        (lines[1:], "other parts"),
        ([lines[0].replace('"valid": true', '"valid": false'), *lines[1:]], "1 of 5 parts differ"),
    ):
        (out / "episodes.jsonl").write_text("".join(changed), encoding="utf-8")
        with pytest.raises(Fault, match=message):
            differences(command, whole, out)


@pytest.mark.parametrize("trial", ["all well", "status 404", "closes at once", "no choices"])
def test_a_broken_server_is_asked(trial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [model, _] = servers.server_rows()
    assert model.run(trial) == ""
    _, script = servers.CHAT[trial]
    expected: Any = "invalid" if trial == "all well" else "answered"
    wrong = servers.Answers("m", {trial: (expected, script)}, servers.ask_model)
    with pytest.raises(Fault, match=f"{trial}: (answered|invalid), not {expected}"):
        wrong.run(trial)
