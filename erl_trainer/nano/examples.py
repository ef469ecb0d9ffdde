"""A training example of the corpus: a conversation's token ids, and which of them to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from erl_envs.core import Message

LEARN, SHOWN, GIVEN = 2, 1, 0
"""What a token is: one to be said, one of the world's answers, or one that nobody could predict."""


class Example(NamedTuple):
    """Token ids of a conversation, and for each what it is to be learnt as."""

    ids: list[int]
    kinds: list[int]


class Part(NamedTuple):
    """A piece of a conversation's text."""

    text: str
    kind: int


def said(*parts: Part) -> list[Part]:
    """An assistant's message of these parts."""
    return [Part("<|assistant|>", GIVEN), *parts, Part("<|end|>", LEARN)]


def told(message: Message, kind: int = GIVEN) -> list[Part]:
    """A system or user message."""
    return [Part(f"<|{message['role']}|>", GIVEN), Part(message["content"], kind)]


def encode(tokenizer: Any, conversations: Sequence[Sequence[Part]]) -> list[Example]:
    """Encode conversations; parts meet at special tokens or white space, where no piece spans."""
    texts = list({part.text: None for parts in conversations for part in parts})
    pieces = dict(zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True))
    examples = []
    for parts in conversations:
        ids: list[int] = []
        kinds: list[int] = []
        for part in parts:
            piece = pieces[part.text]
            ids += piece
            kinds += [part.kind] * len(piece)
        examples.append(Example(ids, kinds))
    return examples
