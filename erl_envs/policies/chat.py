"""Chat messages → token ids, turn by turn: sampled ids are never decoded and encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from erl_envs.core import Message
from erl_envs.policies.base import Conversation

# Stands for an assistant's message while the template renders what comes after it. Letters only,
# so that no template or tokenizer treats it as anything but text.
_ANSWER = "ErlAssistantAnswer"


class ChatTokens:
    """A tokenizer's chat template, applied to growing conversations.

    Attributes:
        stop_ids: Ids that end a turn.
        end_of_turn: The one that the template itself writes after an answer, if it writes one.
    """

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int], name: str) -> None:
        """Check the template.

        Args:
            tokenizer: A transformers tokenizer.
            stop_ids: The model's own end-of-text ids.
            name: Of the model, for messages.

        Raises:
            ValueError: The tokenizer has no chat template, or one that fails.
        """
        if not tokenizer.chat_template:
            raise ValueError(
                f"{name} has no chat template: it is no chat model, or save one beside its "
                "tokenizer as chat_template.jinja"
            )
        self.tokenizer = tokenizer
        self.takes_system = self._takes_system()
        try:
            self.end_of_turn = self._end_of_turn()
        except TemplateError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"the chat template of {name} fails: {reason}") from error
        self.stop_ids = tuple(dict.fromkeys([*stop_ids, *self.end_of_turn]))

    def new_ids(self, conversation: Conversation) -> list[int]:
        """Ids of what the conversation was told since the policy last answered.

        At first that is the whole prompt; later the end of the answered turn (unless it was
        sampled), the new message, and the opening of the next answer.
        """
        if not conversation.ids:
            return self._encode(self._render(conversation.messages))
        ids = self._encode(self._after_answer(conversation.messages[-1]))
        sampled_end = conversation.ids[-1] if conversation.ids[-1] in self.stop_ids else None
        return ids[1:] if ids and ids[0] == sampled_end else ids

    def _render(self, messages: Sequence[Message], generate: bool = True) -> str:
        told: list[Message] = list(messages)
        if not self.takes_system and told[0]["role"] == "system":
            joined = f"{told[0]['content']}\n\n{told[1]['content']}"
            told[:2] = [{"role": "user", "content": joined}]
        text: str = self.tokenizer.apply_chat_template(
            told, tokenize=False, add_generation_prompt=generate
        )
        return text

    def _encode(self, text: str) -> list[int]:
        # no tokenizer takes a lone surrogate, which a server's text may hold
        sound = text.encode(errors="replace").decode()
        # the template writes its own special tokens
        ids: list[int] = self.tokenizer.encode(sound, add_special_tokens=False)
        return ids

    def _after_answer(self, message: Message) -> str:
        before: list[Message] = [
            {"role": "user", "content": "-"},
            {"role": "assistant", "content": _ANSWER},
        ]
        return self._render([*before, message]).partition(_ANSWER)[2]

    def _takes_system(self) -> bool:
        probe: list[Message] = [
            {"role": "system", "content": _ANSWER},
            {"role": "user", "content": "-"},
        ]
        self.takes_system = True
        try:
            return _ANSWER in self._render(probe)
        except TemplateError:  # some templates raise on a system role
            return False

    def _end_of_turn(self) -> list[int]:
        """The special token that the template writes right after an answer, if it writes one."""
        ids = self._encode(self._after_answer({"role": "user", "content": "-"}))
        # `all_special_ids` lacks those without a name, such as Gemma 3's <end_of_turn>
        added = self.tokenizer.added_tokens_decoder
        return ids[:1] if ids and ids[0] in added and added[ids[0]].special else []
