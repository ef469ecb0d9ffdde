"""Local models: what loads and what does not, and whole episodes with their tokens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny_models import Style, save_tiny, tiny_model, tiny_tokenizer

from erl_envs import policies
from erl_envs.core import Episode, Message, Task
from erl_envs.policies.base import Completion, Conversation, Sampling
from erl_envs.policies.kv_cache import Read
from erl_envs.policies.transformers import Transformers, load, revision
from erl_envs.rollout import EnvPool, Job, Player, rollout

OPTIONS = {"prompt_style": "compact", "max_turns": 3}
TASK = Task("frozenlake", {"desc": ["SF", "FG"]})
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=12)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """The saved model, to break."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def policy(style: Style = "chatml", context: int = 8192) -> Transformers:
    return Transformers("tiny", tiny_model(context), tiny_tokenizer(style))


def play(
    actor: Transformers, samples: int = 1, seed: int = 0, concurrency: int = 8
) -> list[Episode]:
    jobs = [Job(TASK, sample, seed) for sample in range(samples)]
    played = rollout(
        jobs,
        EnvPool({"frozenlake": OPTIONS}),
        {"actor": Player(actor, SAMPLING)},
        concurrency=concurrency,
    )
    return sorted(played, key=lambda episode: episode.sample)


def said(episode: Episode) -> list[str]:
    messages = episode.attempts[0].messages
    return [message["content"] for message in messages if message["role"] == "assistant"]


def spans(ids: Sequence[int], sampled: Sequence[bool]) -> Iterator[list[int]]:
    """The runs of sampled ids."""
    span: list[int] = []
    for token, was_sampled in zip([*ids, 0], [*sampled, False], strict=True):
        if was_sampled:
            span.append(token)
        elif span:
            yield span
            span = []


@pytest.mark.parametrize("style", ["chatml", "gemma", "drops_system", "thinks", "bos"])
def test_an_episode_keeps_the_tokens_it_sampled(style: Style) -> None:
    actor = policy(style)
    stops = actor.chat.stop_ids
    for episode in play(actor, samples=3):
        attempt = episode.attempts[0]
        assert episode.valid
        [tokens] = attempt.tokens
        ids, sampled, logprobs = tokens.ids, tokens.sampled, tokens.logprobs
        assert len(ids) == len(sampled) == len(logprobs)
        written = list(spans(ids, sampled))
        shown = [span[:-1] if span[-1] in stops else span for span in written]
        decode = actor.tokenizer.decode
        assert [decode(span, skip_special_tokens=False) for span in shown] == said(episode)
        for span, turn in zip(written, attempt.turns, strict=True):
            assert turn.stop == ("stop" if span[-1] in stops else "length")
            assert turn.usage.completion_tokens == len(span)
        assert all((logprob < 0) == was for logprob, was in zip(logprobs, sampled, strict=True))


def test_a_turns_prompt_is_everything_before_its_answer() -> None:
    [episode] = play(policy())
    attempt = episode.attempts[0]
    sampled = attempt.tokens[0].sampled
    starts = [i for i, was in enumerate(sampled) if was and not sampled[i - 1]]
    assert [turn.usage.prompt_tokens for turn in attempt.turns] == starts


def test_the_kept_logprobs_are_the_models_over_the_kept_ids() -> None:
    actor = policy()
    for episode in play(actor, samples=3):
        [tokens] = episode.attempts[0].tokens
        with torch.inference_mode():
            logp_LV = actor.model(torch.tensor([tokens.ids])).logits[0, :-1].log_softmax(-1)
        own_L = logp_LV.gather(1, torch.tensor(tokens.ids[1:])[:, None])[:, 0]
        mask_L = torch.tensor(tokens.sampled[1:])
        kept_L = torch.tensor(tokens.logprobs[1:])
        assert torch.allclose(own_L[mask_L], kept_L[mask_L], atol=1e-4)


