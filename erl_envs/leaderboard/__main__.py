"""`python -m erl_envs.leaderboard`: tracks, submit, verify, proposed, renew, build."""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from erl_envs.arguments import FAILED, OK, Parser, complain, one_line, run_command, tell
from erl_envs.eval.table import interval
from erl_envs.files import write_whole
from erl_envs.leaderboard import leaks
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.build import markdown, read_boards, write_site
from erl_envs.leaderboard.copies import Shelf
from erl_envs.leaderboard.proposed import HOME as ENTRIES
from erl_envs.leaderboard.proposed import extract
from erl_envs.leaderboard.renew import renew
from erl_envs.leaderboard.submit import Entry, read_run, submit
from erl_envs.leaderboard.tracks import TRACKS, find
from erl_envs.leaderboard.verify import Verified, check_place, verify
from erl_envs.locks import hold
from erl_envs.output import check_printed
from erl_envs.secrets import likely

HOME = Path("leaderboards")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="python -m erl_envs.leaderboard", description="Scores that follow from transcripts."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    tracks = commands.add_parser("tracks", help="what can be entered")
    tracks.add_argument("track", nargs="?", help="show this one's whole specification")
    tracks.add_argument("--all", action="store_true", help="not only the default ones")

    pack = commands.add_parser("submit", help="pack a run folder of erl_envs.eval")
    pack.add_argument("run", type=Path)
    pack.add_argument("--env", help="one of the run's environments; by default all")
    pack.add_argument("--name", required=True, help="a folder's: small letters, digits, ._-")
    pack.add_argument("--model", required=True, help="who played")
    pack.add_argument("--revision", required=True, help="which version of it, exactly")
    pack.add_argument("--reflector", help="who reflected, if another")
    pack.add_argument("--url", default="", help="where to learn more")
    pack.add_argument("--license", default="", help="of the weights")
    pack.add_argument("--notes", default="", help="what a reader should know")
    pack.add_argument(
        "--trained-on-family",
        choices=("yes", "no", "unknown"),
        default="unknown",
        help="was it trained on tasks of this environment?",
    )
    pack.add_argument("--tools", action="store_true", help="it was offered the actions as tools")
    pack.add_argument("--outside-help", default="none", help="a solver, a person, another model")
    pack.add_argument("--out", type=Path, default=HOME / "submissions")

    check = commands.add_parser("verify", help="replay submissions")
    check.add_argument("folders", nargs="+", type=Path)
    check.add_argument("--salted", action="store_true", help="also on tasks that were salted")

    proposed = commands.add_parser(
        "proposed", help="replay the submissions that a commit adds, and nothing else"
    )
    proposed.add_argument("repository", type=Path, help="has both commits; nothing is checked out")
    proposed.add_argument("base", help="id of the commit of before")
    proposed.add_argument("head", help="id of the commit that adds")

    carry = commands.add_parser("renew", help="carry entries to their tracks' present versions")
    carry.add_argument("folders", nargs="+", type=Path)

    build = commands.add_parser("build", help="replay all, write the pages")
    build.add_argument("--home", type=Path, default=HOME, help="has submissions/, gets README.md")
    build.add_argument("--site", type=Path, default=HOME / "site", help="folder of the site")
    build.add_argument("--curves", type=Path, default=Path("benchmarks/curves"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        return _COMMANDS[args.command](args)
    except Refused as error:
        tell(f"refused: {likely.hide(str(error))}")
        return FAILED
    except (ValueError, OSError) as error:
        return complain(error)


def _tracks(args: argparse.Namespace) -> int:
    if args.track:
        print(json.dumps(find(args.track).specification(), indent=2))
    else:
        for track in TRACKS.values():
            if args.all or track.default:
                print(track.id)
    check_printed()
    return OK


def _submit(args: argparse.Namespace) -> int:
    entry = Entry(
        name=args.name,
        model=args.model,
        revision=args.revision,
        date=datetime.now(UTC).date().isoformat(),
        url=args.url,
        license=args.license,
        notes=args.notes,
        reflector=args.reflector,
        trained_on_family=args.trained_on_family,
        tools=args.tools,
        outside_help=args.outside_help,
    )
    run = read_run(args.run)
    for env in [args.env] if args.env else run["envs"]:
        folder, verified = submit(args.run, env, entry, args.out)
        print(_row(verified))
        print(f"packed: {folder}")
    return OK


def _verify(args: argparse.Namespace) -> int:
    beside = functools.cache(Shelf)
    folders = {str(folder): folder for folder in args.folders}
    return _replay(folders, args.salted, lambda folder: beside(folder.resolve().parents[1]))


def _proposed(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as out:
        today = datetime.now(UTC).date()
        found = extract(args.repository, args.base, args.head, Path(out), today)
        shelf = Shelf(args.repository / ENTRIES)
        return _replay(found, False, lambda _: shelf)


def _replay(folders: Mapping[str, Path], salted: bool, shelf: Callable[[Path], Shelf]) -> int:
    """Print a line for each folder, under its name; the exit code.

    Args:
        folders: To replay, by name.
        salted: Whether their tasks may be salted.
        shelf: The entries that a folder's may not repeat; it joins them.
    """
    code = OK
    for name, folder in folders.items():
        try:
            check_place(folder, salted)
            verified = verify(folder)
            about = verified.submission.to_json()
            leaks.check(about, (episode.to_json() for episode in verified.episodes))
            shelf(folder).check(verified.content)
            shelf(folder).put(verified.content)
            print(_row(verified))
        except (Refused, OSError) as error:  # one that cannot be read hides no other
            tell(f"{one_line(name, 200)} is refused: {one_line(likely.hide(str(error)))}")
            code = FAILED
    return code


def _row(verified: Verified) -> str:
    metrics, name = verified.metrics, verified.submission.name
    after = metrics["reward_after"]
    lacks = f", {verified.missing} episodes missing (failed)" if verified.missing else ""
    return (
        f"{verified.track.id}: {name} earns {interval(metrics['reward'])}"
        + (f", after reflection {interval(after)}" if after else "")
        + f" in {len(verified.episodes)} episodes, replayed{lacks}"
    )


def _renew(args: argparse.Namespace) -> int:
    code = OK
    for folder in args.folders:
        try:
            print(_row(renew(folder)))
        except (Refused, OSError) as error:
            tell(f"{one_line(folder, 200)} is not renewed: {one_line(error)}")
            code = FAILED
    return code


def _build(args: argparse.Namespace) -> int:
    submissions = args.home / "submissions"
    if not submissions.is_dir():
        raise ValueError(f"there is no {submissions}")
    with hold(args.home):
        boards = read_boards(args.home)
        write_whole(args.home / "README.md", markdown(boards))
        write_site(boards, args.site, args.curves)
    entries = sum(len(board.entries) for board in boards)
    print(f"{entries} entries on {len(boards)} tracks, all replayed")
    print(f"written: {args.home / 'README.md'}, {args.site / 'index.html'}")
    return OK


_COMMANDS = {
    "tracks": _tracks,
    "submit": _submit,
    "verify": _verify,
    "proposed": _proposed,
    "renew": _renew,
    "build": _build,
}


if __name__ == "__main__":
    run_command(main)
