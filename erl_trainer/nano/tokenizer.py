"""Nano's tokenizer: word pieces, and one token for each fixed phrase of the prompts.

The prompts' constant text is most of what a player reads. A phrase that is one token costs nano
next to nothing, so its small context and its training go to boards, names and rulebooks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import erl_envs
from erl_envs import registry
from erl_envs.grid import DIRECTIONS

SPECIAL = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
UNKNOWN = "<|unknown|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_PROMPTS = (
    "frozenlake_rules",
    "sokoban_rules",
    "hotpotqa_rules",
    "grid_compact",
    "grid_format",
    "grid_reflect",
    "hotpotqa_compact",
    "hotpotqa_format",
    "hotpotqa_reflect",
    "reflect_system",
)
_TAGS = ("<prompt>", "</prompt>", "<search>", "</search>", "\\boxed{", "}")
_NOTES = (
    "Rows and columns count from 1 at the top left.",
    "of 1.",
    "the player moved from row",
    "the edge of the board is there, so nothing changed.",
    "the player fell from row",
    "the player reached the goal at row",
    ", pushing a box to row",
    "a wall is there, so nothing changed.",
    "the box at row",
    "has a wall behind it, so nothing changed.",
    "changed nothing.",
    "to row",
    "the player moved from",
    "the player fell from",
    "the player reached the goal at",
    ", pushing a box to",
    "the box at",
    "onto a goal.",
    "Every box is on a goal.",
    "As the boxes stand now, the puzzle can no longer be solved.",
    "The message could not be read:",
    "Nothing changed.",
    ", column",
    "floor,",
)

_ROLES = ("player", "box", "hole")
"""Words that nano names things by when it plays and when it reflects."""

_SPACING = (
    (r" (?=[,.;:?!)}])", ""),
    (r"(?<=[({]) ", ""),
    (r"(?<=\d), (?=\d{3}\b)", ","),
    (r" ?\n ?", "\n"),
    (r" (?=</search>|</prompt>)", ""),
    (r"(?<=<search>|<prompt>) ", ""),
    (r" ' (?=s\b)", "'"),
    (r" - ", "-"),
    (r"(?<=\A\"|[ \n]\") (?=[A-Z])", ""),
    (r" (?=\"(?: [^A-Z]|[^ \w]|\z))", ""),
    (r"(?<=\d\.) (?=\d)", ""),
    (r"(?<=O) ' (?=[A-Z])", "'"),
    (r" ' (?=t\b)", "'"),
    (r"(?<=[“\[]) ", ""),
    (r" (?=[”\]])", ""),
)
"""Pattern and replacement: where decoded text has no space between two tokens."""


def cells() -> list[str]:
    """A token for each cell that a board with coordinates can hold: symbol, row and column."""
    return [symbol + place for symbol in "ABCDEFGHabcdefghX√" for place in places()]


def places() -> list[str]:
    """A token for each row and column."""
    return [f"{row},{column}" for row in range(1, 7) for column in range(1, 7)]


def phrases() -> list[str]:
    """The constant parts of the prompts and of the games' feedback, of two words or more."""
    folder = Path(erl_envs.__file__).parent / "prompts"
    texts = [(folder / f"{name}.txt").read_text(encoding="utf-8") for name in _PROMPTS]
    texts += registry.env_class("frozenlake").outcomes.values()
    texts += registry.env_class("hotpotqa").outcomes.values()
    chunks = (chunk for text in texts for chunk in _constant(text))
    found = [chunk for chunk in chunks if len(chunk.split()) > 1]
    actions = [f"```{action}```" for action in DIRECTIONS]
    return list(dict.fromkeys([*found, *_NOTES, *_TAGS, *actions]))


def _constant(template: str) -> Iterator[str]:
    """What stands between a template's variables, newlines and tags."""
    for chunk in re.split(r"\{\{.*?\}\}|\{%.*?%\}|\{\w+\}|\n|</?\w+>|\\boxed\{\w+\}", template):
        if chunk.strip():
            yield chunk.strip()


def pairs() -> list[str]:
    """Two digits at the start of a number, and further on: numbers are said by twos.

    A digit stands beside another all over a page, so a number of single digits is hard to copy; a
    whole one is seen too rarely to be.
    """
    return [f"{prefix}{pair:02}" for prefix in ("", "##") for pair in range(100)]


def build(by_twos: bool = False) -> Any:
    """The tokenizer, always the same.

    Args:
        by_twos: Whether numbers are made of `pairs`: questions are answered with them.

    Returns:
        A transformers `PreTrainedTokenizerFast` with a chat template.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordPiece(_pieces(by_twos), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    # white space is dropped when encoding; decoding puts it where our texts have it
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            *(decoders.Replace(Regex(pattern), to) for pattern, to in _SPACING),
        ]
    )
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases() + cells()])
    # not in the midst of a number such as 1,210
    tokenizer.add_tokens([AddedToken(p, normalized=False, single_word=True) for p in places()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[4],
        unk_token=UNKNOWN,
        additional_special_tokens=list(SPECIAL[1:4]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def _pieces(by_twos: bool) -> dict[str, int]:
    """Word pieces and their ids: special tokens, characters, and what worlds' texts are made of.

    They were learnt once, from four worlds, by the tokenizers library's WordPieceTrainer; it breaks
    ties at random, so what it found is kept as a file.
    """
    text = (Path(__file__).parent / "pieces.txt").read_text(encoding="utf-8")
    pieces = [*text.removesuffix("\n").split("\n"), *_ROLES]
    if by_twos:
        pieces = [piece for piece in pieces if not re.fullmatch(r"\d{3,}", piece)] + pairs()
    return {piece.replace("\\n", "\n"): i for i, piece in enumerate(dict.fromkeys(pieces))}