def test_a_prompt_that_is_told_anew_is_read_as_if_it_were_the_first() -> None:
    """Each stretch has the model's own log-probabilities, whatever the one before it left read."""
    tokenizer = tiny_tokenizer()
    opening = "{{ '<|im_start|>assistant\n' }}"
    assert opening in tokenizer.chat_template
    # what this opens an answer with it leaves out of the history, as Qwen3's does
    tokenizer.chat_template = tokenizer.chat_template.replace(
        opening, "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"
    )
    actor = Transformers("tiny", tiny_model(), tokenizer)
    played = play(actor, samples=3)
    for episode in played:
        parts = episode.attempts[0].tokens
        assert len(parts) == len(episode.attempts[0].turns) == 3
        for part in parts:
            with torch.inference_mode():
                logp_LV = actor.model(torch.tensor([part.ids])).logits[0, :-1].log_softmax(-1)
            own_L = logp_LV.gather(1, torch.tensor(part.ids[1:])[:, None])[:, 0]
            mask_L = torch.tensor(part.sampled[1:])
            assert torch.allclose(own_L[mask_L], torch.tensor(part.logprobs[1:])[mask_L], atol=1e-4)
    alone = play(Transformers("tiny", tiny_model(), tokenizer), samples=3, concurrency=1)
    assert [said(episode) for episode in alone] == [said(episode) for episode in played]


def test_only_what_another_prompt_begins_with_is_kept_of_what_was_read() -> None:
    keys, values = torch.arange(6.0)[None, :, None], -torch.arange(6.0)[None, :, None]
    read = Read([3, 1, 4, 1, 5, 9], [(keys, values)])

    def kept(*ids: int) -> int:
        past = read.of(ids)
        return 0 if past is None else past[0][0].shape[1]

    assert kept(3, 1, 4, 1, 5, 9, 2) == 6
    assert kept(3, 1, 4, 1, 5, 9) == 5  # of the last id the model must be asked
    assert kept(3, 1, 4) == 2
    assert kept(3, 1, 5, 9, 2, 6) == 2
    assert kept(2, 7) == kept(3) == 0


def test_the_tested_policy_both_ends_its_turns_and_is_cut_off() -> None:
    stops = {turn.stop for e in play(policy(), samples=8) for turn in e.attempts[0].turns}
    assert stops == {"stop", "length"}


def test_the_same_seed_gives_the_same_messages() -> None:
    first, again = (play(policy(), samples=3, seed=5) for _ in range(2))
    other = play(policy(), samples=3, seed=6)
    assert [said(episode) for episode in first] == [said(episode) for episode in again]
    assert all(said(a) != said(b) for a, b in zip(first, other, strict=True))
    assert len({tuple(said(episode)) for episode in first}) == 3  # samples differ from each other


def test_who_else_is_in_the_batch_does_not_change_an_episode() -> None:
    alone = play(policy(), samples=8, concurrency=1)
    together = play(policy(), samples=8, concurrency=8)
    assert [said(episode) for episode in alone] == [said(episode) for episode in together]
    for one, other in zip(alone, together, strict=True):
        [a], [b] = one.attempts[0].tokens, other.attempts[0].tokens
        assert a.ids == b.ids


def test_a_conversation_longer_than_the_context_is_answered_with_nothing() -> None:
    [episode] = play(policy(context=64))
    assert episode.valid
    assert said(episode) == ["", "", ""]
    assert [turn.stop for turn in episode.attempts[0].turns] == ["length"] * 3
    assert [turn.usage.completion_tokens for turn in episode.attempts[0].turns] == [0, 0, 0]


def test_a_context_that_fills_up_cuts_one_answer_and_leaves_the_next_empty() -> None:
    [episode] = play(policy(), seed=1)
    first = episode.attempts[0].turns[0].usage
    prompt, written = first.prompt_tokens, first.completion_tokens
    assert prompt is not None and written is not None and written > 2
    [episode] = play(policy(context=prompt + 2), seed=1)
    assert episode.valid
    turns = episode.attempts[0].turns
    assert [turn.usage.completion_tokens for turn in turns] == [2, 0, 0]
    assert [turn.stop for turn in turns] == ["length"] * 3
    [tokens] = episode.attempts[0].tokens
    assert [i for i, was in enumerate(tokens.sampled) if was] == [prompt, prompt + 1]


def test_a_full_conversation_does_not_disturb_its_batch() -> None:
    def ask(*texts: str) -> list[Any]:
        talks = [
            Conversation(
                [message("user", text)], ("frozenlake", "t", 0, "attempt_1"), seed=len(text)
            )
            for text in texts
        ]
        return policy(context=128).complete(talks, SAMPLING)

    def message(role: str, content: str) -> Message:
        return {"role": role, "content": content}

    full, fits = ask("x" * 200, "Play")
    [alone] = ask("Play")
    assert isinstance(fits, Completion) and fits.text and fits.token_ids == alone.token_ids
    assert full.text == "" and full.stop_reason == "length" and not full.token_ids


