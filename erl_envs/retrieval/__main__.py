"""`python -m erl_envs.retrieval serve SOURCE`: a retriever of any corpus behind HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from erl_envs import retrieval
from erl_envs.arguments import OK, Parser, complain, run_command
from erl_envs.extras import missing_extra
from erl_envs.hotpotqa.data import open_source
from erl_envs.retrieval.base import Corpus, RetrievalError, Retriever


def read_corpus(source: str, part: str | None) -> Corpus:
    """The corpus of `passages:PATH` (JSON lines with title and text) or of a question source.

    Raises:
        ValueError: No such source or part, or a malformed file; the message names the line.
    """
    kind, _, path = source.partition(":")
    if kind == "passages":
        return Corpus.of_json_lines(Path(path))
    questions = open_source(source)
    chosen = part or questions.parts()[0]
    if chosen not in questions.parts():
        raise ValueError(f"{source} has no part {chosen!r}; valid: {', '.join(questions.parts())}")
    return questions.corpus(chosen)


def _server() -> Callable[[Retriever, str, int], None]:
    try:
        from erl_envs.retrieval.server import serve
    except ImportError as error:
        raise missing_extra("retrieval servers", "serve", error) from error
    return serve


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(prog="python -m erl_envs.retrieval", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="answer POST /retrieve")
    command.add_argument("source", help="world, file:PATH, hub:CONFIG[:PATH] or passages:PATH")
    command.add_argument("--part", help="of a source that has several: train, test, …")
    command.add_argument("--retriever", default="bm25", choices=("bm25", "rank_bm25", "dense"))
    command.add_argument("--model", help="encoder of a dense retriever")
    command.add_argument(
        "--prefixes",
        nargs=2,
        default=("", ""),
        metavar=("QUERY", "PASSAGE"),
        help="what a dense retriever puts before them",
    )
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000)
    args = parser.parse_args(argv)
    try:
        serve = _server()  # before a corpus is read
        corpus = read_corpus(args.source, args.part)
        if args.retriever == "dense" and not args.model:
            raise ValueError("--retriever dense needs --model, the encoder's folder or hub id")
        retriever = retrieval.load(
            args.retriever, corpus, model=args.model, prefixes=tuple(args.prefixes)
        )
        serve(retriever, args.host, args.port)
    # OverflowError: a port that no machine has
    except (ValueError, RetrievalError, OSError, OverflowError) as error:
        return complain(error)
    except KeyboardInterrupt:  # while the corpus was read
        print("stopped")
    return OK


if __name__ == "__main__":
    run_command(main)
