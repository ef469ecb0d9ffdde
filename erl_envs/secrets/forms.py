"""One secret in all the ways that it is written: escaped, encoded, within other words."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html.entities import codepoint2name

_SPACE = r"(?:\s|\\+(?:[nrtfv]|u000[9a-dA-D]|x0[9a-dA-D])|%(?:25)*(?:0[9a-dA-D]|20)|\+)+"
_SLASHES, _AND = r"\\{1,8}", "&(?:amp;){0,4}"
"""How an escape begins, and one within others. Bounded: a hostile text may be nothing else."""

_LIKE = {"+": "-", "/": "_"}
"""What base64 for URLs writes instead."""


@dataclass(frozen=True)
class Form:
    """One way in which a secret is written.

    Attributes:
        core: A part of it that no escape changes: where it is not, the secret is not.
        pattern: Finds it, however its other characters are escaped.
        shown: What takes its place.
    """

    core: str
    pattern: re.Pattern[str]
    shown: str

    def hide(self, text: str) -> str:
        """The text without it."""
        return self.pattern.sub(self._instead, text) if self.core in text else text

    def _instead(self, found: re.Match[str]) -> str:
        return found[0][: _escape(found)] + self.shown


def _escape(found: re.Match[str]) -> int:
    """How many of its first characters belong to an escape that begins before it.

    They stay, so that what was JSON is JSON: where it writes a line break, the letter n is none.
    """
    text, at = found.string, found.start()
    begin = at
    while begin and text[begin - 1] == "\\":
        begin -= 1
    if (at - begin) % 2 == 0:
        return 0
    if re.match(r"u[0-9a-fA-F]{4}", text[at : at + 5]):
        return min(5, len(found[0]))
    return int(found[0][0] in "bfnrtu")


def plain(value: str, shown: str) -> Form:
    """A secret as it is, or with characters escaped for JSON, Python, HTML or a URL."""
    pieces = re.split(r"([ \t\n\r\f\v]+)", value)
    pattern = "".join(_SPACE if at % 2 else "".join(map(_any, p)) for at, p in enumerate(pieces))
    # what was hidden before is found as a whole: the secret may be a word of what hides it
    return Form(_core(value), re.compile(f"{re.escape(shown)}|{pattern}"), shown)


def encoded(value: str, shown: str) -> list[Form]:
    """A secret in base64, alone or within what was encoded together with it."""
    forms = []
    for before in range(3):
        raw = bytes(before) + value.encode("utf-8", "surrogateescape")
        # of the characters at both ends some bits are the neighbours'
        whole = base64.b64encode(raw).decode()[-(-8 * before // 6) : 8 * len(raw) // 6]
        pattern = "".join(f"(?:{_any(c)}|{_LIKE[c]})" if c in _LIKE else c for c in whole)
        ends = rf"[\w+/-]{{0,{min(before, 1)}}}{pattern}[\w+/-]?(?:=|%3[dD]){{0,2}}"
        forms.append(Form(_core(whole), re.compile(ends, re.ASCII), shown))
    return forms


def _core(value: str) -> str:
    return max(re.findall(r"[A-Za-z0-9]+", value), key=len, default="")


def _any(character: str) -> str:
    """A pattern of a character that is no white space, and of its escapes."""
    if re.match(r"[A-Za-z0-9]", character):
        return character
    number = ord(character)
    utf_8 = character.encode("utf-8", "surrogatepass")
    utf_16 = character.encode("utf-16-be", "surrogatepass").hex()
    units = [utf_16[at : at + 4] for at in range(0, len(utf_16), 4)]
    ways = [
        "".join(rf"{_SLASHES}u{_hex(unit)}" for unit in units),
        "".join(rf"{_SLASHES}x{_hex(f'{byte:02x}')}" for byte in utf_8),
        "".join(f"%(?:25){{0,4}}{_hex(f'{byte:02x}')}" for byte in utf_8),
        f"{_AND}#0{{0,6}}{number};",
        f"{_AND}#[xX]0{{0,6}}{_hex(f'{number:x}')};",
    ]
    if number in codepoint2name:
        ways.append(f"{_AND}{codepoint2name[number]};")
    if number < 32:
        ways.append(rf"{_SLASHES}[abfnrtv0]")
    if character == "'":
        ways.append(f"{_AND}apos;")
    ways.append(rf"{_SLASHES}(?:x|U00)0{{0,6}}{_hex(f'{number:x}')}")
    # pairs of backslashes only: one that is left over escapes what comes next
    ways.append(r"(?:\\\\){1,4}|\\" if character == "\\" else rf"\\{{0,8}}{re.escape(character)}")
    return f"(?:{'|'.join(ways)})"


def _hex(digits: str) -> str:
    return "".join(d if d.isdigit() else f"[{d.lower()}{d.upper()}]" for d in digits)
