"""`python -m erl_envs.serve ENV --port 8000`: an environment behind OpenEnv's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from erl_envs.arguments import OK, Parser, complain, run_command
from erl_envs.options import read_pair
from erl_envs.task_files import TaskFile

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI


def make_server(app: FastAPI, max_sessions: int, max_body: int, idle: float) -> uvicorn.Server:
    """A server of an application; `run(sockets=[…])` answers.

    Args:
        app: What answers.
        max_sessions: Most sessions at a time.
        max_body: Most bytes of a socket's message.
        idle: Seconds that a request may take, if it is less than the usual.
    """
    from erl_envs.asgi import server

    seconds = min(idle, server.REQUEST_SECONDS)
    # OpenEnv closes the sockets beyond its sessions; two a session, for one may just be closing
    return server.make_server(app, 2 * max_sessions + 64, seconds, max_body)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(prog="python -m erl_envs.serve", description=__doc__)
    parser.add_argument("env", help="environment id")
    parser.add_argument("--host", default="127.0.0.1", help="others let the network in, unasked")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the environment"
    )
    parser.add_argument("--split", help="file:PATH, served as `file` beside the environment's own")
    parser.add_argument("--max-sessions", type=int, default=64, help="at a time")
    parser.add_argument("--max-body", type=int, default=1 << 20, help="bytes of a request")
    parser.add_argument("--idle", type=float, default=600.0, help="seconds a session may be silent")
    args = parser.parse_args(argv)
    try:
        if not (args.max_sessions >= 1 and args.max_body >= 1 and 0 < args.idle < float("inf")):
            raise ValueError("--max-sessions, --max-body and --idle must be above 0")
        from erl_envs.adapters import openenv
        from erl_envs.asgi.server import run

        options = dict(read_pair(pair) for pair in args.option)
        if args.split is not None and TaskFile.of(args.split) is None:
            raise ValueError(f"--split takes file:PATH, not {args.split!r}; the others are served")
        limits = (args.max_sessions, args.max_body, args.idle)
        app = openenv.app(args.env, options, *limits, file=args.split)
        run(make_server(app, *limits), args.env, args.host, args.port)
    # OverflowError: a port that no machine has
    except (ValueError, ImportError, OSError, OverflowError) as error:
        return complain(error)
    except KeyboardInterrupt:  # while its data was loaded
        print("stopped")
    return OK


if __name__ == "__main__":
    run_command(main)
