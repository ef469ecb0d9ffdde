"""Secrets that a process knows: found however they are written, kept out of all that is written."""

from __future__ import annotations

import base64
import html
import json
import os
import string
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from erl_envs import arguments, secrets
from erl_envs.arguments import complain
from erl_envs.core import EnvError
from erl_envs.files import write_whole
from erl_envs.policies.base import PolicyError
from erl_envs.retrieval.base import RetrievalError
from erl_envs.secrets import known
from erl_envs.secrets.urls import redact_urls
from erl_envs.web import check_server, join

KEY = "sk-No1+may/see\\this\"key'&é𝄞="


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows of no secret but a key in its environment."""
    for name in list(os.environ):
        if name.upper().endswith((*known._KEYS, *known._URLS)):
            monkeypatch.delenv(name)
    monkeypatch.setattr(known, "_keys", ())
    monkeypatch.setattr(known, "_urls", ())
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# Every way in which a secret is written

WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON, not ASCII": lambda key: json.dumps(key, ensure_ascii=False),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "JSON with slashes escaped": lambda key: json.dumps(key).replace("/", r"\/"),
    "JSON, its signs by number": lambda key: json.dumps(key).replace("+", r"\u002B"),
    "HTML": html.escape,
    "HTML by number": lambda key: key.replace("&", "&#38;").replace("'", "&#x27;"),
    "HTML twice": lambda key: html.escape(html.escape(key)),
    "a URL's": lambda key: quote(key, safe=""),
    "a form's": quote_plus,
    "a URL's in small letters": lambda key: quote(key, safe="").lower().replace("sk-no", "sk-No"),
    "a URL's twice": lambda key: quote(quote(key, safe=""), safe=""),
    "Python": repr,
    "Python, ASCII": ascii,
    "Python's bytes": lambda key: repr(key.encode()),
    "an array of bytes": lambda key: repr(bytearray(b"Authorization: " + key.encode())),
    "base64": base64_of,
    "base64 behind a name": lambda key: base64_of(f"u:{key}"),
    "base64 behind a longer name": lambda key: base64_of(f"me:{key}"),
    "base64 within more": lambda key: base64_of(f"user:{key} and more"),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(f"x{key}".encode()).decode(),
    "base64 in a form": lambda key: quote_plus(base64_of(key)),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_secret_is_found_however_it_is_written(write: Callable[[str], str]) -> None:
    told = secrets.redact(f"before {write(KEY)} after")
    assert told.startswith("before ") and told.endswith(" after") and "[OPENAI_API_KEY]" in told
    for part in ("may", "this", base64_of(KEY)[8:20], base64_of(f"u:{KEY}")[8:20]):
        assert part not in told
    assert secrets.redact(told) == told


def test_several_secrets_and_one_within_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abcd1234")
    monkeypatch.setenv("B_SECRET", "abcd1234efgh")
    told = secrets.redact("abcd1234efgh abcd1234 abcd123")
    assert told == "[B_SECRET] [A_TOKEN] abcd123"


def test_a_line_of_a_longer_secret_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["-----BEGIN X-----", *(f"{n}abcdefgh{n}" * 6 for n in range(4)), "-----END X-----"]
    monkeypatch.setenv("DEPLOY_KEY", "\n".join(lines) + "\n")
    assert secrets.redact("\n".join(lines)) == "[DEPLOY_KEY]"
    assert secrets.redact(json.dumps("\n".join(lines))) == '"[DEPLOY_KEY]"'
    assert secrets.redact(f"bad line {lines[2]}.") == "bad line [DEPLOY_KEY]."


WORDS = ["", "EMPTY", "none", "ollama", "lm-studio", "not-needed", "disabled", "internationally"]


@pytest.mark.parametrize(
    "value",
    [*WORDS, "12345678901234567890", "0.123456e-05"],
)
def test_what_may_be_a_word_or_a_number_is_no_secret(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    text = f"The value is {value}, {value}."
    assert secrets.redact(text) == text and secrets.held(text) is None


def test_what_a_server_is_sent_is_taken_out_of_errors_even_if_it_is_a_word() -> None:
    secrets.learn_key("OPENAI_API_KEY", "hunter")
    assert secrets.redact("the hunter") == "the hunter"
    assert secrets.redact_error("bad key: hunter") == "bad key: [OPENAI_API_KEY]"


def test_names_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "CLIENT_SECRET", "my_api_key"]
    for number, name in enumerate([*names, "EDITOR", "LC_KEYBOARD"]):
        monkeypatch.setenv(name, f"value-{number}-of-it")
    told = secrets.redact(" ".join(f"value-{number}-of-it" for number in range(7)))
    assert told == " ".join([*(f"[{name}]" for name in names), "value-5-of-it", "value-6-of-it"])


def test_a_variable_that_changes_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert secrets.redact("other-key-7") == "other-key-7"
    monkeypatch.setenv("OPENAI_API_KEY", "other-key-7")
    assert secrets.redact("other-key-7") == "[OPENAI_API_KEY]"


def test_a_password_in_a_variables_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pw@proxy:3128")
    assert secrets.redact("via http://me:pw@proxy:3128/") == "via http://[secret]@proxy:3128/"


# Nothing else is touched, and JSON stays JSON

SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=24)


@settings(max_examples=300, deadline=None)
@given(secret=SECRETS, before=st.text(max_size=6), after=st.text(max_size=6), other=st.text())
@example("nvapi-12345", "\n", "", "\nvapi-12345")  # JSON writes the line break as \n
@example("u0041234-5678", "", "", "\u0041234-5678\u00e9")
@example('ab12\\"cd', '\\"', '\\"', '\\\\"')
@example("ab12cdef\\", "", "\n", '\n"')
@example("1e-05ab1", "", "", "")
def test_json_stays_json_and_holds_no_secret(
    secret: str, before: str, after: str, other: str
) -> None:
    value = secret.strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENAI_API_KEY")
        patch.setenv("A_KEY", secret)
        texts = {"number": -1234.5e-07, f"a {before}{secret}{after}": [f"{before}{secret}", other]}
        for ascii_only in (True, False):
            told = secrets.redact(json.dumps(texts, ensure_ascii=ascii_only))
            found = json.loads(told)
            if known._is_no_word(value):
                assert not any(value in text for text in (*found, *found[next(reversed(found))]))
            else:
                assert found == texts


def test_a_server_cannot_break_a_record_by_half_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "nvapi-0123456789")
    line = json.dumps({"text": "\nvapi-0123456789 \\nvapi-0123456789"})
    assert json.loads(secrets.redact(line))["text"] in (
        "\n[OPENAI_API_KEY] \\[OPENAI_API_KEY]",
        "\n[OPENAI_API_KEY] \\n[OPENAI_API_KEY]",
    )


@pytest.mark.parametrize("piece", ["\\", "%25", "&amp;", "{}", "\\{}"])
@pytest.mark.parametrize("key", ["+/ab12cdef", "\\&ab12cdef"])
def test_a_hostile_text_takes_no_longer_than_its_length(
    monkeypatch: pytest.MonkeyPatch, piece: str, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    text = piece.format(key) * (10**6 // len(piece.format(key)))
    began = time.process_time()
    secrets.redact(f"{text} {key}")
    # it takes .5 s; what begins anew at each piece takes minutes
    assert time.process_time() - began < 30


@settings(max_examples=200, deadline=None)
@given(st.text(string.printable))
def test_a_text_without_a_secret_stays_what_it_is(text: str) -> None:
    assert secrets.redact(text) == text


# URLs

URLS = {
    "http://me:pw@host/v1": "http://[secret]@host/v1",
    "https://tok@host:8/v1?a=b": "https://[secret]@host:8/v1?a=b",
    "http://me:p@ss:w@host/v1": "http://[secret]@host/v1",
    "http://host/v1?api_key=a1b2&x=1": "http://host/v1?api_key=[secret]&x=1",
    "http://host/?x=1&access_token=a%2Fb#c": "http://host/?x=1&access_token=[secret]#c",
    "http://host/?code=x&sig=y;key=z": "http://host/?code=[secret]&sig=[secret];key=[secret]",
    "http://host/?X-Api-Key=x&Password=y": "http://host/?X-Api-Key=[secret]&Password=[secret]",
    "http://host/v1?api-version=2024-02-01&page=2": None,
    "http://host/@me/v1?encode=utf8&postcode=1": None,
    "see //host/me@x and a//b": None,
    "write to me@example.org": None,
}


@pytest.mark.parametrize(("url", "shown"), URLS.items(), ids=URLS)
def test_urls_are_shown_without_their_secrets(url: str, shown: str | None) -> None:
    assert redact_urls(url) == (shown or url)
    assert secrets.redact_json({"a": [url, 1, None, (url,)]}) == {
        "a": [shown or url, 1, None, (shown or url,)]
    }


@pytest.mark.parametrize("url", [url for url, shown in URLS.items() if shown and "host" in url])
def test_a_learnt_urls_secrets_are_found_in_any_text(url: str) -> None:
    secrets.learn_url(url)
    shown = secrets.redact(f"no answer from {join(url, 'chat/completions')}: refused")
    whole = redact_urls(join(url, "chat/completions"))
    assert shown == f"no answer from {whole}: refused"


def test_a_learnt_urls_secrets_are_found_by_themselves_and_as_a_header() -> None:
    secrets.learn_url("http://me:pass%2F99wd@host/v1?token=tok-en-123&key=s3")
    basic = base64_of("me:pass/99wd")
    for written in ("pass/99wd", "pass%2F99wd", "tok-en-123", basic, f"Basic {basic}"):
        assert secrets.redact(f"a {written} b").endswith("[secret] b"), written
    assert secrets.redact("the s3 of me") == "the s3 of me"
    assert secrets.redact("/v1/x?key=s3") == "/v1/x?key=[secret]"
    assert secrets.redact_error("pass/99wd") == "[secret]"


def test_a_short_password_is_found_where_it_stands_in_a_url_or_a_header() -> None:
    secrets.learn_url("http://u:p@host/v1")
    assert secrets.redact(f"http://u:p@host Basic {base64_of('u:p')} u:p") == (
        "http://[secret]@host Basic [secret] u:p"
    )


def test_a_key_in_a_urls_path_is_found() -> None:
    token = "hf_" + "a1B2" * 9
    secrets.learn_url(f"http://host/{token}/v1?q={token}x")
    assert secrets.redact(f"http://host/{token}/v1: {token}") == "http://host/[secret]/v1: [secret]"


def test_no_more_urls_are_remembered_than_a_bound() -> None:
    for number in range(200):
        secrets.learn_url(f"http://host/v1?session={number}")
    assert len(known._urls) == 64 and "number" not in known._urls[0]


def test_a_url_that_was_written_down_is_asked_for_again() -> None:
    shown = redact_urls("http://me:pw@host/v1")
    with pytest.raises(ValueError, match=r"without its secrets: give it in full") as refused:
        check_server(shown, "base URL", "http://x")
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://u:p/w@h/v1", "u:p/w@h", "http://u:p/w@h:99999", "//u:p/w@"]
)
def test_a_bad_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="bad base URL") as refused:
        check_server(url, "base URL", "http://x")
    assert "p/w" not in str(refused.value)


def test_a_path_is_joined_before_a_query() -> None:
    assert join("http://h/v1/?a=b#c", "/x/y") == "http://h/v1/x/y?a=b"
    assert join("http://h", "x") == "http://h/x"
    assert join("http://h?a=b", "x?c=d") == "http://h/x?c=d&a=b"


def test_a_password_that_is_a_word_of_what_hides_it_is_hidden_once() -> None:
    secrets.learn_url("http://me:secret@host/v1")
    told = secrets.redact_error("no secret at http://me:secret@host/v1")
    assert told == "no [secret] at http://[secret]@host/v1" == secrets.redact_error(told)


# What is told of failures


@pytest.mark.parametrize("kind", [EnvError, PolicyError, RetrievalError])
def test_a_failure_tells_no_secret(kind: type[Exception]) -> None:
    error = kind(f"refused: {KEY!r} at http://a:b@host/?token=x")
    assert str(error) == "refused: '[OPENAI_API_KEY]' at http://[secret]@host/?token=[secret]"


def raises_a_chain() -> None:
    try:
        try:
            raise OSError(f"header {KEY}")
        except OSError as error:
            raise KeyError(b"key " + KEY.encode(), KEY) from error
    except KeyError:
        noted = ValueError(f"key {KEY}", 7)
        noted.add_note(f"it was {KEY}")
        raise ExceptionGroup("two", [noted, PolicyError("x")])  # noqa: B904 - what is not chained


def test_a_traceback_tells_no_secret_of_any_cause() -> None:
    with pytest.raises(ExceptionGroup) as caught, secrets.redacted_errors():
        raises_a_chain()
    shown = "".join(traceback.format_exception(caught.value))
    assert all(part not in shown for part in (KEY, "may/see", "é𝄞")) and "OSError" in shown
    assert shown.count("[OPENAI_API_KEY]") >= 4
    [inner, _] = caught.value.exceptions
    assert type(inner) is ValueError and inner.args == ("key [OPENAI_API_KEY]", 7)


def test_errors_without_secrets_pass_as_they_are() -> None:
    args: tuple[Any, ...] = ("a", 7, [1], {"b": 2})
    with pytest.raises(ValueError, match="a") as caught, secrets.redacted_errors():
        raise ValueError(*args)
    assert caught.value.args is args or caught.value.args == args


def test_a_complaint_tells_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    complain(ValueError(f"bad {KEY} http://me:pw@host"))
    assert capsys.readouterr().err == "error: bad [OPENAI_API_KEY] http://[secret]@host\n"


def test_what_a_command_prints_tells_no_secret() -> None:
    line = "import os; print(os.environ['OPENAI_API_KEY'])"
    program = f"from erl_envs.output import protect; protect(); {line}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "[OPENAI_API_KEY]\n"


def test_a_written_file_holds_no_secret(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", json.dumps({"a": KEY, "b": html.escape(KEY)}))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == dict.fromkeys(
        "ab", "[OPENAI_API_KEY]"
    )


def test_every_command_redacts_what_it_does_not_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    import erl_envs.eval.__main__ as evaluation
    import erl_envs.leaderboard.__main__ as leaderboard
    import erl_envs.retrieval.__main__ as retrieval
    import erl_envs.serve as serve
    import erl_envs.tasks as tasks
    import erl_trainer.__main__ as trainer

    def broken(*_: Any, **__: Any) -> Iterator[None]:
        raise KeyError(f"header {KEY}")

    for module, argument in (
        *((m, "Parser") for m in (evaluation, leaderboard, retrieval, serve, tasks)),
        (trainer, "list"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(arguments, "protect", lambda: None)  # pytest's streams stay
            patched.setattr(module, argument, broken, raising=False)
            with pytest.raises(KeyError) as caught:
                module.run_command(partial(module.main, []))
        assert "may/see" not in repr(caught.value), module.__name__
