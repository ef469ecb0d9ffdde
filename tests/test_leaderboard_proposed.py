"""A pull request's commit is data: listed, tested path by path, read out of git, replayed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from submissions import ALONE, make_run

from erl_envs.leaderboard import __main__ as cli
from erl_envs.leaderboard import proposed
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.proposed import HOME, MOST, extract
from erl_envs.leaderboard.submission import ABOUT, EPISODES, MAX_ABOUT
from erl_envs.leaderboard.submit import submit

ROOT = Path(__file__).parents[1]
TRACK = "frozenlake-small-test-hidden-outcome-1"
FOLDER = f"{HOME}/{TRACK}/2026-01-31_dice"
OTHER = f"{HOME}/{TRACK}/2026-01-31_other"
WORKFLOW = ROOT / ".github" / "workflows" / "submission.yml"

FILE, PROGRAM, LINK, MODULE = "100644", "100755", "120000", "160000"
Tree = Mapping[str | bytes, tuple[str, bytes] | None]
"""Path → mode and content; None deletes it."""


@dataclass
class Repository:
    """A bare repository whose commits may hold what no checkout could."""

    path: Path
    blobs: dict[bytes, str] = field(default_factory=dict)

    def git(self, *words: str, given: bytes = b"", **env: str) -> str:
        who = {f"GIT_{x}_{y}": "a@b" for x in ("AUTHOR", "COMMITTER") for y in ("NAME", "EMAIL")}
        command = ["git", "-C", str(self.path), *words]
        done = subprocess.run(
            command, input=given, capture_output=True, check=True, env={**os.environ, **who, **env}
        )
        return done.stdout.decode().strip()

    def blob(self, content: bytes) -> str:
        """The id of a content, written once."""
        if content not in self.blobs:
            self.blobs[content] = self.git("hash-object", "-w", "--stdin", given=content)
        return self.blobs[content]

    def commit(self, tree: Tree, *parents: str) -> str:
        """A commit of its first parent's files, with changes."""
        index = str(self.path / "own-index")
        self.git("read-tree", *(parents[:1] or ("--empty",)), GIT_INDEX_FILE=index)
        lines = b""
        for path, file in tree.items():
            name = path if isinstance(path, bytes) else path.encode()
            mode, content = file or ("0", b"0" * 40)
            blob = content.decode() if mode in ("0", MODULE) else self.blob(content)
            lines += f"{mode} {blob}\t".encode() + name + b"\0"
        self.git("update-index", "-z", "--index-info", given=lines, GIT_INDEX_FILE=index)
        made = self.git("write-tree", GIT_INDEX_FILE=index)
        before = [word for parent in parents for word in ("-p", parent)]
        return self.git("commit-tree", made, *before, "-m", "a commit")


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A true submission's files."""
    home = tmp_path_factory.mktemp("entry")
    folder, _ = submit(make_run(home / "run"), "frozenlake", ALONE, home)
    return {f"{FOLDER}/{name}": (FILE, (folder / name).read_bytes()) for name in (ABOUT, EPISODES)}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "origin")], check=True)
    return Repository(tmp_path / "origin")


BASE: Tree = {
    "README.md": (FILE, b"Ours."),
    "erl_envs/leaderboard/verify.py": (FILE, b"..."),
    f"{OTHER}/{ABOUT}": (FILE, b"{}"),
    f"{OTHER}/{EPISODES}": (FILE, b""),
}


def named(path: str | bytes) -> Callable[[Tree], Tree]:
    """One more file, of this name."""
    return lambda entry: {**entry, path: (FILE, b"{}")}


def of_mode(mode: str, name: str) -> Callable[[Tree], Tree]:
    """A file of the submission as something else."""
    content = b"1" * 40 if mode == MODULE else b"/etc/passwd"
    return lambda entry: {**entry, f"{FOLDER}/{name}": (mode, content)}


def moved(to: str) -> Callable[[Tree], Tree]:
    """The submission in another folder."""
    return lambda entry: {
        f"{to}/{str(path).rpartition('/')[2]}": file for path, file in entry.items()
    }


