"""Retrieval over HTTP: a client among bad servers, a server among bad clients."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("starlette", reason="starlette is not installed: extra serve")

import uvicorn
from answering import answering, connected, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from erl_envs.calls import FinalError
from erl_envs.retrieval.__main__ import main
from erl_envs.retrieval.base import Passage, RetrievalError, Retriever
from erl_envs.retrieval.http import Http, passage_of, passages_of
from erl_envs.retrieval.server import make_server, serve
from erl_envs.web import MAX_ANSWER, Response

PASSAGES = [
    Passage("Oslo", "Capital of Norway.\nOn a fjord."),
    Passage('"Heroes"', 'A song by "Bowie".'),
    Passage("√", "A surd: \ud800."),
    Passage("", ""),
]
GOOD = {"result": [[{"document": {"id": "7", "contents": '"Oslo"\nOn a fjord.'}, "score": 2.5}]]}
Answer = Callable[[BaseHTTPRequestHandler], object]


class Fixed(Retriever):
    """Gives its passages; fails for the query "fail", breaks for "break"."""

    name = "fixed"

    def search(self, query: str, top_k: int) -> list[Passage]:
        if query == "fail":
            raise RetrievalError("the index is gone")
        if query == "break":
            raise KeyError("a bug")
        return [Passage(query, ""), *PASSAGES][:top_k]


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    """The URL of a stub's root."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Stub:
    """A server that answers as told, one callable a request, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.bodies: list[Any] = []
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                with stub._lock:
                    stub.bodies.append(json.loads(raw))
                    answer = stub.answers.pop(0) if len(stub.answers) > 1 else stub.answers[0]
                answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hung up is part of the test."""

        self.server = Server(("127.0.0.1", 0), Handler)


def says(body: object, status: int = 200) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    return answer


def drips(piece: bytes) -> Answer:
    """Sends a piece again and again, each soon enough to keep a time-out between pieces at bay."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100):
            handler.wfile.write(piece)
            time.sleep(0.05)

    return answer


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    with running(stub.server):
        yield stub


@contextmanager
def client(url: str, **options: Any) -> Iterator[Http]:
    made = Http(url, **{"timeout": 5.0, "retries": 2, "backoff": 0.001, **options})
    try:
        yield made
    finally:
        made.close()


def ask(stub: Stub, *answers: Answer, top_k: int = 3, **options: Any) -> list[Passage]:
    stub.answers = list(answers)
    with client(f"http://127.0.0.1:{stub.server.server_port}/retrieve", **options) as made:
        return made.search("Where is it?", top_k)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The real server, with small limits."""
    made = make_server(Fixed(), max_body=1 << 20, max_queries=3, max_query=50, max_top_k=10)
    with answering(made) as root:
        yield root


@pytest.mark.parametrize("query", ["Where is it?", "√ \n\ud800", ""])
@pytest.mark.parametrize("top_k", [1, 3, 10])
def test_round_trip_equals_the_retriever(url: str, query: str, top_k: int) -> None:
    with client(f"{url}/retrieve") as made:
        assert made.search(query, top_k) == Fixed().search(query, top_k)


def test_many_threads_share_a_client(url: str) -> None:
    queries = [f"query {number}" for number in range(100)]
    with client(f"{url}/retrieve", concurrency=4) as made, ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda query: made.search(query, 2), queries))
    assert found == [Fixed().search(query, 2) for query in queries]


def test_concurrency_is_bounded(stub: Stub) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        says(GOOD)(handler)

    stub.answers = [answer]
    url = f"http://127.0.0.1:{stub.server.server_port}/retrieve"
    with client(url, concurrency=3) as made, ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda _: made.search("x", 1), range(24)))
    assert most <= 3


def test_asks_as_search_r1_does(stub: Stub) -> None:
    assert ask(stub, says(GOOD)) == [Passage("Oslo", "On a fjord.")]
    assert stub.bodies == [{"queries": ["Where is it?"], "topk": 3, "return_scores": True}]


def test_never_gives_more_than_asked(stub: Stub) -> None:
    many = {"result": [GOOD["result"][0] * 9]}
    assert len(ask(stub, says(many), top_k=2)) == 2
    assert ask(stub, says(many), top_k=0) == []
    assert len(stub.bodies) == 1


