"""What is trained, saved and hashed is the same whatever the processor multiplies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny, tiny_model

from erl_envs.eval.__main__ import main as evaluate
from erl_envs.policies import nano
from erl_envs.policies.transformers import Transformers, load, weights_hash
from erl_trainer.__main__ import main

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=[True, False], ids=["with bfloat16 units", "without"])
def multiplies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both answers to whether the processor multiplies bfloat16."""
    name = "erl_envs.policies.transformers._cpu_multiplies_bf16"
    monkeypatch.setattr(name, lambda: request.param)
    return bool(request.param)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of bfloat16 weights."""
    folder = save_tiny(tmp_path_factory.mktemp("half"))
    tiny_model().to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Successes to learn from."""
    out = tmp_path_factory.mktemp("runs") / "oracle"
    argv = ["--policy", "oracle", "--env", "frozenlake", "--split", "small-test", "--limit", "2"]
    assert evaluate([*argv, "--option", "prompt_style=compact", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_is_loaded_and_hashed_in_its_own_dtype(
    multiplies: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = tiny_model().to(dtype)
    model.save_pretrained(save_tiny(tmp_path))
    loaded, _ = load(str(tmp_path))
    assert loaded.dtype == dtype
    assert weights_hash(loaded) == weights_hash(model)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sampling_alone_widens_what_the_processor_would_emulate(
    multiplies: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    tiny_model().to(dtype).save_pretrained(save_tiny(tmp_path))
    emulated = dtype.itemsize == 2 and not multiplies
    assert Transformers(str(tmp_path)).model.dtype == (torch.float32 if emulated else dtype)


def test_nano_plays_in_float32_everywhere(multiplies: bool) -> None:
    assert nano.load_model(nano.folder("frozenlake")).model.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sft_trains_and_saves_the_configured_dtype(
    multiplies: bool, dtype: str, half: Path, run: Path, tmp_path: Path
) -> None:
    learn = ["sft", "--from", str(run), "--model", str(half), "--epochs", "1", "--dtype", dtype]
    assert main([*learn, "--out", str(tmp_path / "out")]) == 0
    assert saved(tmp_path / "out") == getattr(torch, dtype)


def test_train_trains_and_saves_the_configured_dtype(
    multiplies: bool, half: Path, tmp_path: Path
) -> None:
    sizes = "--steps 1 --tasks-per-step 1 --group-size 2 --eval-every 0 --max-tokens 4"
    argv = ["train", "--model", str(half), "--algo", "grpo", *sizes.split(), "--loggers", "[]"]
    assert main([*argv, "--dtype", "bfloat16", "--out", str(tmp_path / "out")]) == 0
    assert saved(tmp_path / "out") == torch.bfloat16


def saved(out: Path) -> Any:
    """The dtype of a run's model."""
    return load(str(out / "model"))[0].dtype
