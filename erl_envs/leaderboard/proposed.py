"""What a commit adds to the leaderboards, taken out of git as data.

Nothing of the commit is checked out, so nothing of it is run, imported, filtered or followed: git
lists what it changes, each change is tested, and of what may be added the bytes are read.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from erl_envs.leaderboard.archive import MAX_PACKED, Refused
from erl_envs.leaderboard.differences import shown
from erl_envs.leaderboard.submission import ABOUT, EPISODES, MAX_ABOUT

HOME = "leaderboards/submissions"

FORM = (
    f"a pull request adds {ABOUT} and {EPISODES} in a new folder {HOME}/TRACK/DATE_NAME, and "
    "changes nothing else"
)

MOST = 10
"""Submissions that are taken at a time."""

_PATH = re.compile(
    rf"{HOME}/(?P<folder>[a-z0-9-]{{1,80}}/(?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})_[a-z0-9._-]{{1,60}})"
    rf"/(?P<file>{re.escape(ABOUT)}|{re.escape(EPISODES)})"
)
_LIMITS = {ABOUT: MAX_ABOUT, EPISODES: MAX_PACKED}
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PLAIN = "100644"
_DONE = {"A": "added", "D": "deleted", "M": "changed", "T": "changed in kind"}
_DIFF = ("diff-tree", "-r", "-z", "--no-abbrev", "--ignore-submodules=none")
_LISTED = 2**16
"""Bytes of a listing: a pull request of `MOST` submissions has a few thousand."""


class Change(NamedTuple):
    """A path in which two commits differ.

    Attributes:
        path: It may be anything; what is no UTF-8 in it stands as lone surrogates.
        done: Git's letter for what was done.
        mode: What the path is afterwards, as git writes it.
        blob: Id of its content.
    """

    path: str
    done: str
    mode: str
    blob: str


def extract(repository: Path, base: str, head: str, out: Path, today: date) -> dict[str, Path]:
    """Write the submissions that a commit adds to another.

    Args:
        repository: Has both commits.
        base: Id of the commit of before.
        head: Id of the commit that adds.
        out: Folder to write to.
        today: Submissions may be dated up to the day after: it is that day somewhere.

    Returns:
        `TRACK/DATE_NAME` of each → the folder that was written.

    Raises:
        Refused: The commit does anything else; the message says what.
    """
    found: dict[str, dict[str, str]] = {}
    for change in changes(repository, base, head):
        match = _PATH.fullmatch(change.path)
        if match is None or change.done != "A" or change.mode != _PLAIN:
            path, done = shown(change.path, 140), _DONE.get(change.done, change.done)
            raise Refused(f"{path} is {done}, with mode {change.mode}: {FORM}")
        folder, day, name = match["folder"], match["date"], match["file"]
        if folder not in found:
            if len(found) == MOST:
                raise Refused(f"more than {MOST} submissions are added at a time")
            if day > (today + timedelta(days=1)).isoformat():
                raise Refused(f"{folder} is of a day that is still to come")
            if _git(repository, "ls-tree", "-z", "--full-tree", base, f"{HOME}/{folder}"):
                raise Refused(f"{folder} is there already")
        found.setdefault(folder, {})[name] = change.blob
    if not found:
        raise Refused(f"nothing is added: {FORM}")
    for folder, blobs in found.items():
        (out / folder).mkdir(parents=True)
        for name, blob in blobs.items():
            # of one that is too long, as much as shows that
            content = _git(repository, "cat-file", "blob", blob, most=_LIMITS[name])
            (out / folder / name).write_bytes(content)
    return {folder: out / folder for folder in found}


def changes(repository: Path, base: str, head: str) -> Iterator[Change]:
    """What merging a commit would change, path by path.

    Raises:
        Refused: A commit is not there, both have no or more than one common past, or there is more
            than anybody would list.
    """
    for commit in (base, head):
        kind = _COMMIT.fullmatch(commit) and _git(repository, "cat-file", "-t", commit, failed=b"")
        if kind != b"commit\n":
            raise Refused(f"there is no commit {shown(commit)}")
    # of several, each would show other changes than the merge makes
    since = _git(repository, "merge-base", "--all", base, head, failed=b"").decode().split()
    if len(since) != 1:
        raise Refused("it does not start from one commit of the branch that it is for: rebase it")
    listing = _git(repository, *_DIFF, since[0], head)
    parts = listing.split(b"\0")[:-1]  # behind the last mark there is nothing, or half a path
    for about, path in zip(parts[::2], parts[1::2], strict=False):
        _, mode, _, blob, done = about.decode("ascii").split(" ")
        yield Change(path.decode("utf-8", "surrogateescape"), done, mode, blob)
    if len(listing) > _LISTED:
        raise Refused(f"it changes more than can be looked at: {FORM}")


def _git(repository: Path, *words: str, most: int = _LISTED, failed: bytes | None = None) -> bytes:
    """What a git command writes, cut after one byte more than `most`.

    Args:
        repository: Where to run it.
        *words: Of the command; none is anybody's but an id or a path that was tested.
        most: Bytes.
        failed: What a failure means; None refuses.
    """
    command = ["git", "--no-replace-objects", "-C", str(repository), *words]
    alone = {**os.environ, "GIT_NO_LAZY_FETCH": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=alone,
    ) as git:
        assert git.stdout is not None
        output = git.stdout.read(most + 1)
        if len(output) > most:
            git.kill()
            return output
    if git.returncode == 0:
        return output
    if failed is None:
        raise Refused(f"git {words[0]} failed")
    return failed