@pytest.mark.parametrize(
    ("document", "passage"),
    [
        ({"contents": '"A"\nb\nc'}, Passage("A", "b\nc")),
        ({"contents": '""Heroes""\nx'}, Passage('"Heroes"', "x")),
        ({"contents": "A\nb"}, Passage("A", "b")),
        ({"contents": '"A"\n'}, Passage("A", "")),
        ({"contents": '"\nb'}, Passage('"', "b")),
        ({"contents": "no line break"}, Passage("", "no line break")),
        ({"title": "A", "text": "b", "contents": "c"}, Passage("A", "b")),
        ({"title": None, "contents": '"A"\nb'}, Passage("A", "b")),
    ],
)
def test_both_forms_of_a_document(document: object, passage: Passage) -> None:
    assert passage_of(document) == passage


def test_what_passes_is_tried_again(stub: Stub) -> None:
    broken = says({"error": "busy"}, 503)

    def hangs_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    assert ask(stub, broken, hangs_up, says(GOOD)) == [Passage("Oslo", "On a fjord.")]
    assert len(stub.bodies) == 3


def test_retries_end(stub: Stub) -> None:
    with pytest.raises(RetrievalError, match=r"127.0.0.1:\d+/retrieve failed 3 times.*500: bo om"):
        ask(stub, says(b"bo\nom", 500))
    assert len(stub.bodies) == 3


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 520, 529])
def test_every_status_that_may_pass_is_tried_again(stub: Stub, status: int) -> None:
    assert ask(stub, says(b"", status), says(GOOD)) == [Passage("Oslo", "On a fjord.")]
    assert len(stub.bodies) == 2


@pytest.mark.parametrize("status", [204, 302, 400, 404, 413])
def test_refusals_are_final(stub: Stub, status: int) -> None:
    with pytest.raises(RetrievalError, match=f"refused: status {status}"):
        ask(stub, says(b"", status))
    assert len(stub.bodies) == 1


def test_times_out(stub: Stub) -> None:
    over = threading.Event()
    with pytest.raises(RetrievalError, match=r"failed 2 times.*no answer within 0.2 s"):
        ask(stub, lambda _: over.wait(10), timeout=0.2, retries=1)
    over.set()


@pytest.mark.parametrize("piece", [b"X: y\r\n", b"X", b"\r\n\r\n ", b"\r\n"])
def test_a_dripping_server_is_bounded(stub: Stub, piece: bytes) -> None:
    # in the headers, and in the body
    with pytest.raises(RetrievalError, match="failed 2 times"):
        ask(stub, drips(piece), timeout=0.3, retries=1)


@pytest.mark.parametrize(
    "raw",
    [b"", b"not JSON", b"\xff\xfe\x00", b'{"result": [[', b"[" * 100_000, b"9" * 5000],
)
def test_garbage(stub: Stub, raw: bytes) -> None:
    with pytest.raises(RetrievalError, match="no JSON"):
        ask(stub, says(raw))
    assert len(stub.bodies) == 1


def test_a_broken_protocol(stub: Stub) -> None:
    with pytest.raises(RetrievalError, match="failed 3 times"):
        ask(stub, lambda handler: handler.wfile.write(b"SSH-2.0\r\n\r\n"))


def test_a_broken_encoding(stub: Stub) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n")
        handler.wfile.write(b"Content-Length: 3\r\n\r\nabc")

    with pytest.raises(RetrievalError, match="DecodingError"):
        ask(stub, answer)


def test_a_huge_answer(stub: Stub) -> None:
    with pytest.raises(RetrievalError, match="more than 8 MiB"):
        ask(stub, says(b" " * (MAX_ANSWER + 1)))


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"result": None},
        {"result": []},
        {"result": [[], []]},
        {"result": [{}, {}]},
        {"result": [3]},
        {"result": [["x"]]},
        {"result": [[{"document": None}]]},
        {"result": [[{"document": {"title": "A"}}]]},
        {"result": [[{"document": {"contents": 3}}]]},
        {"result": [[{"score": 1}]]},
        {"result": [[GOOD["result"][0][0]["document"]]]},
    ],
)
def test_other_forms(stub: Stub, body: object) -> None:
    with pytest.raises(RetrievalError, match="answered in another form"):
        ask(stub, says(body))


_leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
_key = st.sampled_from(["result", "document", "contents", "title", "text", "score"])
_json = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_key, inner, max_size=3),
    max_leaves=12,
)
_nearly = st.lists(st.fixed_dictionaries({"document": _json}) | _json, max_size=3).map(
    lambda items: {"result": [items]}
)


