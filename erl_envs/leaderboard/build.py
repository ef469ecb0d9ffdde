"""The leaderboards' pages: `README.md`, and a site that needs no server."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erl_envs.eval.report import render_report, template
from erl_envs.eval.table import interval, number
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.tracks import TRACKS, Track, references
from erl_envs.leaderboard.verify import Verified, verify
from erl_envs.tasks import mean

REPLAYED, REPRODUCED = "replay-verified", "reproduced"
"""Tiers of entries that are shown; one whose numbers are only its own word's is not."""

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        verified: The submission, replayed.
        tier: How far its numbers are more than its own word.
        page: Address of its transcripts, from the site's first page.
    """

    verified: Verified
    tier: str
    page: str

    @property
    def score(self) -> Mapping[str, float]:
        """What it is ranked by: reward, after reflection where there is one."""
        metrics = self.verified.metrics
        found: Mapping[str, float] = metrics["reward_after"] or metrics["reward"]
        return found


@dataclass(frozen=True)
class Board:
    """A track's table.

    Attributes:
        track: What was measured.
        entries: Best first.
        random: Expected reward of random play; None if nobody knows.
        oracle: Expected reward of the best there is; None likewise.
    """

    track: Track
    entries: Sequence[Entry]
    random: float | None
    oracle: float | None


def read_boards(submissions: Path) -> list[Board]:
    """Replay all submissions.

    Args:
        submissions: Folder of `TRACK/DATE_NAME` folders.

    Returns:
        A table for each track that has entries, and for each default one.

    Raises:
        Refused: Submissions that do not verify; one line for each.
    """
    found: dict[str, list[Verified]] = {name: [] for name in TRACKS}
    wrong = []
    for folder in _folders(submissions):
        where = f"{folder.parent.name}/{folder.name}"
        try:
            verified = verify(folder)
            home = f"{verified.track.id}/{verified.submission.folder}"
            if home != where:
                raise Refused(f"belongs to {home}")
            found[verified.track.id].append(verified)
        except Refused as error:
            wrong.append(f"{where}: {error}")
    if wrong:
        raise Refused("\n".join(wrong))
    return [
        _board(TRACKS[name], entries)
        for name, entries in found.items()
        if entries or TRACKS[name].default
    ]


def _folders(submissions: Path) -> Iterator[Path]:
    for track in sorted(submissions.iterdir()):
        if track.is_dir():
            yield from sorted(path for path in track.iterdir() if not path.name.startswith("."))


def _board(track: Track, entries: Sequence[Verified]) -> Board:
    known = references(track)
    rows = [
        Entry(v, _tier(v, entries), f"entries/{track.id}/{v.submission.folder}.html")
        for v in entries
    ]
    rows.sort(key=lambda row: (-row.score["mean"], row.verified.submission.folder))
    return Board(
        track,
        rows,
        mean([r.random if r else None for r in known]),
        mean([r.ceiling if r else None for r in known]),
    )


def _tier(entry: Verified, others: Sequence[Verified]) -> str:
    """Whether somebody played the same again and came within the same interval."""
    own = entry.metrics["reward_after"] or entry.metrics["reward"]
    for other in others:
        theirs = other.metrics["reward_after"] or other.metrics["reward"]
        again = other.submission.reproduces == entry.submission.name
        if again and theirs["low"] <= own["high"] and own["low"] <= theirs["high"]:
            return REPRODUCED
    return REPLAYED


def markdown(boards: Sequence[Board]) -> str:
    """`leaderboards/README.md`."""
    text = template("README.md", HERE).render(
        boards=boards, number=number, interval=interval, told=told
    )
    return text.rstrip() + "\n"


def told(entry: Entry) -> str:
    """What an entry chose of what a track leaves open, in a few words."""
    options = entry.verified.submission.options
    words = [str(options["prompt_style"])] if "prompt_style" in options else []
    if options.get("coordinates"):
        words.append("coordinates")
    if "top_k" in options:
        words.append(f"{options['top_k']} passages")
    if options.get("snippet_chars"):
        words.append(f"of {options['snippet_chars']} characters")
    return ", ".join(words)


def write_site(boards: Sequence[Board], out: Path, curves: Path) -> None:
    """The site: `index.html`, and a page of transcripts for each entry.

    Args:
        boards: What to show.
        out: Folder to write to.
        curves: Folder of the figures that show training, if there is one.
    """
    figures = [
        {"name": path.stem, "data": base64.b64encode(path.read_bytes()).decode()}
        for path in (curves / "curves_steps.svg", curves / "reflection.svg")
        if path.is_file()
    ]
    page = template("site.html", HERE).render(
        boards=boards, figures=figures, told=told, replayed=REPLAYED, reproduced=REPRODUCED
    )
    _write(out / "index.html", page.lstrip())
    for board in boards:
        for entry in board.entries:
            run, home = _as_run(entry.verified), "../../index.html"
            _write(out / entry.page, render_report(run, entry.verified.episodes, home=home))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="replace")


def _as_run(verified: Verified) -> dict[str, Any]:
    """An entry as the run that its page of transcripts is made of."""
    submission, track = verified.submission, verified.track
    spec, name = track.specification(), submission.model
    return {
        "policy": {"spec": name, "revision": submission.revision},
        "reflector": submission.reflector and {"spec": submission.reflector, "revision": ""},
        "sampling": submission.sampling,
        "reflection_sampling": submission.reflection_sampling,
        "seed": submission.seed,
        "samples": track.samples,
        "attempts": track.attempts,
        "limit": None,
        "package": submission.package,
        "hardware": None,
        "envs": {
            track.env: {
                "options": {**spec["options"], **submission.options},
                "split": track.split + (f"@{submission.salt}" if submission.salt else ""),
                "split_hash": spec["split_hash"],
                "tasks": verified.metrics["tasks"],
            }
        },
        "counts": {"episodes": len(verified.episodes), "invalid": 0},
        "metrics": {track.env: verified.metrics},
    }
