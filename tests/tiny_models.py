"""Models and tokenizers small enough to load in a blink: random weights, every kind of template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Style = Literal["chatml", "gemma", "drops_system", "thinks", "bos"]

WORDS = ("system", "user", "assistant", "model", "Rules", "Play", "Again", "Up", "Down")
"""Words that are one token each; all other text is one token a byte."""

SPECIAL = ("<|bos|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>")

_CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' }}
{{- message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}"""

_GEMMA = """\
{{- '<|bos|>' -}}
{%- for message in messages -%}
{%- if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- set role = 'model' if message.role == 'assistant' else message.role -%}
{{ '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif -%}"""

_THOUGHT = """\
{%- if message.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif -%}
"""

TEMPLATES: dict[Style, str] = {
    "chatml": _CHATML,
    "gemma": _GEMMA,
    "drops_system": _CHATML.replace("in messages", "in messages if message.role != 'system'"),
    "thinks": _CHATML.replace("{{- message.content", _THOUGHT + "{{- message.content"),
    "bos": "{{- '<|bos|>' -}}\n" + _CHATML,
}


def tiny_tokenizer(style: Style | None = "chatml", named_special: bool = True) -> Any:
    """A byte-level tokenizer: any bytes have tokens, and one text has many tokenizations.

    It puts a `<|bos|>` before what it is asked to add special tokens to, as Llama's does.

    Args:
        style: Of the chat template; None leaves it out.
        named_special: Whether its end-of-turn tokens have a name (`additional_special_tokens`),
            or are special in `tokenizer.json` alone, as Gemma 3's and Llama 3's are.
    """
    raw = byte_level()
    raw.add_special_tokens(list(SPECIAL))
    raw.post_processor = processors.TemplateProcessing(
        "<|bos|> $A", special_tokens=[("<|bos|>", raw.token_to_id("<|bos|>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=list(SPECIAL[2:]) if named_special else [],
    )
    tokenizer.chat_template = TEMPLATES[style] if style else None
    return tokenizer


def byte_level() -> Tokenizer:
    """A token for each byte and for each of `WORDS`; none is special."""
    pieces = [word[:end] for word in WORDS for end in range(2, len(word) + 1)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *pieces])
    raw = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[(piece[:-1], piece[-1]) for piece in dict.fromkeys(pieces)],
        )
    )
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def tiny_model(context: int = 8192, seed: int = 0) -> Any:
    """A Llama of 14,000 random float32 weights, on the CPU, that ends its turn now and then."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for token in ("<|im_end|>", "<end_of_turn>"):
            model.lm_head.weight[
                tokenizer.convert_tokens_to_ids(token)
            ] *= -2  # about one token in ten
    return model.float().eval()


def save_tiny(folder: Path, style: Style | None = "chatml", context: int = 8192) -> Path:
    """Save a model and its tokenizer as a hub folder."""
    tiny_model(context).save_pretrained(folder)
    tiny_tokenizer(style).save_pretrained(folder)
    return folder


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each id's own text, for lists that a person can read."""
    return [tokenizer.decode([token], skip_special_tokens=False) for token in ids]


def untrained_nano(folder: Path) -> str:
    """A tiny model with nano's tokenizer and random weights, saved in the folder."""
    from erl_trainer.nano import pretrain, tokenizer
    from erl_trainer.nano.recipe import Recipe

    words = tokenizer.build()
    recipe = Recipe(hidden=32, layers=1, heads=1)
    pretrain.build_model(recipe, words).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)