def test_any_json_gives_passages_or_an_error() -> None:
    @settings(max_examples=300, deadline=None)
    @given(_json | _nearly)
    def check(value: object) -> None:
        try:
            found = passages_of(Response(200, json.dumps(value).encode()))
        except FinalError as error:
            assert "answered in another form" in str(error)
        else:
            assert all(isinstance(p, Passage) and isinstance(p.text, str) for p in found)

    check()


def test_a_dead_port() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/retrieve?key=secret"
        with client(url) as made, pytest.raises(RetrievalError, match="ConnectError") as caught:
            made.search("x", 1)
    assert "secret" not in str(caught.value) and "/retrieve" in str(caught.value)


def test_a_server_killed_midway(stub: Stub) -> None:
    def dies(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
        handler.wfile.flush()
        stub.server.socket.close()
        handler.connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(RetrievalError, match="failed 3 times"):
        ask(stub, dies)


def test_close_ends_what_runs_and_what_comes(stub: Stub) -> None:
    over, there = threading.Event(), threading.Event()

    def answer(_: BaseHTTPRequestHandler) -> None:
        there.set()
        over.wait(10)

    stub.answers = [answer]
    made = Http(f"http://127.0.0.1:{stub.server.server_port}/retrieve", timeout=30)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(made.search, "x", 1)
        assert there.wait(10)
        made.close()
        with pytest.raises(RetrievalError, match="closed"):
            future.result(10)
    over.set()
    made.close()
    with pytest.raises(RetrievalError, match="closed"):
        made.search("x", 1)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/retrieve",
        "ftp://a/retrieve",
        "http://:80/retrieve",
        "http://a:99999/retrieve",
        "http://user:secret@a:99999/retrieve",
        "http://a b/\x00",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        Http(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}, {"concurrency": 0}]
)
def test_bad_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Http("http://127.0.0.1:1/retrieve", **options)


# The server