def a_thousand_files(entry: Tree) -> Tree:
    """What the script of before let pass: its listing died of the pipe that it was piped into."""
    return {
        **{f"{FOLDER}-{n}/{ABOUT}": (FILE, b"{}") for n in range(1000)},
        **entry,
        "erl_envs/leaderboard/verify.py": (FILE, b"def verify(folder): ..."),
        f"{OTHER}/{ABOUT}": None,
        "leaderboards/reproduced.json": (FILE, b"{}"),
    }


LONG = "x" * 5000

CHANGES: dict[str, tuple[Callable[[Tree], Tree], str]] = {
    "thousand": (a_thousand_files, "'erl_envs/leaderboard/verify.py' is changed"),
    "many": (
        lambda entry: {f"{FOLDER}-{n}/{ABOUT}": (FILE, b"{}") for n in range(1000)},
        f"more than {MOST} submissions",
    ),
    "nothing": (lambda entry: {}, "nothing is added"),
    "code": (named("setup.py"), "'setup.py' is added"),
    "page": (
        lambda entry: {**entry, "README.md": (FILE, b"I am first.")},
        "'README.md' is changed",
    ),
    "workflow": (named(".github/workflows/submission.yml"), "submission.yml' is added"),
    "attributes": (named(f"{FOLDER}/.gitattributes"), "gitattributes' is added"),
    "reproduced": (named("leaderboards/reproduced.json"), "reproduced.json' is added"),
    "deletes": (lambda entry: {**entry, f"{OTHER}/{ABOUT}": None}, f"{ABOUT}' is deleted"),
    "changes": (lambda entry: {f"{OTHER}/{ABOUT}": (FILE, b"[]")}, f"{ABOUT}' is changed"),
    "renames": (
        lambda entry: {f"{OTHER}/{ABOUT}": None, f"{FOLDER}/{ABOUT}": (FILE, b"{}")},
        f"{ABOUT}' is deleted",
    ),
    "to a link": (
        lambda entry: {f"{OTHER}/{ABOUT}": (LINK, b"x")},
        f"{ABOUT}' is changed in kind, with mode 120000",
    ),
    "to a program": (lambda entry: {f"{OTHER}/{ABOUT}": (PROGRAM, b"{}")}, "mode 100755"),
    "link": (of_mode(LINK, ABOUT), "is added, with mode 120000"),
    "linked episodes": (of_mode(LINK, EPISODES), "is added, with mode 120000"),
    "linked folder": (
        lambda entry: {FOLDER: (LINK, b"../../..")},
        "2026-01-31_dice' is added, with mode 120000",
    ),
    "program": (of_mode(PROGRAM, EPISODES), "is added, with mode 100755"),
    "module": (of_mode(MODULE, ABOUT), "is added, with mode 160000"),
    "modules": (named(".gitmodules"), "gitmodules' is added"),
    "another's module": (
        lambda entry: {**entry, "sub": (MODULE, b"1" * 40)},
        "'sub' is added, with mode 160000",
    ),
    "folder within": (named(f"{FOLDER}/more/{ABOUT}"), "is added"),
    "no folder": (named(f"{HOME}/{ABOUT}"), "is added"),
    "no track": (named(f"{HOME}/2026-01-31_dice/{ABOUT}"), "is added"),
    "other place": (moved("leaderboards/2026-01-31_dice"), "is added"),
    "blanks": (named(f"{HOME}/{TRACK}/2026-01-31_di ce/{ABOUT}"), "di ce"),
    "quote": (named(f"{HOME}/{TRACK}/2026-01-31_d'ice/{ABOUT}"), "d'ice"),
    "backticks": (named(f"{HOME}/{TRACK}/2026-01-31_`@you`/{ABOUT}"), "is added"),
    "newline": (named(f"{FOLDER}\n::error::x/{ABOUT}"), "\\n::error::x"),
    "return": (named(f"{FOLDER}/{ABOUT}\r"), "\\r' is added"),
    "end": (named(f"{FOLDER}/{ABOUT}\n"), "\\n' is added"),
    "tab": (named(f"\tA\t{FOLDER}/{ABOUT}"), "'\\tA"),
    "escape": (named("\x1b[2J"), "'\\x1b[2J'"),
    "no UTF-8": (named(b"\xff\xfe"), "'\\udcff\\udcfe'"),
    "case": (moved(f"{HOME}/{TRACK}/2026-01-31_OTHER"), "_OTHER"),
    "cased file": (named(f"{FOLDER}/Submission.json"), "Submission.json' is added"),
    "homoglyph": (moved(f"{HOME}/{TRACK}/2026-01-31_d\u0456ce"), "d\\u0456ce"),
    "marks": (moved(f"{HOME}/{TRACK}/2026-01-31_d" + "\u0301" * 480), "_d\\u0301"),
    "digits": (moved(f"{HOME}/{TRACK}/\u0662026-01-31_dice"), "\\u0662026"),
    "long": (named(f"{HOME}/{LONG}/{ABOUT}"), "xxx"),
    "endless": (named("/".join([LONG] * 40)), "more than can be looked at"),
    "deep": (named("/".join("d" * 2000)), "d/d/d"),
    "large": (
        lambda entry: {**entry, f"{FOLDER}/{ABOUT}": (FILE, b" " * (MAX_ABOUT + 1))},
        f"has more than {MAX_ABOUT:,} bytes",
    ),
    "later": (moved(f"{HOME}/{TRACK}/9999-12-31_dice"), "of a day that is still to come"),
}


