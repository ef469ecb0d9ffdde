"""Entries that are carried to their track's present version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from submissions import change, make_submission

from erl_envs.leaderboard import renew as renewing
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.renew import renew
from erl_envs.leaderboard.submission import read_about
from erl_envs.leaderboard.verify import verify


def older(about: dict[str, Any], lines: list[Any]) -> None:
    """An entry of before: its attempts' last observations, which nobody read, were others."""
    about["track"]["version"] -= 1
    for line in lines:
        line["attempts"][0]["messages"][-1]["content"] = "The end."


def test_what_answers_the_same_prompts_is_carried_over(tmp_path: Path) -> None:
    folder = make_submission(tmp_path / "home")
    before = verify(folder).metrics
    change(folder, older)
    with pytest.raises(Refused, match="version"):
        verify(folder)
    assert renew(folder).metrics == before
    assert verify(folder).metrics == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_who_would_be_asked_something_else_has_to_play_again(tmp_path: Path) -> None:
    folder = make_submission(tmp_path / "home")

    def another_prompt(about: dict[str, Any], lines: list[Any]) -> None:
        lines[0]["attempts"][0]["messages"][0]["content"] += " Please."

    change(folder, another_prompt)
    about = read_about(folder)
    with pytest.raises(Refused, match="a prompt is another now; it has to play again"):
        renew(folder)
    assert read_about(folder) == about, "it is as it was"


def test_scripted_policies_read_no_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_submission(tmp_path / "home")
    monkeypatch.setattr(renewing, "UNCOUNTED", ("dice",))

    def another_prompt(about: dict[str, Any], lines: list[Any]) -> None:
        for line in lines:
            line["attempts"][0]["messages"][0]["content"] += " Please."

    change(folder, another_prompt)
    renew(folder)
    verify(folder)
