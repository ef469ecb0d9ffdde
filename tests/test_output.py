"""No command fails by what it cannot print, unless what it prints is all that it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from erl_envs.arguments import OK, UNWRITABLE

ROOT = Path(__file__).parents[1]

EVAL = ["erl_envs.eval", "--policy", "random", "--env", "frozenlake", "--limit", "2", "--out"]

FULL = Path("/dev/full")
full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")


def shell(
    words: Sequence[str], redirect: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a module with its output sent elsewhere."""
    line = " ".join(["exec", sys.executable, "-m", *words, redirect])
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize(
    "redirect",
    [
        pytest.param("> /dev/full", marks=full),
        pytest.param("> /dev/full 2> /dev/full", marks=full),
        ">&-",
        ">&- 2>&- <&-",
    ],
)
def test_a_run_is_finished_whatever_becomes_of_its_output(redirect: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = shell([*EVAL, str(out)], redirect)
    assert done.returncode == OK and "Traceback" not in done.stderr
    assert (out / "report.html").is_file()
    # nothing was printed into a file that got the number of a closed output
    assert all(line.startswith("{") for line in (out / "episodes.jsonl").open(encoding="utf-8"))


def test_a_reader_who_has_enough_stops_no_run(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *EVAL, str(tmp_path / "run")],
            stdout=write,
            stderr=write,
            check=False,
        )
    finally:
        os.close(write)
    assert done.returncode == OK and (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "C"],
)
def test_characters_that_the_output_does_not_know_become_others(
    environment: dict[str, str], tmp_path: Path
) -> None:
    told = shell(["erl_envs.tasks", "describe", "frozenlake", "paper-test"], "", **environment)
    assert told.returncode == OK and "   1  ????????" in told.stdout
    played = shell([*EVAL, str(tmp_path / "run")], "", **environment)
    assert played.returncode == OK and "frozenlake, test: 2 tasks" in played.stdout
    # a person's boards hold √ where the goal was reached
    human = ["--policy human --limit 1 --env frozenlake --split small-test --option rules=shown"]
    line = ["erl_envs.eval", *human, "--out", str(tmp_path / "human")]
    typed = shell(line, "< /dev/null", **environment)
    assert "Traceback" not in typed.stderr and "1 of 1 episodes are invalid" in typed.stderr


@pytest.mark.parametrize("redirect", [pytest.param("> /dev/full", marks=full), ">&-"])
@pytest.mark.parametrize(
    "words",
    [
        ["erl_envs.tasks", "export", "frozenlake", "paper-test"],
        ["erl_envs.tasks", "list"],
        ["erl_envs.leaderboard", "tracks"],
        ["erl_envs.leaderboard", "tracks", "frozenlake-test-hidden-outcome-1"],
    ],
    ids=" ".join,
)
def test_a_command_that_only_prints_fails_where_it_cannot(
    words: Sequence[str], redirect: str
) -> None:
    done = shell(words, redirect)
    assert done.returncode == UNWRITABLE
    assert re.fullmatch("error: cannot write standard output: .*\n", done.stderr)


def test_who_interrupts_a_command_gets_a_line(tmp_path: Path) -> None:
    script = "from erl_envs.arguments import run_command\ndef main(): raise KeyboardInterrupt\n"
    line = [sys.executable, "-c", script + "run_command(main)"]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_every_command_line_is_protected() -> None:
    """Found by their text: a new one that ends as Python does would fail by a closed output."""
    for package in ("erl_envs", "erl_trainer"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if '__name__ == "__main__"' in text:
                assert text.endswith('if __name__ == "__main__":\n    run_command(main)\n'), path
