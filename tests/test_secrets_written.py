"""What servers repeat and what URLs carry is in nothing that a run writes, and runs replay."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from loopback import Reply, Request, says, serving
from tiny_models import untrained_nano

from erl_envs import policies, secrets
from erl_envs.eval.run import Config, Here, evaluate
from erl_envs.eval.runfolder import RunFolder
from erl_envs.policies import Policy
from erl_envs.policies.openai import OpenAI
from erl_envs.records import Episode, read_episodes
from erl_envs.secrets import known
from erl_trainer import launch
from erl_trainer.__main__ import main as trainer
from erl_trainer.curves.grid import grid_of
from erl_trainer.metrics import Log

KEY = "sk-no1+may/see-this"
PASSWORD, TOKEN = "pass99word", "tok-e9-12345"
SECRETS = [KEY, PASSWORD, TOKEN]


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has asked no server yet."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(known, "_keys", ())
    monkeypatch.setattr(known, "_urls", ())
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def written(folder: Path) -> str:
    """All that is in a folder's text files."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.json*"))]
    return "\n".join(
        [*texts, *(path.read_text(encoding="utf-8") for path in folder.rglob("*.html"))]
    )


def assert_no_secret(text: str) -> None:
    for secret in SECRETS:
        for behind in ("", "a", "me", "abc"):
            # the inner characters are the same whatever comes before or after
            assert base64.b64encode((behind + secret).encode()).decode()[6:18] not in text
        assert secret not in text and quote(secret, safe="") not in text
        assert secret not in text.replace("\\", "")


@contextmanager
def raw_server(answer: bytes) -> Iterator[str]:
    """A server that sends these bytes to whoever asks, HTTP or not."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def serve() -> None:
            while True:
                try:
                    taken, _ = listening.accept()
                except OSError:  # it was closed
                    return
                with taken:
                    taken.settimeout(10)
                    taken.recv(1 << 16)
                    taken.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def play(
    out: Path, policy: Policy, env: str = "frozenlake", limit: int = 2, **options: Any
) -> dict[str, Any]:
    """Evaluate on a few tasks; the content of run.json."""
    config = Config([env], "small-test", {env: options}, limit=limit)
    here = Here(config, policy, None)
    try:
        return evaluate(config, here, RunFolder(out))
    finally:
        here.close()


def replayed(out: Path, again: Path, env: str = "frozenlake") -> None:
    """Assert that a run's messages, played again, give the run."""
    play(again, policies.load(f"replay:{out}"), env)

    def told(folder: Path) -> list[Any]:
        def timeless(episode: Episode) -> Any:
            return [(a.messages, a.reward, a.feedback, a.outcome) for a in episode.attempts]

        episodes = read_episodes(folder / "episodes.jsonl")
        return sorted((episode.key, timeless(episode)) for episode in episodes)

    assert told(out) == told(again)


# Servers that repeat the key

REFUSALS = {
    "a body of 401": Reply({"error": f"Incorrect API key provided: {KEY}"}, 401),
    "an escaped body": Reply(json.dumps({"e": KEY}).replace("/", r"\/").encode(), 400),
    "its header in base64": Reply(
        {"sent": base64.b64encode(f"Bearer {KEY}".encode()).decode()}, 403
    ),
    "at the end of what is quoted": Reply(b"x" * 280 + KEY.encode(), 400),
    "a redirect": Reply(
        f"moved to http://127.0.0.1:1/v1?token={TOKEN}&k={quote(KEY, safe='')}".encode(),
        307,
        Location=f"http://127.0.0.1:1/v1?token={TOKEN}&key={KEY}",
    ),
    "no JSON": Reply(f"<html>{KEY}".encode()),
    "no completion": Reply({"echo": {"Authorization": f"Bearer {KEY}"}}),
    "a count of tokens": says("text", usage={"prompt_tokens": KEY}),
}


@pytest.mark.parametrize("reply", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_that_repeats_the_key(tmp_path: Path, reply: Reply) -> None:
    with serving(lambda _: reply) as url:
        run = play(tmp_path / "run", OpenAI("m", f"{url}/v1", retries=0))
    assert run["counts"]["invalid"] == 2
    assert_no_secret(written(tmp_path))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nAuthorization Bearer %s\r\n\r\n",
        b"HTTP/9.%s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
    ],
    ids=["a header's line", "a status line", "a chunk's length"],
)
def test_an_error_of_httpx_that_quotes_the_key(tmp_path: Path, answer: bytes) -> None:
    with raw_server(answer % KEY.encode()) as url:
        run = play(tmp_path / "run", OpenAI("m", f"{url}/v1", retries=0))
    assert run["counts"]["invalid"] == 2
    assert_no_secret(written(tmp_path))


def calls(name: str, arguments: str) -> Reply:
    """A message of one tool call."""
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return Reply({"choices": [{"message": message, "finish_reason": "tool_calls"}]})


