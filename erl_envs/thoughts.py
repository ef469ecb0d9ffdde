"""Where a model's thoughts end: what it thinks is not what it says.

A message is thoughts first and then what is said, and only the latter is read. Thoughts end where
the last of them is closed; one that is never closed, because the message was cut off, takes the
whole message, so that nothing is said. Everything is linear in the text and never raises.

A marker in prose is no thought:

- One between single backticks is a mention.
- An opening marker counts where it begins the message or a line, or follows another marker. Within
  a line it is a mention ("I could write <think> here"), unless its thought is closed and holds
  more than plain words on one line ("I think between <think> and </think>").
- A closing marker whose thought nothing opened ends one that the prompt opened, as many chat
  templates do: all that comes before it is thought.
"""

from __future__ import annotations

import re
from collections import deque

FORMS = (
    ("<think>", "</think>"),  # Qwen, DeepSeek, Phi, SmolLM, OLMo, GLM, Kimi, MiniMax, Nemotron
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # EXAONE
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Mistral
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ("◁think▷", "◁/think▷"),  # Kimi-VL
)
"""What opens and what closes a thought, in the families that mark it by a pair; case is ignored."""

HARMONY = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>")
"""The same of gpt-oss, which has a channel for each; nothing but `final` is said."""

_PAIR = {marker.lower(): form for form, pair in enumerate(FORMS) for marker in pair}
_OPENS = {opening.lower() for opening, _ in FORMS}
_ANY = "|".join(re.escape(marker) for pair in FORMS for marker in pair)
_MARKER = re.compile(rf"`(?<!``)(?:{_ANY})`(?!`)|({_ANY})", re.IGNORECASE | re.ASCII)
_SIGN = re.compile(f"[{re.escape(''.join(sorted({marker[0] for marker in _PAIR})))}]")
_PLAIN = re.compile(r"[^`\\<\n]*")  # words that no reader finds anything in

_CHANNEL = "<|channel|>"
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
# the same where a tokenizer left its special tokens out
_BARE_ANALYSIS, _BARE_FINAL = re.compile("analysis[A-Z]"), "assistantfinal"


def split_thoughts(text: str) -> tuple[str, str]:
    """A message's thoughts, markers with them, and what it says after them."""
    end = _end(text)
    return text[:end], text[end:]


def strip_thoughts(text: str) -> str:
    """What a message says after its thoughts; "" where they never end."""
    return text[_end(text) :]


def open_thought(prompt: str) -> str:
    """The end of a prompt from the marker of the thought that it leaves open; "" if it opens none.

    What a model writes after it then begins within that thought.
    """
    last = deque(filter(_is_marker, _MARKER.finditer(prompt)), maxlen=1)
    return prompt[last[0].start() :] if last and last[0][0].lower() in _OPENS else ""


def closing_of(opening: str) -> str:
    """The marker that closes the thought that a text opens, as `open_thought` gives it."""
    marker = _MARKER.match(opening)
    return FORMS[_PAIR[marker[0].lower()]][1] if marker else ""


def _is_marker(match: re.Match[str]) -> bool:
    return match[1] is not None


def _end(text: str) -> int:
    """Where what is said begins: the text's length if its last thought is not closed."""
    if _CHANNEL in text:
        final = _FINAL.match(text, text.rfind(_CHANNEL))
        return final.end() if final else len(text)
    if _BARE_ANALYSIS.match(text):
        end = text.rfind(_BARE_FINAL)
        return end + len(_BARE_FINAL) if end >= 0 else len(text)
    # most messages hold no marker at all
    return _end_of_pairs(text) if _SIGN.search(text) else 0


def _end_of_pairs(text: str) -> int:
    end = last = 0  # of the thoughts, and of the marker before
    inside = mentioned = -1  # the form of the thought that is open, and of an opening in prose
    for marker in filter(_is_marker, _MARKER.finditer(text)):
        word, gap = marker[0].lower(), text[last : marker.start()]
        form, last = _PAIR[word], marker.end()
        begins = not gap[gap.rfind("\n") + 1 :].strip()
        closes_mention = form == mentioned and _PLAIN.fullmatch(gap) is not None
        mentioned = -1
        if word in _OPENS:
            if not begins:
                mentioned = form
            elif inside < 0:
                inside = form
        elif inside in (form, -1) and not closes_mention:
            inside, end = -1, last
    return end if inside < 0 else len(text)
