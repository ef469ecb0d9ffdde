"""The bundled models as they ship: small, and able to do what their card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from erl_envs import policies, tasks
from erl_envs.eval.__main__ import main as evaluate
from erl_envs.policies import nano
from erl_trainer.metrics import mean
from erl_trainer.nano import gates

ENVS = nano.played()


def test_they_ship_with_a_card_and_weigh_at_most_10_mb() -> None:
    assert ENVS == ["frozenlake", "hotpotqa", "sokoban"]
    assert (nano.FOLDER / "README.md").is_file()
    size = sum(path.stat().st_size for path in nano.FOLDER.rglob("*") if path.is_file())
    assert size <= 10_000_000


@pytest.mark.parametrize("env", ENVS)
def test_they_passed_their_gates_when_they_were_made(env: str) -> None:
    skills = gates.Skills(
        **json.loads((nano.folder(env) / "skills.json").read_text(encoding="utf-8"))
    )
    assert skills.failed() == []


@pytest.mark.parametrize("env", ENVS)
def test_told_the_rules_they_play_and_untold_they_guess(env: str) -> None:
    chosen = tasks.load(env, nano.SPLIT)[:25]
    hidden = dict(nano.OPTIONS[env])
    policy = policies.load("nano")
    told = gates.play(policy, chosen, 1, {**hidden, "rules": "shown"}, attempts=1)
    untold = gates.play(policy, chosen, 1, hidden, attempts=1)
    means = [mean(e.attempts[0].reward for e in episodes) or 0.0 for episodes in (told, untold)]
    assert means[0] >= 0.7 and means[1] <= 0.45


def test_the_default_evaluation_reflects_and_tries_again(tmp_path: Path) -> None:
    argv = ["--limit", "20", "--attempts", "2", "--out"]
    assert evaluate([*argv, str(tmp_path)]) == 0
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (
        run["policy"]["revision"] == (nano.FOLDER / "revision").read_text(encoding="utf-8").strip()
    )
    for env in ENVS:
        assert nano.OPTIONS[env].items() <= run["envs"][env]["options"].items()
