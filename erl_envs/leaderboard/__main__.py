"""`python -m erl_envs.leaderboard`: tracks, submit, verify, build."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from erl_envs.arguments import FAILED, OK, Parser, complain, tell
from erl_envs.eval.table import interval
from erl_envs.leaderboard import leaks
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.build import markdown, read_boards, write_site
from erl_envs.leaderboard.submit import Entry, read_run, submit
from erl_envs.leaderboard.tracks import TRACKS, find
from erl_envs.leaderboard.verify import Verified, check_place, verify
from erl_envs.secrets import likely, redacted_errors

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

    build = commands.add_parser("build", help="replay all, write the pages")
    build.add_argument("--home", type=Path, default=HOME, help="has submissions/, gets README.md")
    build.add_argument("--site", type=Path, default=HOME / "site", help="folder of the site")
    build.add_argument("--curves", type=Path, default=Path("benchmarks/curves"))
    return parser


@redacted_errors()
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
        return OK
    for track in TRACKS.values():
        if args.all or track.default:
            print(track.id)
    return OK


def _submit(args: argparse.Namespace) -> int:
    entry = Entry(
        name=args.name,
        model=args.model,
        revision=args.revision,
        date=date.today().isoformat(),
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
    code = OK
    for folder in args.folders:
        try:
            verified = verify(folder)
            check_place(folder, verified)
            _check_leaks(verified)
            if verified.submission.salt and not args.salted:
                raise Refused("its tasks are salted, which is for maintainers (--salted)")
            print(_row(verified))
        except (Refused, OSError) as error:  # one that cannot be read hides no other
            tell(f"{folder} is refused: {likely.hide(str(error))}")
            code = FAILED
    return code


def _check_leaks(verified: Verified) -> None:
    try:
        about = verified.submission.to_json()
        leaks.check(about, (episode.to_json() for episode in verified.episodes))
    except ValueError as error:
        raise Refused(str(error)) from error


def _row(verified: Verified) -> str:
    metrics, name = verified.metrics, verified.submission.name
    after = metrics["reward_after"]
    lacks = f", {verified.missing} episodes missing (failed)" if verified.missing else ""
    return (
        f"{verified.track.id}: {name} earns {interval(metrics['reward'])}"
        + (f", after reflection {interval(after)}" if after else "")
        + f" in {len(verified.episodes)} episodes, replayed{lacks}"
    )


def _build(args: argparse.Namespace) -> int:
    submissions = args.home / "submissions"
    if not submissions.is_dir():
        raise ValueError(f"there is no {submissions}")
    boards = read_boards(args.home)
    (args.home / "README.md").write_text(markdown(boards), encoding="utf-8")
    write_site(boards, args.site, args.curves)
    entries = sum(len(board.entries) for board in boards)
    print(f"{entries} entries on {len(boards)} tracks, all replayed")
    print(f"written: {args.home / 'README.md'}, {args.site / 'index.html'}")
    return OK


_COMMANDS = {"tracks": _tracks, "submit": _submit, "verify": _verify, "build": _build}


if __name__ == "__main__":
    raise SystemExit(main())
