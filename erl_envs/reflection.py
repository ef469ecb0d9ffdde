"""Attempt + feedback (+ memory) → rulebook → the second attempt's system prompt (PAPER: Alg. 2).

Used by two-attempt evaluation and by the trainer alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from erl_envs import parsing, prompting
from erl_envs.core import Attempt, Message, TextEnv
from erl_envs.thoughts import split_thoughts

MAX_MESSAGE = 4_000
"""Characters of one message of the attempt that the reflector is shown; the middle goes first."""

NOTHING_SAID = "[only thoughts, and nothing after them]"
"""What the reflector is shown in the place of a message that ended within its thoughts."""

MAX_RULEBOOK = 8_000
"""Characters of a rulebook; what is longer is cut off at the end."""


def reflection_messages(env: TextEnv, attempt: Attempt, memory: str | None = None) -> list[Message]:
    """What the reflector is asked.

    Args:
        env: The attempted environment, for its prompts.
        attempt: The attempt, with its feedback.
        memory: A rulebook that helped before, if there is one.

    Returns:
        A system and a user message.
    """
    user = prompting.render(
        f"{env.prompts}_reflect",
        prompt=shorten(attempt.messages[0]["content"]),
        transcript=transcript(attempt.messages[1:]),
        feedback=attempt.feedback,
        memory=memory or "",
    )
    system = prompting.render("reflect_system")
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def transcript(messages: Sequence[Message]) -> str:
    """An attempt's messages as one text, without the player's thoughts.

    Thoughts are long, and their markers would be the reader's own: some are what a model's prompt
    is built of.
    """
    names = {"user": "Observation", "assistant": "Player"}
    return "\n\n".join(f"{names[m['role']]}:\n{shorten(_shown(m))}" for m in messages)


def _shown(message: Message) -> str:
    if message["role"] != "assistant":
        return message["content"]
    thoughts, said = split_thoughts(message["content"])
    return (said.strip() or NOTHING_SAID) if thoughts else said


def shorten(text: str, limit: int = MAX_MESSAGE) -> str:
    """The text, its middle left out if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    left_out = len(text) - limit
    return f"{text[: limit // 2]}\n[{left_out} characters left out]\n{text[-(limit // 2) :]}"


def read_rulebook(text: str) -> str | None:
    """The rulebook in a reflector's message, None if it has none between the tags."""
    rulebook = parsing.prompt_tag(text)
    return rulebook and rulebook[:MAX_RULEBOOK]


def second_prompt(env: TextEnv, rulebook: str | None, memory: str | None = None) -> str:
    """Attempt 2's system prompt: the rulebook and the format reminder.

    Without a rulebook the memory's is taken, and without that the initial prompt.
    """
    told = rulebook or memory
    return f"{told}\n\n{env.format_reminder}" if told else env.system_prompt


def retry_prompt(env: TextEnv, attempt: Attempt) -> str:
    """Attempt 2's system prompt where nobody reflects: the first attempt itself.

    The paper's no-reflection ablation.
    """
    return prompting.render(
        "retry",
        prompt=attempt.messages[0]["content"],
        transcript=transcript(attempt.messages[1:]),
        feedback=attempt.feedback,
    )