def send(
    url: str, body: bytes = b"", method: str = "POST", path: str = "/retrieve", **headers: str
) -> tuple[int, Any]:
    """The status and the decoded body of the answer to a request."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        raw = response.read()
        assert response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(raw) if raw else None
    finally:
        connection.close()


def alive(url: str) -> bool:
    return send(url, method="GET", path="/health") == (200, {"status": "ok", "retriever": "fixed"})


def test_answers_queries_in_order(url: str) -> None:
    body = {"queries": ["a", "b"], "topk": 2, "return_scores": True}
    status, answer = send(url, json.dumps(body).encode())
    assert status == 200
    assert [[d["document"]["title"] for d in found] for found in answer["result"]] == [
        ["a", "Oslo"],
        ["b", "Oslo"],
    ]
    assert [d["score"] for d in answer["result"][0]] == [1.0, 0.5]
    assert answer["result"][0][1]["document"]["contents"] == f'"Oslo"\n{PASSAGES[0].text}'


def test_documents_alone_without_scores(url: str) -> None:
    status, answer = send(url, b'{"queries": ["a"], "topk": 1}')
    assert (status, answer["result"][0][0]["title"]) == (200, "a")


BAD = [
    b"",
    b"not JSON",
    b"\xff\xff",
    b"[" * 100_000,
    b"[]",
    b"null",
    b"{}",
    b'{"queries": ["a"]}',
    b'{"topk": 3}',
    b'{"queries": "a", "topk": 3}',
    b'{"queries": [], "topk": 3}',
    b'{"queries": [1], "topk": 3}',
    b'{"queries": ["a", "b", "c", "d"], "topk": 3}',
    b'{"queries": ["a", "%s"], "topk": 3}' % (51 * b"x"),
    *(
        b'{"queries": ["a"], "topk": %s}' % top_k
        for top_k in (b"0", b"-1", b"11", b"1" * 400, b"true", b'"3"', b"1.0", b"null", b"NaN")
    ),
    b'{"queries": ["a"], "topk": 1, "return_scores": 1}',
]


@pytest.mark.parametrize("body", BAD)
def test_bad_bodies(url: str, body: bytes) -> None:
    status, answer = send(url, body)
    assert status == 400 and set(answer) == {"error"}
    assert alive(url)


@pytest.mark.parametrize("size", [(1 << 20) + 1, 2 << 20, 17 << 20])
def test_big_bodies(url: str, size: int) -> None:
    if size < 16 << 20:
        assert send(url, b" " * size)[0] == 413
    else:  # refused by its length alone
        assert send(url, b"", Content_Length=str(size))[0] == 413
    assert alive(url)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/other", 404),
        ("POST", "/retrieve/", 404),
        ("GET", "/retrieve", 405),
        ("PUT", "/retrieve", 405),
        ("HEAD", "/retrieve", 405),
        ("POST", "/health", 405),
        ("BREW", "/retrieve", 405),
        ("GET", "/health?x=1", 200),
    ],
)
def test_paths_and_methods(url: str, method: str, path: str, status: int) -> None:
    assert send(url, b"{}" if method == "POST" else b"", method, path)[0] == status
    assert alive(url)


@pytest.mark.parametrize(
    "headers",
    [{"Content_Length": "-1"}, {"Content_Length": "x"}, {"Transfer_Encoding": "chunked"}],
)
def test_bad_lengths(url: str, headers: dict[str, str]) -> None:
    assert send(url, b"", **headers)[0] == 400
    assert alive(url)


def test_a_failing_and_a_broken_retriever(url: str) -> None:
    status, answer = send(url, b'{"queries": ["fail"], "topk": 1}')
    assert (status, answer) == (502, {"error": "the index is gone"})
    status, answer = send(url, b'{"queries": ["break"], "topk": 1}')
    assert (status, answer) == (500, {"error": "the retriever broke: KeyError"})
    with client(f"{url}/retrieve") as made, pytest.raises(RetrievalError, match="index is gone"):
        made.search("fail", 1)
    assert alive(url)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"POST /retrieve HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
        b"POST /retrieve HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"POST /retrieve HTTP/1.1\r\nContent-Length: 29\r\n\r\n" + b'{"queries": ["a"], "topk": 1}',
    ],
)
def test_clients_that_leave_or_speak_nonsense(url: str, raw: bytes) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(raw)
    assert alive(url)


def test_many_half_sent_heads_leave_room_and_hold_no_threads() -> None:
    with answering(make_server(Fixed(), connections=8)) as url, ExitStack() as stack:
        before = threading.active_count()
        for _ in range(60):
            half = stack.enter_context(connected(url))
            half.sendall(b"POST /retrieve HTTP/1.1\r\nHost: a\r\n")
        assert threading.active_count() == before
        assert alive(url)
        assert send(url, b'{"queries": ["a"], "topk": 1}')[0] == 200


def test_two_lengths_of_one_body_are_refused(url: str) -> None:
    body = b'{"queries": ["a"], "topk": 1}'
    head = b"POST /retrieve HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nContent-Length: 3\r\n\r\n"
    with connected(url) as plain:
        plain.sendall(head % len(body) + body)
        told = read_all(plain)
    assert told.startswith(b"HTTP/1.1 400 ")
    assert set(json.loads(told.partition(b"\r\n\r\n")[2])) == {"error"}


def test_long_queries_are_refused_before_any_is_searched() -> None:
    class Counting(Fixed):
        asked = 0

        def search(self, query: str, top_k: int) -> list[Passage]:
            self.asked += 1
            return super().search(query, top_k)

    counting = Counting()
    body = json.dumps({"queries": ["word " * 3_000] * 64, "topk": 1}).encode()
    assert len(body) < 1 << 20
    with answering(make_server(counting)) as url:
        status, answer = send(url, body)
        assert (status, answer) == (400, {"error": "a query has at most 1000 characters"})
        assert counting.asked == 0
        longest = json.dumps({"queries": ["x" * 1_000] * 64, "topk": 1}).encode()
        assert send(url, longest)[0] == 200 and counting.asked == 64


def test_an_answer_that_no_client_reads_is_not_sent() -> None:
    class Wordy(Fixed):
        def search(self, query: str, top_k: int) -> list[Passage]:
            return [Passage("", "x" * MAX_ANSWER)]

    with answering(make_server(Wordy())) as url:
        status, answer = send(url, b'{"queries": ["a"], "topk": 1}')
    assert status == 400 and answer["error"].startswith("the answer has more than 8 MiB")


def test_serve_answers_until_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    serve(Fixed(), port=0)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("fixed answers at http://127.0.0.1:") and last == "stopped"


def test_what_a_server_needs_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("erl_envs.asgi")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "erl_envs.retrieval.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "file:/nowhere.json"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "error: retrieval servers need the package 'uvicorn': pip install 'erl-envs[serve]'\n"
    )