def test_a_saved_model_loads_by_its_command_line_string(saved: Path) -> None:
    actor = policies.load(f"transformers:{saved}")
    assert isinstance(actor, Transformers)
    assert actor.spec == f"transformers:{saved}"
    assert actor.revision == policy().revision  # the same weights
    ids = actor.tokenizer.encode("Rules Play<|im_end|>", add_special_tokens=False)
    assert ids == tiny_tokenizer().encode("Rules Play<|im_end|>", add_special_tokens=False)
    assert actor.chat.stop_ids == policy().chat.stop_ids
    assert not actor.model.training
    [episode] = play(actor)
    assert episode.valid and len(said(episode)) == 3


def test_other_weights_are_another_revision() -> None:
    other = Transformers("tiny", tiny_model(seed=1), tiny_tokenizer())
    assert other.revision != policy().revision
    assert other.revision.startswith("sha256:")


def refusal(spec: str) -> str:
    with pytest.raises(ValueError) as refused:
        policies.load(spec)
    text = str(refused.value)
    assert len(text.splitlines()) == 1
    return text


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refusal("transformers:").startswith("no policy 'transformers:'; valid: ")
    assert refusal(f"transformers:{tmp_path}/none").endswith("no such folder")
    assert refusal("transformers:./none").endswith("no such folder")
    assert refusal(f"transformers:{tmp_path}/none.gguf").endswith("no such file")
    assert refusal(f"transformers:{tmp_path}/empty").endswith("the folder holds no config.json")
    assert "cannot load the model 'nobody/nothing'" in refusal("transformers:nobody/nothing")
    assert "cannot load the model 'a/b/c'" in refusal("transformers:a/b/c")


def test_a_model_without_chat_template_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    assert f"{copy} has no chat template" in refusal(f"transformers:{copy}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"model_type": "no such model"}'),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "no json"),
        ("tokenizer_config.json", "[]"),
        ("model.safetensors", "cut off"),
        ("chat_template.jinja", "{% if %}"),
    ],
)
def test_a_broken_file_is_refused(copy: Path, name: str, content: str) -> None:
    assert (copy / name).is_file()
    (copy / name).write_text(content, encoding="utf-8")
    assert f"{copy}" in refusal(f"transformers:{copy}")


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = (copy / "config.json").read_text(encoding="utf-8")
    (copy / "config.json").write_text(
        config.replace('"hidden_size": 16', '"hidden_size": 32'), encoding="utf-8"
    )
    assert "cannot load the model" in refusal(f"transformers:{copy}")


def test_missing_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "cannot load the model" in refusal(f"transformers:{copy}")


def test_a_broken_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, but no more than that")
    assert "broken.gguf" in refusal(f"transformers:{tmp_path}/broken.gguf")


@pytest.fixture
def adapters(saved: Path, tmp_path: Path) -> Path:
    """LoRA adapters of the saved model that change what it says."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(load(str(saved))[0], lora)
    model.peft_config["default"].base_model_name_or_path = str(saved)
    model.save_pretrained(tmp_path / "adapters")
    return tmp_path / "adapters"


def test_a_folder_of_adapters_is_a_model(saved: Path, adapters: Path) -> None:
    from peft import PeftModel

    base, _ = load(str(saved))
    merged, tokenizer = load(str(adapters))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain, ours = base(ids).logits, merged(ids).logits
        theirs = PeftModel.from_pretrained(base, str(adapters))(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, plain, atol=0.1)
    assert type(merged) is type(base) and len(tokenizer) == merged.config.vocab_size
    assert revision(merged) != revision(load(str(saved))[0])
    assert play(Transformers(str(adapters)))[0].valid


def test_adapters_without_a_base_are_refused(adapters: Path, saved: Path, tmp_path: Path) -> None:
    config = adapters / "adapter_config.json"
    text = config.read_text(encoding="utf-8").replace(str(saved), str(tmp_path / "gone"))
    config.write_text(text, encoding="utf-8")
    told = refusal(f"transformers:{adapters}")
    assert "cannot load the adapters" in told and "no such folder" in told
