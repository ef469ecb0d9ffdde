"""Chat messages → token ids, turn by turn, as a model's own chat template has them.

Where a template only appends, ids that were sampled stay as they are: they are never decoded and
encoded again. Where it changes what was there (it drops earlier thoughts, or ends an answer as no
model would), the whole prompt is told anew, and the conversation has one more stretch.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import jinja2

from erl_envs.core import Message
from erl_envs.policies.base import Conversation, Thoughts, without_thoughts
from erl_envs.thoughts import FORMS, HARMONY, closing_of, open_thought, split_thoughts

# Stand for messages while the template renders what is around them. Letters only, so that no
# template or tokenizer treats them as anything but text.
_SYSTEM = Message(role="system", content="ErlSystem")
_USER = Message(role="user", content="ErlUser")
_ANSWER = Message(role="assistant", content="ErlAssistantAnswer")
_THOUGHT = "ErlThought"

DATE = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
"""What a template is told that it is today: a seed's episodes must not change at midnight."""

_PARTS = "aAbBdHIjmMpSyYZ"
"""What of a date a template may write, as `strftime` names it."""

OURS = frozenset({"messages", "add_generation_prompt", "tools", "documents", "strftime_now"})
"""What a template is told that is not the user's to say."""


class ChatTokens:
    """A tokenizer's chat template, applied to growing conversations.

    Attributes:
        thoughts: What becomes of earlier turns' thoughts.
        options: What the template is told beside the messages.
        opening: What of a thought the generation prompt has opened; "" if it opens none.
        stop_ids: Ids that end a turn.
        end_of_turn: The one that the template itself writes after an answer, if it writes one.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop_ids: Sequence[int],
        name: str,
        thoughts: Thoughts | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Look at what the template does.

        Args:
            tokenizer: A transformers tokenizer.
            stop_ids: The model's own end-of-text ids.
            name: Of the model, for messages.
            thoughts: What becomes of earlier turns' thoughts; None for what the template does.
            options: What the template is told beside the messages (`enable_thinking`, …).

        Raises:
            ValueError: The tokenizer has no chat template, one that fails, or one that knows
                nothing of an option.
        """
        if not tokenizer.chat_template:
            raise ValueError(
                f"{name} has no chat template: it is no chat model, or save one beside its "
                "tokenizer as chat_template.jinja"
            )
        self.tokenizer = tokenizer
        self.options = dict(options)
        try:
            self._source = _pinned(tokenizer.get_chat_template())
            _check_options(self._source, options, name)
            self.takes_system = self._takes_system()
            self._study_answers()
            self._study_thoughts(thoughts)
        except jinja2.TemplateError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"the chat template of {name} fails: {reason}") from error
        self.stop_ids = tuple(dict.fromkeys([*stop_ids, *self.end_of_turn]))

    def tell(self, conversation: Conversation) -> None:
        """Append the ids of what the conversation was told since the policy last answered.

        Where the template does not only append to what is there, the whole prompt is told anew.
        """
        if not conversation.ids or self._only_appends(conversation):
            return conversation.tell(self.new_ids(conversation))
        whole, held = self._encode(self._render(conversation.messages)), len(conversation.ids)
        if whole[:held] != conversation.ids:
            conversation.restart()
            held = 0
        return conversation.tell(whole[held:])

    def new_ids(self, conversation: Conversation) -> list[int]:
        """The ids to append, of a template that only appends.

        At first that is the whole prompt; later the end of the answered turn (unless it was
        sampled), the new message, and the opening of the next answer.
        """
        if not conversation.ids:
            return self._encode(self._render(conversation.messages))
        ids = self._encode(self._after_answer(conversation.messages[-1]))
        last = conversation.ids[-1]
        if last not in self.stop_ids:
            return ids
        # where the template ends its last answer otherwise than earlier ones, one end is enough
        told_twice = [last, self._history_end] if last in self.end_of_turn else [last]
        return ids[1:] if ids and ids[0] in told_twice else ids

    def message(self, ids: Sequence[int]) -> str:
        """What a model wrote by these ids, without the end of its turn.

        It begins with the marker of a thought that the prompt had opened: nothing else would tell
        a reader that it begins within one.
        """
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return self.opening + text if ids else text

    def answer_ids(self, text: str) -> list[int]:
        """Ids by which a model would have written a message, with the end of its turn."""
        if split_thoughts(text)[0]:
            for opening in (self.opening, self.opening.strip()):
                if text.startswith(opening):
                    text = text.removeprefix(opening)
                    break
        else:
            text = self._before_answer + text
        return [*self._encode(text + self._before_end), *self.end_of_turn]

    def _only_appends(self, conversation: Conversation) -> bool:
        """Whether the next prompt begins with the conversation's ids, as they were sampled."""
        if self._appends and self.thoughts == "strip":
            return not split_thoughts(conversation.messages[-2]["content"])[0]
        return self._appends

    def _render(self, messages: Sequence[Message], generate: bool = True) -> str:
        """The template's text for messages, the history's thoughts kept or stripped."""
        told: list[Message] = list(messages)
        if not self.takes_system and told[0]["role"] == "system":
            joined = f"{told[0]['content']}\n\n{told[1]['content']}"
            told[:2] = [{"role": "user", "content": joined}]
        if self.thoughts == "strip":
            # a template that strips thoughts does so in its own way, but for one that is cut off
            pairs = zip(told, without_thoughts(told), strict=True)
            told = [t if self._strips and bare["content"] else bare for t, bare in pairs]
        return self._template(told, generate)

    def _template(self, messages: Sequence[Message], generate: bool = True) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages,
            chat_template=self._source,
            tokenize=False,
            add_generation_prompt=generate,
            **self.options,
        )
        return text

    def _encode(self, text: str) -> list[int]:
        # no tokenizer takes a lone surrogate, which a server's text may hold
        sound = text.encode(errors="replace").decode()
        # the template writes its own special tokens
        ids: list[int] = self.tokenizer.encode(sound, add_special_tokens=False)
        return ids

    def _after_answer(self, message: Message) -> str:
        return self._template([_USER, _ANSWER, message]).partition(_ANSWER["content"])[2]

    def _takes_system(self) -> bool:
        """Whether a system message comes first, and stays there as the conversation goes on.

        Some templates raise on one, some drop it, some move it to the last user message.
        """
        system, user = _SYSTEM["content"], _USER["content"]
        try:
            texts = [self._template([_SYSTEM, _USER, *more]) for more in ([], [_ANSWER, _USER])]
        except jinja2.TemplateError:
            return False
        return all(-1 < text.find(system) < text.find(user) for text in texts)

    def _study_answers(self) -> None:
        """Find out what the template writes before and after an answer."""
        user, answer = _USER["content"], _ANSWER["content"]
        prompt = self._template([_USER])
        self.opening = open_thought(prompt.rpartition(user)[2])
        before, _, after = self._template([_USER, _ANSWER], generate=False).partition(answer)
        self._before_answer = f"\n{closing_of(self.opening)}\n\n" if self.opening else ""
        if before.startswith(prompt):
            self._before_answer = before.removeprefix(prompt)
        next_turn = self._after_answer(_USER)
        self._before_end, self.end_of_turn = self._end(after) or self._end(next_turn) or ("", [])
        blank, ends = self._end(next_turn) or ("", [])
        self._history_end = ends[0] if ends and not blank else None
        # as `message` would tell it, from the thought that the prompt opened on
        opened = f"{self.opening}{_THOUGHT}{closing_of(self.opening)}{answer}"
        told = Message(role="assistant", content=opened if self.opening else answer)
        continued = self._template([_USER, told, _USER]).startswith(prompt)
        ends_alike = not self.end_of_turn or self._history_end in self.end_of_turn
        self._appends = continued and ends_alike

    def _end(self, text: str) -> tuple[str, list[int]] | None:
        """The special token that ends a turn, and the white space before it; None if none does."""
        ids = self._encode(text)
        # `all_special_ids` lacks those without a name, such as Gemma 3's <end_of_turn>
        added = self.tokenizer.added_tokens_decoder
        for place, token in enumerate(ids):
            blank: str = self.tokenizer.decode(ids[:place], skip_special_tokens=False)
            if blank.strip():
                return None
            if token in added and added[token].special:
                return blank, [token]
        return None

    def _study_thoughts(self, asked: Thoughts | None) -> None:
        """Find out what the template does with an earlier answer's thoughts."""
        forms = (HARMONY, *FORMS)
        known = [form for form in forms if any(marker in self._source for marker in form)]
        opening, closing = (known or FORMS)[0]
        answer = _ANSWER["content"]
        thinks = Message(role="assistant", content=f"{opening}{_THOUGHT}{closing}{answer}")
        try:
            text = self._template([_USER, thinks, _USER])
        except jinja2.TemplateError:  # gpt-oss's wants what is said alone
            text = ""
        keeps = _THOUGHT in text
        self._strips = answer in text and not keeps
        self.thoughts: Thoughts = asked or ("keep" if keeps else "strip")
        # a template that strips cannot say how thoughts are kept: as they were sampled
        self._appends = self._appends or (self.thoughts == "keep" and not keeps)


def _pinned(source: str) -> str:
    """A template to which it is always `DATE`: transformers' own `strftime_now` asks the clock.

    No function can be handed to a template, but one may define a macro, and a pinned date's parts
    are constants.
    """
    if "strftime_now" not in source:
        return source
    parts = "".join(f" | replace('%{sign}', '{DATE.strftime('%' + sign)}')" for sign in _PARTS)
    return f"{{% macro strftime_now(format) %}}{{{{ format{parts} }}}}{{% endmacro %}}\n{source}"


def _check_options(source: str, options: Mapping[str, Any], name: str) -> None:
    """See that a template knows of every option.

    Raises:
        ValueError: It does not mention one.
    """
    lexed = [token[1:] for token in jinja2.Environment().lex(source) if token[1] != "whitespace"]
    # a name behind a dot is a message's, not the template's
    names = {two[1] for one, two in pairwise(lexed) if two[0] == "name" and one[1] != "."}
    for option in options:
        if option in OURS or option not in names:
            raise ValueError(f"the chat template of {name} takes no {option!r}")
