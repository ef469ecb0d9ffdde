"""Local models through transformers: a folder, a hub id, or a GGUF file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from erl_envs.extras import missing_extra
from erl_envs.policies.base import Conversation, Sampling, Thoughts
from erl_envs.policies.chat import ChatTokens
from erl_envs.policies.local import Generated, Local, context_length

ADAPTERS = "adapter_config.json"
"""What makes a folder one of LoRA adapters."""


class Transformers(Local):
    """A model in this process, sampled by `erl_envs.policies.sampler`."""

    def __init__(
        self,
        name: str,
        model: Any = None,
        tokenizer: Any = None,
        thoughts: Thoughts | None = None,
        template: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Load a model.

        Args:
            name: A folder (of LoRA adapters too), a hub id, or a `.gguf` file.
            model: A loaded model, to take instead (the trainer's own).
            tokenizer: Its tokenizer.
            thoughts: What becomes of earlier turns' thoughts; None for what its template does.
            template: What its chat template is told beside the messages.

        Raises:
            ValueError: It cannot be loaded, or is no chat model; one line that says why.
        """
        self.spec = f"transformers:{name}"
        if model is None:
            model, tokenizer = load(name)
            model = model.to(sampling_dtype(model))
        self.model = model
        self.revision = revision(model)
        eos = model.generation_config.eos_token_id if model.can_generate() else None
        stop_ids = eos if isinstance(eos, list) else [eos] if eos is not None else []
        self.take_chat(ChatTokens(tokenizer, stop_ids, name, thoughts, template))
        self.context = context_length(model)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Generated]:
        """Sample in one batch, reading only what each conversation was told since the last time."""
        from erl_envs.policies.kv_cache import Read
        from erl_envs.policies.sampler import sample

        results = sample(
            self.model,
            [c.ids for c in conversations],
            [c.rng for c in conversations],
            sampling,
            self.chat.stop_ids,
            [c.past and c.past.of(c.ids) for c in conversations],
        )
        for conversation, (ids, _, _, past) in zip(conversations, results, strict=True):
            # on the model's device; a run's concurrency bounds how many live at a time
            conversation.past = past and Read([*conversation.ids, *ids[:-1]], past)
        return [Generated(*result[:3]) for result in results]


def load(name: str) -> tuple[Any, Any]:
    """Load a model in evaluation mode, in the dtype of its checkpoint, and its tokenizer.

    LoRA adapters are merged into the base model that their folder names.

    Raises:
        ValueError: It cannot be loaded; one line that says why.
    """
    check_installed()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if (Path(name) / ADAPTERS).is_file():
        return _merged(Path(name))
    where, kwargs = _source(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(where, **kwargs)
            model = AutoModelForCausalLM.from_pretrained(where, dtype="auto", **kwargs)
            if quantizer := kwargs and getattr(model, "hf_quantizer", None):
                # a GGUF file's weights were widened in reading; marked, they could not be saved
                quantizer.remove_quantization_config(model)
    except Exception as error:  # a broken file makes the libraries raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"cannot load the model {name!r}: {reason}") from error
    return model.to(device).eval(), tokenizer


def _merged(folder: Path) -> tuple[Any, Any]:
    """The base model of LoRA adapters, these merged in; the adapters' tokenizer if they have one.

    Raises:
        ValueError: peft is missing, or the base or the adapters cannot be loaded.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise missing_extra("LoRA adapters", "train", error) from error
    from transformers import AutoTokenizer

    try:
        base = str(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
        model, tokenizer = load(base)
        if (folder / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
        merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except Exception as error:  # broken adapters make the library raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"cannot load the adapters {str(folder)!r}: {reason}") from error
    merged.config._commit_hash = None  # the base's; with adapters it is another model
    return merged.eval(), tokenizer


def check_installed() -> None:
    """Import what local models need.

    Raises:
        ValueError: It is missing; one line that says how to install it.
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise missing_extra("local models", "models", error) from error


def sampling_dtype(model: Any) -> Any:
    """Choose what a model samples in here: its own dtype, float32 where a CPU emulates a half.

    Only sampling may choose by the processor; what is trained, saved or hashed never does.
    """
    import torch

    emulated = model.device.type == "cpu" and model.dtype.itemsize == 2
    return torch.float32 if emulated and not _cpu_multiplies_bf16() else model.dtype


def _cpu_multiplies_bf16() -> bool:
    """Whether half-precision weights are fast here (AMX, AVX-512); elsewhere they are emulated."""
    import torch

    supported = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(supported.get("amx_bf16") or supported.get("avx512_bf16"))


def _source(name: str) -> tuple[str, dict[str, str]]:
    path = Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"cannot load the model {name!r}: no such file")
        return str(path.parent), {"gguf_file": path.name}
    if path.exists() and not (path / "config.json").is_file():
        raise ValueError(f"cannot load the model {name!r}: the folder holds no config.json")
    if not path.exists() and (path.is_absolute() or name.startswith(".")):
        raise ValueError(f"cannot load the model {name!r}: no such folder")
    return name, {}


def revision(model: Any) -> str:
    """What tells a model from others of its name: the hub's commit, or else its weights' hash."""
    return str(getattr(model.config, "_commit_hash", None) or weights_hash(model))


def weights_hash(model: Any) -> str:
    """A short hash of a model's weights, of some values of each: quick for big models too."""
    import hashlib

    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        flat = value.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)].float().cpu().numpy()
        digest.update(key.encode() + some.tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Bars of loading and saving would break the run's own progress display."""
    from transformers.utils import logging

    was_off = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        if was_off is None:
            del os.environ["TQDM_DISABLE"]