def replayed(repository: Repository, base: str, head: str) -> int:
    return cli.main(["proposed", str(repository.path), base, head])


@pytest.mark.parametrize("case", CHANGES)
def test_a_commit_that_does_more_is_refused(
    repository: Repository, entry: Tree, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, told = CHANGES[case]
    base = repository.commit(BASE)
    head = repository.commit(edit(entry), base)
    assert replayed(repository, base, head) == 1
    out, err = capsys.readouterr()
    assert out == "" and told in err
    assert err.count("\n") == 1 and err.endswith("\n") and len(err) < 400
    assert err.rstrip("\n").replace("…", "").isascii() and err.rstrip("\n").isprintable()


def test_a_commit_that_adds_submissions_is_replayed(
    repository: Repository, entry: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    base = repository.commit(BASE)
    spoilt: dict[str | bytes, Any] = {
        str(path).replace("_dice", "_lie"): file for path, file in entry.items()
    }
    about = json.loads(spoilt[f"{HOME}/{TRACK}/2026-01-31_lie/{ABOUT}"][1])
    about["metrics"]["reward"]["mean"] = 1.0
    lie = json.dumps({**about, "name": "lie"}).encode()
    spoilt[f"{HOME}/{TRACK}/2026-01-31_lie/{ABOUT}"] = FILE, lie
    later = repository.commit({"README.md": (FILE, b"Ours, too.")}, base)
    head = repository.commit(entry, base)
    assert replayed(repository, later, head) == 0  # the branch went on meanwhile
    assert capsys.readouterr().out.startswith(f"{TRACK}: dice earns 0.182")
    both = repository.commit({**entry, **spoilt}, base)
    assert replayed(repository, base, both) == 1
    out, err = capsys.readouterr()
    assert "dice earns" in out and "_lie is refused: reward, mean: 1.0 is stated" in err


def test_a_submission_lies_where_it_belongs(
    repository: Repository, entry: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    base = repository.commit(BASE)
    head = repository.commit(moved(f"{HOME}/{TRACK}/2026-01-30_dice")(entry), base)
    assert replayed(repository, base, head) == 1
    assert f"{TRACK}/2026-01-30_dice is refused: belongs to {TRACK}/2026-01-31_dice" in (
        capsys.readouterr().err
    )


def test_a_salted_submission_is_for_maintainers(
    repository: Repository, entry: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    base = repository.commit(BASE)
    files: dict[str | bytes, Any] = dict(entry)
    about = json.loads(files[f"{FOLDER}/{ABOUT}"][1])
    files[f"{FOLDER}/{ABOUT}"] = FILE, json.dumps({**about, "salt": "mine"}).encode()
    assert replayed(repository, base, repository.commit(files, base)) == 1
    assert "its tasks are salted" in capsys.readouterr().err


def refused(repository: Repository, base: str, head: str, out: Path) -> str:
    with pytest.raises(Refused) as refusal:
        extract(repository.path, base, head, out, date(2026, 2, 1))
    return str(refusal.value)


def test_what_is_added_meanwhile_is_not_replaced(
    repository: Repository, entry: Tree, tmp_path: Path
) -> None:
    first = repository.commit(BASE)
    base = repository.commit({f"{FOLDER}/{ABOUT}": (FILE, b"mine")}, first)
    assert "2026-01-31_dice is there already" in refused(
        repository, base, repository.commit(entry, first), tmp_path
    )


def test_commits_have_one_common_past(repository: Repository, entry: Tree, tmp_path: Path) -> None:
    base = repository.commit(BASE)
    assert "rebase it" in refused(repository, base, repository.commit(entry), tmp_path)
    one = repository.commit({"one": (FILE, b"1")}, base)
    two = repository.commit({"two": (FILE, b"2")}, base)
    ours = repository.commit({"two": (FILE, b"2")}, one, two)
    theirs = repository.commit({**entry, "one": (FILE, b"1")}, two, one)
    assert "rebase it" in refused(repository, ours, theirs, tmp_path)


@pytest.mark.parametrize(
    "name", ["0" * 40, "main", "HEAD", "--output=x", "", "\n", "HEAD^{tree}", "1" * 4000, "TREE"]
)
def test_a_commit_is_named_by_its_id(
    repository: Repository, entry: Tree, tmp_path: Path, name: str
) -> None:
    head = repository.commit(BASE)
    repository.git("update-ref", "refs/heads/main", head)
    name = repository.git("rev-parse", f"{head}^{{tree}}") if name == "TREE" else name
    for pair in ((name, head), (head, name)):
        told = refused(repository, *pair, tmp_path / "out")
        assert told.startswith("there is no commit ") and "\n" not in told and len(told) < 100
    assert not (tmp_path / "out").exists()


def test_a_replaced_object_is_seen_as_it_is(
    repository: Repository, entry: Tree, tmp_path: Path
) -> None:
    base = repository.commit(BASE)
    head = repository.commit({**entry, "setup.py": (FILE, b"1")}, base)
    repository.git("replace", head, repository.commit(entry, base))
    assert "'setup.py' is added" in refused(repository, base, head, tmp_path)


def test_what_git_is_told_to_overlook_is_seen(
    repository: Repository, entry: Tree, tmp_path: Path
) -> None:
    modules = b'[submodule "sub"]\npath = sub\nurl = x\nignore = all\n'
    base = repository.commit({**BASE, ".gitmodules": (FILE, modules), "sub": (MODULE, b"1" * 40)})
    heads = {
        "'sub' is changed": {**entry, "sub": (MODULE, b"2" * 40)},
        "'sub' is deleted": {**entry, "sub": None},
        "'copy.md' is added": {**entry, "copy.md": BASE["README.md"]},
        "'README.md' is deleted": {**entry, "README.md": None, "moved.md": BASE["README.md"]},
    }
    made = {told: repository.commit(tree, base) for told, tree in heads.items()}
    for number, commit in enumerate((base, *made.values())):
        repository.git("update-ref", f"refs/heads/b{number}", commit)
    repository.git("symbolic-ref", "HEAD", "refs/heads/b0")
    clone = Repository(tmp_path / "clone")
    subprocess.run(["git", "clone", "-q", str(repository.path), str(clone.path)], check=True)
    for name in ("diff.ignoreSubmodules", "submodule.sub.ignore"):
        clone.git("config", name, "all")
    clone.git("config", "diff.renames", "copies")
    for told, head in made.items():
        assert told in refused(clone, base, head, tmp_path)


def test_git_that_fails_approves_of_nothing(
    repository: Repository, entry: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = repository.commit(BASE)
    head = repository.commit(entry, base)
    monkeypatch.setattr(proposed, "_DIFF", ("diff-tree", "--no-such-option"))
    assert refused(repository, base, head, tmp_path / "a") == "git diff-tree failed"
    monkeypatch.undo()
    blob = repository.git("rev-parse", f"{head}:{FOLDER}/{ABOUT}")
    (repository.path / "objects" / blob[:2] / blob[2:]).unlink()
    assert refused(repository, base, head, tmp_path / "b") == "git cat-file failed"


def steps(job: str) -> Any:
    yaml: Any = pytest.importorskip("yaml", reason="PyYAML comes with the models extra")
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"][job]["steps"]


def run(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """As GitHub runs a step."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_the_workflow_replays_and_comments(
    repository: Repository, entry: Tree, tmp_path: Path
) -> None:
    """Its own lines, in a clone, with a `gh` that only notes what it is told."""
    base = repository.commit(BASE)
    repository.git("update-ref", "refs/heads/main", base)
    repository.git("symbolic-ref", "HEAD", "refs/heads/main")
    (replay,) = [step["run"] for step in steps("replay") if step.get("name") == "Replay"]
    (comment,) = [step["run"] for step in steps("comment") if "run" in step]
    (tmp_path / "gh").write_text('#!/bin/sh\nprintf "%s " "$@" > told\n', encoding="utf-8")
    (tmp_path / "gh").chmod(0o755)
    code: Tree = {
        "sitecustomize.py": (FILE, b"print('run!')"),
        "erl_envs/__init__.py": (FILE, b"print('run!')"),
        f"{FOLDER}/```\n@you <b>\n::add-mask::x": (FILE, b""),
    }
    for name, tree, done, told in (
        ("good", entry, 0, f"{TRACK}: dice earns 0.182"),
        ("bad", {**entry, **code}, 1, "refused: 'erl_envs/__init__.py' is added"),
        ("odd", {**entry, **dict(list(code.items())[2:])}, 1, "@you <b>"),
    ):
        head = repository.commit(tree, base)
        repository.git("update-ref", f"refs/pull/{name}/head", head)
        clone = tmp_path / name
        subprocess.run(["git", "clone", "-q", str(repository.path), str(clone)], check=True)
        ran = run(replay, clone, BASE=base, HEAD=head)
        assert (ran.returncode, ran.stdout, ran.stderr) == (done, "", "")
        assert sorted(path.name for path in clone.iterdir()) == [
            ".git", "README.md", "erl_envs", "leaderboards", "row.txt",
        ]  # fmt: skip
        if name == "odd":  # whatever a fault may print, it stays in its fence
            with (clone / "row.txt").open("a", encoding="utf-8") as file:
                file.write("```\n[x](y)\u202e" + "z" * 10**6)
        ran = run(
            comment, clone, PATH=f"{tmp_path}:{os.environ['PATH']}", NUMBER="7", GH_TOKEN="t",
            GITHUB_REPOSITORY="o/r",
        )  # fmt: skip
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        assert (clone / "told").read_text(
            encoding="utf-8"
        ) == "pr comment 7 --repo o/r --body-file comment.md "
        lines = (clone / "comment.md").read_text(encoding="ascii").splitlines()
        assert lines[2] == "```text" and lines[-1] == "```"
        assert not any("`" in line for line in lines[3:-1]) and "run!" not in lines
        assert told in "\n".join(lines) and len("\n".join(lines)) < 21_000


def test_the_workflow_gives_nothing_away() -> None:
    """Every action by its commit's hash, no token kept, no event's text in a script."""
    text = WORKFLOW.read_text(encoding="utf-8")
    used = [line for line in text.splitlines() if "uses:" in line]
    assert len(used) == 4
    for line in used:
        name, _, rest = line.partition("@")
        hashed, _, version = rest.partition(" # v")
        assert len(hashed) == 40 and set(hashed) <= set("0123456789abcdef"), name
        assert version.count(".") == 2
    for job in ("replay", "comment"):
        for step in steps(job):
            assert "${{" not in step.get("run", "")
            if "checkout" in step.get("uses", ""):
                assert step["with"] == {"fetch-depth": 0, "persist-credentials": False}


def test_more_than_one_submission_is_written(
    repository: Repository, entry: Tree, tmp_path: Path
) -> None:
    base = repository.commit(BASE)
    again = moved(f"{HOME}/{TRACK}/{replace(ALONE, name='again').date}_again")(entry)
    found = extract(
        repository.path,
        base,
        repository.commit({**entry, **again}, base),
        tmp_path,
        date(2026, 1, 30),
    )
    assert list(found) == [f"{TRACK}/2026-01-31_again", f"{TRACK}/2026-01-31_dice"]
    for folder in found.values():
        assert sorted(path.name for path in folder.iterdir()) == [EPISODES, ABOUT]
        assert (folder / EPISODES).read_bytes() == entry[f"{FOLDER}/{EPISODES}"][1]  # type: ignore[index]