ANSWERS: dict[str, tuple[Reply, str, bool]] = {
    "a message": (says(f"My key is {KEY}. ```Right```"), "frozenlake", False),
    "a search": (says(f"<search>{KEY}</search>"), "hotpotqa", False),
    "a search, in base64": (
        says(f"<search>{base64.b64encode(KEY.encode()).decode()}</search>"),
        "hotpotqa",
        False,
    ),
    "why it stopped": (says("```Right```", finish=KEY), "frozenlake", False),
    "a tool's name": (calls(KEY, "{}"), "hotpotqa", True),
    "a tool's arguments": (
        calls("local_search", json.dumps({"query": f"a {KEY}"})),
        "hotpotqa",
        True,
    ),
}


@pytest.mark.parametrize(("reply", "env", "tools"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_repeats_the_key_is_played_and_recorded_without_it(
    tmp_path: Path, reply: Reply, env: str, tools: bool
) -> None:
    with serving(lambda _: reply) as url:
        run = play(tmp_path / "run", OpenAI("m", f"{url}/v1", retries=0, tools=tools), env)
    assert run["counts"]["invalid"] == 0
    assert_no_secret(written(tmp_path))
    assert "[OPENAI_API_KEY]" in (tmp_path / "run" / "episodes.jsonl").read_text(encoding="utf-8")
    replayed(tmp_path / "run", tmp_path / "again", env)


def test_what_a_model_thought_and_an_extra_body_hold_no_secret(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": "```Right```", "reasoning": f"The key is {KEY}."}
    reply = Reply({"choices": [{"message": message, "finish_reason": "stop"}]})
    with serving(lambda _: reply) as url:
        policy = OpenAI("m", f"{url}/v1", retries=0, extra_body={"user": KEY})
        play(tmp_path / "run", policy)
    assert KEY not in policy.revision
    assert "The key is [OPENAI_API_KEY]." in written(tmp_path)
    assert_no_secret(written(tmp_path))


def test_a_key_that_is_gone_from_the_environment_is_a_secret_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda _: says(f"{KEY} ```Right```")) as url:
        policy = OpenAI("m", f"{url}/v1", retries=0)
        monkeypatch.delenv("OPENAI_API_KEY")
        play(tmp_path / "run", policy)
    assert_no_secret(written(tmp_path))


# Base URLs that carry secrets


@pytest.mark.parametrize(
    ("user", "query", "header"),
    [
        (f"me:{PASSWORD}@", "", "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()),
        (f"{TOKEN}@", "", "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode()),
        ("", f"?api_key={TOKEN}", f"Bearer {KEY}"),
    ],
)
def test_a_base_url_works_and_is_in_no_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], user: str, query: str, header: str
) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        if len(asked) % 2:
            return says(f"{request.headers['Authorization']} {request.path} ```Right```")
        return Reply(f"no {request.headers['Authorization']} at {request.path}".encode(), 401)

    with serving(answer) as url:
        base = url.replace("//", f"//{user}") + f"/v1/{query}"
        play(tmp_path / "run", OpenAI("m", base, retries=0))
    assert asked[0].path == f"/v1/chat/completions{query}"
    assert all(request.headers["Authorization"] == header for request in asked)
    assert_no_secret(written(tmp_path) + "".join(capsys.readouterr()))


# Retrievers


def retrieve(request: Request) -> Reply:
    """A server that tells in its passages what it was sent."""
    text = f"{request.path} {request.headers.get('Authorization')} {TOKEN} {request.body['topk']}"
    return Reply({"result": [[{"document": {"title": TOKEN, "text": text}}]]})


def test_a_retriever_url_is_in_no_record_and_its_run_resumes(tmp_path: Path) -> None:
    out, asked = tmp_path / "run", []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return retrieve(request)

    def searching(url: str, resume: bool = False, **more: Any) -> dict[str, Any]:
        options = {"hotpotqa": {"retriever": "http", "retriever_url": url}}
        config = Config(["hotpotqa"], "small-test", options, limit=3)
        policy = policies.load("oracle")
        return evaluate(config, Here(config, policy, None), RunFolder(out), resume)

    with serving(answer) as root:
        host = root.removeprefix("http://")
        first = f"http://me:{PASSWORD}@{host}/retrieve?token={TOKEN}&corpus=7"
        run = searching(first)
        assert run["envs"]["hotpotqa"]["options"]["retriever_url"] == (
            f"http://[secret]@{host}/retrieve?token=[secret]&corpus=7"
        )
        assert asked[0].path == f"/retrieve?token={TOKEN}&corpus=7"
        assert asked[0].headers["Authorization"].startswith("Basic ")
        assert_no_secret(written(out))
        whole = (out / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
        (out / "episodes.jsonl").write_text(whole[0] + "\n", encoding="utf-8")
        # the secrets may be others by then; the rest may not
        again = searching(first.replace(PASSWORD, "new99word").replace(TOKEN, "tok-e9-67890"), True)
        assert again["counts"] == run["counts"]
        assert "new99word" not in written(out) and "67890" not in written(out)
        with pytest.raises(ValueError, match="another configuration") as refused:
            searching(first.replace("corpus=7", "corpus=8"), True)
    assert_no_secret(str(refused.value))


def test_a_run_of_before_whose_record_has_its_url_whole_resumes(tmp_path: Path) -> None:
    options = {"retriever_url": f"http://me:{PASSWORD}@127.0.0.1:9/retrieve"}
    play(tmp_path / "run", policies.load("random"), "hotpotqa", 1, **options)
    path = tmp_path / "run" / "run.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace("[secret]", f"me:{PASSWORD}"), encoding="utf-8"
    )
    config = Config(["hotpotqa"], "small-test", {"hotpotqa": options}, limit=1)
    evaluate(config, Here(config, policies.load("random"), None), RunFolder(path.parent), True)
    assert_no_secret(written(tmp_path))


def test_a_retriever_that_refuses_tells_no_secret(tmp_path: Path) -> None:
    def refuse(request: Request) -> Reply:
        return Reply(f"{request.headers['Authorization']} {request.path}".encode(), 403)

    with serving(refuse) as url:
        where = f"{url.replace('//', f'//me:{PASSWORD}@')}/retrieve?token={TOKEN}"
        run = play(
            *(tmp_path / "run", policies.load("oracle"), "hotpotqa"),
            retriever="http",
            retriever_url=where,
        )
    assert run["counts"]["invalid"] == 2 and "refused: status 403" in written(tmp_path)
    assert_no_secret(written(tmp_path))


# The trainer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny untrained model with nano's tokenizer."""
    return untrained_nano(tmp_path_factory.mktemp("model"))


def test_a_training_run_writes_no_secret_and_asks_for_its_url_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked: list[Any] = []
    fake = SimpleNamespace(init=tracked.append, log=lambda *_, **__: None, finish=lambda: None)
    fake.init = lambda **words: tracked.append(words["config"])
    monkeypatch.setitem(sys.modules, "trackio", fake)
    numbers = {"steps": 1, "tasks_per_step": 2, "group_size": 2, "eval_every": 0, "max_tokens": 4}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in numbers.items()]
    out = tmp_path / "run"

    def refuse(request: Request) -> Reply:
        return Reply(f"{request.headers['Authorization']} {request.path} {KEY}".encode(), 401)

    def train(*more: str) -> tuple[int, str]:
        code = trainer(["train", "--out", str(out), *more])
        return code, capsys.readouterr().err

    with serving(refuse) as server:
        url = f"{server.replace('//', f'//me:{PASSWORD}@')}/v1?token={TOKEN}"
        given = ["--reflector", "openai:m", "--reflector-url", url, "--loggers", "trackio"]
        code, told = train("--model", model, *words, *given)
        assert code == 1 and "stopped at step" in told and "status 401" in told
        assert_no_secret(told + written(out) + json.dumps(tracked))
        held = json.loads((out / "config.json").read_text(encoding="utf-8"))
        assert held["reflector_url"].startswith("http://[secret]@127.0.0.1")
        assert tracked[0]["reflector_url"] == held["reflector_url"]
        code, told = train("--resume")
        assert code == 2 and "without its secrets: give it in full again" in told
        code, told = train("--resume", "--reflector-url", url)
        assert code == 1 and "status 401" in told
    assert_no_secret(told + written(out))


def test_a_training_runs_folder_is_compared_without_secrets(tmp_path: Path) -> None:
    def config(token: str, host: str = "host") -> dict[str, Any]:
        url = f"http://{host}/retrieve?token={token}"
        return {"env_options": {"retriever_url": url}, "loggers": []}

    (tmp_path / "config.json").write_text(
        json.dumps(config(TOKEN)), encoding="utf-8"
    )  # as it once was written
    launch.check_folder(secrets.redact_json(config("other-token-1")), tmp_path, resume=True)
    with pytest.raises(ValueError, match="another env_options") as refused:
        launch.check_folder(secrets.redact_json(config(TOKEN, "other")), tmp_path, resume=True)
    assert_no_secret(str(refused.value))


def test_samples_are_written_without_secrets(tmp_path: Path) -> None:
    log = Log(tmp_path / "samples.jsonl", 0)
    log.write({"step": 1, "text": f"{KEY}\n"})
    log.close()
    assert (
        json.loads((tmp_path / "samples.jsonl").read_text(encoding="utf-8"))["text"]
        == "[OPENAI_API_KEY]\n"
    )


@pytest.mark.parametrize("url", [f"http://me:{PASSWORD}@h/v1", f"http://h/v1?key={TOKEN}"])
def test_a_grid_whose_url_carries_a_secret_is_refused(url: str) -> None:
    grid = {
        "base": {"server_url": url},
        "environments": {"Lake": {"env": "frozenlake"}},
        "methods": {"ERL": {"algo": "erl"}},
        "seeds": [0],
    }
    with pytest.raises(ValueError, match="no URL may carry one or a password") as refused:
        grid_of(grid)
    assert_no_secret(str(refused.value))
