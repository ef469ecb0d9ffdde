"""Learning from a run folder: what is learnt, under which prompt, and that it is learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import together
from tiny_models import untrained_nano

from erl_envs.core import Attempt, Episode, Message, Reflection, Task
from erl_envs.eval.__main__ import main as evaluate
from erl_envs.policies.chat import ChatTokens
from erl_trainer import sft
from erl_trainer.__main__ import main
from erl_trainer.nano import tokenizer

TASK = Task("frozenlake", {"desc": ["SG"]})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return untrained_nano(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def oracle_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "oracle"
    argv = ["--policy", "oracle", "--env", "frozenlake", "--split", "small-test", "--limit", "6"]
    assert evaluate([*argv, "--option", "prompt_style=compact", "--out", str(out)]) == 0
    return out


def attempt(system: str, answer: str, reward: float, valid: bool = True) -> Attempt:
    messages: list[Message] = [
        {"role": "system", "content": system},
        {"role": "user", "content": " A \t B \t"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": " D \t √ \t"},
    ]
    return Attempt(TASK, 0, messages, [], reward, "", "solved", valid=valid)


def learnt(episode: Episode) -> list[str]:
    words = tokenizer.build()
    chat = ChatTokens(words, [words.eos_token_id], "nano")
    return [words.decode(sample.ids) for sample in sft.corrected(episode, 1.0, chat)]


def test_a_second_attempt_is_learnt_under_the_first_ones_prompt() -> None:
    first, second = attempt("Question", "```Left```", 0.0), attempt("A is", "```Right```", 1.0)
    reflection = Reflection([], "A is", "A is")
    (text,) = learnt(Episode(TASK, 0, [first, second], reflection))
    assert text == "<|system|> Question <|user|> A B <|assistant|> ```Right``` <|end|>"


@pytest.mark.parametrize(
    "attempts",
    [
        [attempt("Question", "```Left```", 0.0)],
        [attempt("Question", "```Left```", 0.5)],
        [attempt("Question", "```Right```", 1.0, valid=False)],
    ],
)
def test_what_did_not_succeed_is_not_learnt(attempts: list[Attempt]) -> None:
    assert learnt(Episode(TASK, 0, attempts)) == []


def test_only_what_the_policy_would_have_sampled_is_learnt() -> None:
    words = tokenizer.build()
    chat = ChatTokens(words, [words.eos_token_id], "nano")
    [part] = sft.encode(attempt("Question", "A 1 1 ```Right```", 1.0).messages, chat)
    ids, sampled = part.ids, part.sampled
    said = [token for token, was in zip(ids, sampled, strict=True) if was]
    assert words.convert_ids_to_tokens(said) == ["A", "1", "1", "```Right```", "<|end|>"]
    assert sampled == [False] * (len(ids) - 5) + [True] * 5


def test_the_oracles_run_is_learnt(model: str, oracle_run: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "out"
    argv = ["sft", "--from", str(oracle_run), "--model", model, "--out", str(out)]
    assert main([*argv, "--epochs", "8", "--batch", "3", "--lr", "0.01"]) == 0
    losses = [
        json.loads(line)["loss/imitate"] for line in (out / "metrics.jsonl").open(encoding="utf-8")
    ]
    assert len(losses) == 16
    assert losses[-1] < losses[0] / 2
    assert (out / "model" / "config.json").exists()


def test_two_processes_learn_what_one_does(model: str, oracle_run: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    sft = ["sft", "--from", str(oracle_run), "--model", model, "--epochs", "1", "--batch", "3"]
    assert main([*sft, "--out", str(tmp_path / "one")]) == 0
    together(["-m", "erl_trainer", *sft, "--out", str(tmp_path / "two")])
    one, two = (
        [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").open(encoding="utf-8")]
        for out in ("one", "two")
    )
    assert len(one) == 2
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize(("least", "found"), [(1.0, 1), (0.0, 2)])
def test_rulebooks_are_learnt_under_the_reflectors_prompt(least: float, found: int) -> None:
    words = tokenizer.build()
    chat = ChatTokens(words, [words.eos_token_id], "nano")
    asked: list[Message] = [
        {"role": "system", "content": "Rules"},
        {"role": "user", "content": " A "},
        {"role": "assistant", "content": "<prompt>A is you</prompt>"},
    ]
    first = attempt("Question", "```Left```", 0.0)
    samples = [
        sample
        for reward in (0.0, 1.0)
        for sample in sft.reflected(
            Episode(
                TASK,
                0,
                [first, attempt("A is", "```Right```", reward)],
                Reflection(asked, "A is you", "A is you"),
            ),
            least,
            chat,
        )
    ]
    assert len(samples) == found
    said = [i for i, was in zip(samples[0].ids, samples[0].sampled, strict=True) if was]
    assert words.decode(said) == "<prompt>A is you</prompt> <|end|>"
    mute = Reflection(asked, None, "Question")
    assert not list(sft.reflected(Episode(TASK, 0, [first, first], mute), 0.0, chat))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--from": "/no/run"}, "cannot read /no/run/episodes.jsonl"),
        ({"--threshold": "2"}, "earned 2"),
        ({"--model": "/no/model"}, "no such folder"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    model: str,
    oracle_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    given: dict[str, Any] = {"--from": oracle_run, "--model": model, "--out": tmp_path / "out"}
    argv = [str(word) for pair in {**given, **change}.items() for word in pair]
    assert main(["sft", *argv]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--batch", "-1"], "--batch must be 1 or more, got -1"),
        (["--lr", "1e30"], "lower --lr; nothing is kept"),
    ],
)
def test_what_cannot_be_learnt_leaves_nothing(
    model: str,
    oracle_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    message: str,
) -> None:
    out = tmp_path / "out"
    assert main(["sft", "--from", str(oracle_run), "--model", model, "--out", str(out), *argv]) == 2
    told = capsys.readouterr().err
    assert message in told.splitlines()[-1]
    assert not out.exists()
