"""`--thoughts` and `--template`: what they say, where it is recorded, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from chat_families import FAMILIES
from loopback import Reply, Request, says, serving
from tiny_models import tiny_model

from erl_envs import policies
from erl_envs.core import Message
from erl_envs.eval import __main__ as cli
from erl_envs.policies import Conversation, Sampling
from erl_envs.records import read_episodes
from erl_trainer import __main__ as trainer
from erl_trainer import launch
from erl_trainer.config import Config, to_json

TINY = ["--env", "frozenlake", "--split", "small-test", "--limit", "2", "--max-tokens", "6"]
OPTIONS = ["--option", "prompt_style=compact", "--option", "max_turns=2"]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that speaks by Qwen3's template."""
    folder = tmp_path_factory.mktemp("models") / "qwen"
    tokenizer = FAMILIES["Qwen3"].tokenizer()
    model = tiny_model()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def evaluate(model: str, out: Path, *more: str) -> int:
    return cli.main(
        [*TINY, *OPTIONS, "--policy", f"transformers:{model}", "--out", str(out), *more]
    )


@pytest.mark.parametrize(
    ("more", "recorded"),
    [
        ([], {"thoughts": "strip"}),
        (["--thoughts", "keep"], {"thoughts": "keep"}),
        (
            ["--template", "enable_thinking=false"],
            {"thoughts": "strip", "template": {"enable_thinking": False}},
        ),
    ],
)
def test_a_run_records_what_becomes_of_thoughts(
    qwen: str, tmp_path: Path, more: list[str], recorded: dict[str, Any]
) -> None:
    assert evaluate(qwen, tmp_path / "run", *more) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    policy = {k: v for k, v in run["policy"].items() if k not in ("spec", "revision")}
    assert policy == recorded
    assert len(read_episodes(tmp_path / "run" / "episodes.jsonl")) == 2
    assert "Earlier thoughts" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_run_is_not_resumed_with_other_thoughts(
    qwen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(qwen, tmp_path / "run") == 0
    assert evaluate(qwen, tmp_path / "run", "--resume") == 0
    assert evaluate(qwen, tmp_path / "run", "--resume", "--thoughts", "keep") == 2
    assert "policy.thoughts: 'strip' → 'keep'" in capsys.readouterr().err
    assert evaluate(qwen, tmp_path / "run", "--resume", "--template", "enable_thinking=false") == 2
    assert "policy.template: None → {'enable_thinking': False}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--template", "enable_thinkin=false"], "takes no 'enable_thinkin'"),
        (["--template", "messages=[]"], "takes no 'messages'"),
        (["--template", "enable_thinking"], "must look like key=value"),
        (["--policy", "random", "--template", "a=1"], "random has no chat template"),
        (["--policy", "oracle", "--thoughts", "strip"], "oracle has no chat template"),
    ],
)
def test_what_no_template_takes_is_refused_by_name(
    qwen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert evaluate(qwen, tmp_path / "run", *more) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("thoughts", "told"),
    [
        (None, "<think>hm</think>\n\n```Up```"),
        ("keep", "<think>hm</think>\n\n```Up```"),
        ("strip", "```Up```"),
    ],
)
def test_a_server_is_told_the_history_and_its_template(thoughts: Any, told: str) -> None:
    asked: list[Any] = []

    def answer(request: Request) -> Reply:
        asked.append(request.body)
        return says("```Down```")

    messages = [
        message("user", "<think> is a board"),
        message("assistant", "<think>hm</think>\n\n```Up```"),
        message("user", "again"),
    ]
    talk = Conversation(messages, ("frozenlake", "t", 0, "attempt_1"), seed=0)
    with serving(answer) as url:
        template = {"enable_thinking": False}
        policy = policies.load("openai:m", f"{url}/v1", thoughts=thoughts, template=template)
        policy.complete([talk], Sampling())
        plain = policies.load("openai:m", f"{url}/v1")
        plain.complete([talk], Sampling())
    assert [m["content"] for m in asked[0]["messages"]] == ["<think> is a board", told, "again"]
    assert asked[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert (policy.thoughts, policy.template) == (thoughts, template)
    assert "chat_template_kwargs" not in asked[1]
    assert (plain.thoughts, plain.template) == (None, {})
    assert messages[1]["content"].startswith("<think>")  # the record keeps them


def test_training_takes_both_and_records_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []

    def start(config: Config, *_: Any) -> int:
        seen.append(config)
        return 0

    monkeypatch.setattr(launch, "start", start)
    argv = ["train", "--out", str(tmp_path / "run"), "--model", "q", "--thoughts", "strip"]
    assert trainer.main([*argv, "--template", "enable_thinking=false", "--template", "x=y"]) == 0
    config = seen[0]
    assert (config.history, config.template) == ("strip", {"enable_thinking": False, "x": "y"})
    assert to_json(config)["template"] == {"enable_thinking": False, "x": "y"}
    assert Config().history is None
    with pytest.raises(ValueError, match="thoughts"):
        Config(thoughts="drop")  # type: ignore[arg-type]


def test_a_run_from_before_these_fields_goes_on(tmp_path: Path) -> None:
    names = {"algo": "erl", "preset": "default"}
    written = json.loads(json.dumps({**names, **to_json(Config())}))
    before = {k: v for k, v in written.items() if k not in ("thoughts", "template")}
    (tmp_path / "config.json").write_text(json.dumps(before), encoding="utf-8")
    launch.check_folder(written, tmp_path, resume=True)
    other = {**written, "thoughts": "strip"}
    with pytest.raises(ValueError, match=r"another thoughts \('template', not 'strip'\)"):
        launch.check_folder(other, tmp_path, resume=True)
