"""`python -m erl_envs.serve ENV --port 8000`: an environment behind OpenEnv's protocol."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from erl_envs.arguments import OK, Parser, complain
from erl_envs.options import read_pair

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI


def make_server(app: FastAPI, max_sessions: int, max_body: int) -> uvicorn.Server:
    """A server of an application; `run(sockets=[…])` answers.

    Args:
        app: What answers.
        max_sessions: Most sessions at a time; connections beyond them are few.
        max_body: Most bytes of a socket's message.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        ws_max_size=max_body,
        ws_max_queue=1,  # a session waits for each answer
        limit_concurrency=2 * max_sessions + 64,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(prog="python -m erl_envs.serve", description=__doc__)
    parser.add_argument("env", help="environment id")
    parser.add_argument("--host", default="127.0.0.1", help="others let the network in, unasked")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the environment"
    )
    parser.add_argument("--max-sessions", type=int, default=64, help="at a time")
    parser.add_argument("--max-body", type=int, default=1 << 20, help="bytes of a request")
    parser.add_argument("--idle", type=float, default=600.0, help="seconds a session may be silent")
    args = parser.parse_args(argv)
    try:
        if not (args.max_sessions >= 1 and args.max_body >= 1 and 0 < args.idle < float("inf")):
            raise ValueError("--max-sessions, --max-body and --idle must be above 0")
        from erl_envs.adapters import openenv

        options = dict(read_pair(pair) for pair in args.option)
        app = openenv.app(args.env, args.max_sessions, args.max_body, args.idle, **options)
        # OverflowError: a port that no machine has
        with socket.create_server((args.host, args.port)) as listening:
            host, port = listening.getsockname()[:2]
            print(f"{args.env} answers at http://{host}:{port}", flush=True)  # scripts wait for it
            make_server(app, args.max_sessions, args.max_body).run(sockets=[listening])
    except (ValueError, ImportError, OSError, OverflowError) as error:
        return complain(error)
    except KeyboardInterrupt:
        pass  # uvicorn has ended by then; where interrupts are ignored it says nothing of them
    print("stopped")
    return OK


if __name__ == "__main__":
    raise SystemExit(main())
