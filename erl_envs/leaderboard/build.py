"""The leaderboards' pages: `README.md`, and a site that needs no server."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from erl_envs.eval.report import render_report, template
from erl_envs.eval.table import interval, number
from erl_envs.files import new_folder, write_whole
from erl_envs.leaderboard.archive import Refused, read_json
from erl_envs.leaderboard.copies import Content, check_names, check_transcripts, share
from erl_envs.leaderboard.tracks import TRACKS, Track, references
from erl_envs.leaderboard.verify import Verified, check_place, verify
from erl_envs.options import fits
from erl_envs.tasks import mean

REPLAYED, REPRODUCED = "replay-verified", "reproduced"
"""Tiers of entries that are shown; one whose numbers are only its own word's is not."""

ANEW = 0.5
"""Share of the same transcripts up to which a submission on the same tasks plays an entry again."""

HERE = Path(__file__).parent

ENTRIES = "entries"
"""The site's folder of transcripts."""


@dataclass(frozen=True)
class Row:
    """An entry's row in a table.

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
        """What it is ranked by."""
        return _score(self.verified)


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
    entries: Sequence[Row]
    random: float | None
    oracle: float | None


def read_boards(home: Path) -> list[Board]:
    """Replay all submissions.

    Args:
        home: Has `submissions/TRACK/DATE_NAME/`, and may have `reproduced.json`, the maintainers'
            list of entries that were played again: entry → the submission that shows it, both as
            `TRACK/DATE_NAME`.

    Returns:
        A table for each track that has entries, and for each default one. What was played on
        salted tasks is no entry, but may show that one was reproduced.

    Raises:
        Refused: Submissions that do not verify, or claims of that list that do not hold; one line
            for each.
    """
    found: dict[str, Verified] = {}
    wrong = []
    for folder in _folders(home / "submissions"):
        where = f"{folder.parent.name}/{folder.name}"
        try:
            check_place(folder)
            found[where] = verify(folder)
        except Refused as error:
            wrong.append(f"{where}: {error}")
    claims = _claims(home / "reproduced.json")
    for entry, again in claims.items():
        try:
            _check_reproduced(found, entry, again)
        except Refused as error:
            wrong.append(f"reproduced.json, {entry}: {error}")
    for where, verified in found.items():
        if verified.submission.salt and where not in claims.values():
            wrong.append(f"{where}: its tasks are salted, and it reproduces nothing")
    wrong += _check_copies(found)
    if wrong:
        raise Refused(*wrong)
    boards = []
    for track in TRACKS.values():
        entries = [
            Row(v, REPRODUCED if where in claims else REPLAYED, f"{ENTRIES}/{where}.html")
            for where, v in found.items()
            if v.track == track and not v.submission.salt
        ]
        if entries or track.default:
            boards.append(_board(track, entries))
    return boards


def _folders(submissions: Path) -> Iterator[Path]:
    for track in sorted(submissions.iterdir()):
        if track.is_dir():
            yield from sorted(path for path in track.iterdir() if not path.name.startswith("."))


def _claims(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    claims = read_json(path.read_bytes(), path.name)
    if not fits(claims, Mapping[str, str]):
        raise Refused(f"{path.name} must map entries to submissions")
    return dict(claims)


def _check_reproduced(found: Mapping[str, Verified], entry: str, again: str) -> None:
    """Check that a submission plays an entry again, with other episodes and a like result."""
    if entry not in found or again not in found:
        raise Refused(f"{entry if entry not in found else again} is not there")
    first, second = found[entry], found[again]
    for name in ("model", "revision", "reflector", "options"):
        if getattr(first.submission, name) != getattr(second.submission, name):
            raise Refused(f"{again} has another {name}")
    if first.track != second.track:
        raise Refused(f"{again} is on another track")
    shared = share(second.content.texts, first.content.texts)
    if not second.submission.salt and shared > ANEW:
        raise Refused(
            f"{again} is the same episodes: {shared:.0%} of its transcripts are the entry's; "
            "a salted set has others"
        )
    own, theirs = _score(first), _score(second)
    if theirs["low"] > own["high"] or own["low"] > theirs["high"]:
        raise Refused(f"{again} has another score: {interval(theirs)}, not {interval(own)}")


def _check_copies(found: Mapping[str, Verified]) -> Iterator[str]:
    """What is wrong with entries beside those that were dated before them."""
    before: list[Content] = []
    for where in sorted(found, key=lambda where: (found[where].submission.date, where)):
        entry = found[where].content
        if entry.submission.salt:
            continue
        for other in before:
            try:
                check_names(entry.submission, other.submission)
                check_transcripts(entry, other)
            except Refused as error:
                yield f"{where}: {error}"
        before.append(entry)


def _score(verified: Verified) -> Mapping[str, float]:
    """What an entry is ranked by: reward, after reflection where there is one."""
    found: Mapping[str, float] = verified.metrics["reward_after"] or verified.metrics["reward"]
    return found


def _board(track: Track, entries: list[Row]) -> Board:
    known = references(track)
    return Board(
        track,
        sorted(entries, key=lambda row: (-row.score["mean"], row.verified.submission.name)),
        mean([r.random if r else None for r in known]),
        mean([r.ceiling if r else None for r in known]),
    )


def markdown(boards: Sequence[Board]) -> str:
    """`leaderboards/README.md`."""
    text = template("tables.md", HERE).render(
        boards=boards, number=number, interval=interval, told=told, code=_code
    )
    return text.rstrip() + "\n"


def _code(text: str) -> Markup:
    """Anybody's text as a cell's code span: nothing in it is Markdown or HTML."""
    return Markup(f"`{text.replace('`', chr(39)).replace('|', '¦')}`")


def told(entry: Row) -> str:
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

    Raises:
        WriteError: The disk refuses; each page that was there is whole still.
    """
    figures = [
        {"name": path.stem, "data": base64.b64encode(path.read_bytes()).decode()}
        for path in (curves / "curves_steps.svg", curves / "reflection.svg")
        if path.is_file()
    ]
    first = template("site.html", HERE).render(
        boards=boards, figures=figures, told=told, replayed=REPLAYED, reproduced=REPRODUCED
    )
    with new_folder(out / ENTRIES) as entries:
        for board in boards:
            for entry in board.entries:
                run, home = _as_run(entry.verified), "../../index.html"
                path = entries / Path(entry.page).relative_to(ENTRIES)
                path.parent.mkdir(exist_ok=True)
                page = render_report(run, entry.verified.episodes, home=home)
                path.write_text(page, encoding="utf-8")
    write_whole(out / "index.html", first.lstrip())


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
                "split": track.split,
                "split_hash": spec["split_hash"],
                "tasks": verified.metrics["tasks"],
            }
        },
        "counts": {"episodes": len(verified.episodes), "invalid": 0},
        "metrics": {track.env: verified.metrics},
    }
