r"""An answer without the LaTeX and Markdown around it: `\text{Paris}` is Paris.

The metric (`erl_envs.qa_metrics`) leaves out punctuation, and so `$Paris$` and `**Paris**` are
right as they stand; of `\text{Paris}` it would keep the letters of the command.
"""

from __future__ import annotations

import re

WRAPPERS = (
    *("text", "textbf", "textit", "textmd", "textnormal", "textrm", "textsc", "textsf", "textsl"),
    *("texttt", "textup", "emph", "underline", "uline"),
    *("mathbb", "mathbf", "mathcal", "mathfrak", "mathit", "mathnormal", "mathrm", "mathscr"),
    *("mathsf", "mathtt", "bm", "boldsymbol", "operatorname", "ensuremath"),
    *("boxed", "fbox", "framebox", "hbox", "mbox"),
)
r"""Commands that show what they hold in some other way: `\text{…}`."""

LABELLED = ("color", "colorbox", "href", "textcolor")
r"""Commands that hold a name before it: `\textcolor{red}{…}`."""

SWITCHES = (
    *("left", "right", "big", "Big", "bigg", "Bigg"),
    *("bf", "it", "rm", "sc", "sf", "sl", "tt", "bfseries", "itshape", "normalfont"),
    *("large", "Large", "small", "displaystyle", "textstyle"),
)
r"""Commands that hold nothing: `{\bf …}`, `\left(…\right)`."""

TAGS = ("b", "code", "em", "i", "mark", "strong", "sub", "sup", "u")
"""HTML that Markdown takes: `<b>…</b>`."""

SPACES = ("quad", "qquad", "space", "enspace", "thinspace", "newline")


def _command(names: tuple[str, ...]) -> str:
    # some models escape the backslash, as if they wrote JSON
    return rf"(?:(?<!\\)\\)?\\(?:{'|'.join(names)})(?![A-Za-z])"


_LABELLED = re.compile(rf"{_command(LABELLED)}\s*\{{[^{{}}]*\}}(?=\s*\{{)")
_WRAPPER = re.compile(rf"{_command(WRAPPERS)}\*?(?=\s*\{{)")
_SWITCH = re.compile(rf"{_command(SWITCHES)}\s*")
_SPACE = re.compile(rf"{_command(SPACES)}|\\[,;: ]|\\\\")
_LINK = re.compile(r"\[([^\[\]]*)\]\([^()\s]*\)")
_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>")


def unwrap(answer: str) -> str:
    """An answer as it would be shown; one without markup as it is.

    Every step is linear in the text, and what it returns is on one line.
    """
    shown = _TAG.sub("", _LINK.sub(r"\1", answer))
    plain = _SWITCH.sub("", _WRAPPER.sub("", _LABELLED.sub("", shown)))
    plain = _SPACE.sub(" ", plain).replace("\\!", "")
    if plain != shown:  # it is LaTeX: braces only group, and a tie is a space
        plain = re.sub(r"\\([#$%&_])", r"\1", plain).replace("~", " ")
        plain = plain.replace("{", "").replace("}", "")
    return " ".join(plain.split())
