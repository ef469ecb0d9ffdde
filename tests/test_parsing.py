"""What a message means: a table, and that no text breaks a reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erl_envs.parsing import fenced_action, prompt_tag

ACTIONS = ("Up", "Down", "Left", "Right")


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("```Up```", "Up"),
        ("I go up. ``` up\n```", "Up"),
        ("```text\nLeft\n```", "Left"),
        ("```\nRIGHT\n```", "Right"),
        ("```Text\nLeft\n```", "Left"),
        ("```Python\nLeft\n```", "Left"),
        ("```python3 \nLeft```", "Left"),
        ("```c++\n\n  Left\n```", "Left"),
        ("```\r\nLeft\r\n```", "Left"),
        ("```text\r\nLEFT\r\n```", "Left"),
        ("```Text \t\r\n\r\nleft\r\n```", "Left"),
        ("Down first. ```Down``` and again ```down```", "Down"),
        ("the board\n```\nA D\n```\nso ```Up```", "Up"),
        ("````Up````", "Up"),
        ("no backticks, Up", None),
        ("`Up`", None),
        ("```Up", None),
        ("Up```", None),
        ("```Up Down```", None),
        ("```Up``` or ```Down```", None),
        ("```Up\nDown```", None),
        ("```up\r\ndown```", None),
        ("```Up\nUp```", None),
        ("```text Up```", None),
        ("```a plan\nUp```", None),
        ("```Go up```", None),
        ("```board ```Up```", None),
        ("``````", None),
        ("", None),
    ],
)
def test_fenced_action(text: str, action: str | None) -> None:
    found, problem = fenced_action(text, ACTIONS)
    assert found == action
    assert bool(problem) == (action is None)


def test_the_problem_is_told() -> None:
    assert fenced_action("Up", ACTIONS)[1] == (
        "it gives none of ```Up```, ```Down```, ```Left```, ```Right```"
    )
    assert "more than one" in fenced_action("```Up``` ```Left```", ACTIONS)[1]
    assert "not closed" in fenced_action("```Up", ACTIONS)[1]
    assert "it gives none of ```Up```" in fenced_action("```Jump```", ACTIONS)[1]


@given(st.text(alphabet=st.sampled_from("`Up \nDownx<>promt/"), max_size=200))
def test_an_action_is_only_read_from_a_fence_that_holds_it_alone(text: str) -> None:
    action, problem = fenced_action(text, ACTIONS)
    assert (action is None) == bool(problem)
    if action is not None:
        assert "```" in text and action.lower() in text.lower()


@given(st.text())
def test_no_text_breaks_a_reader(text: str) -> None:
    fenced_action(text, ACTIONS)
    prompt_tag(text)


@pytest.mark.parametrize(
    "text", ["```" * 300_000, "`" * 1_000_000, "```Up" * 200_000, "<prompt>" * 120_000]
)
def test_a_megabyte_is_read(text: str) -> None:
    fenced_action(text, ACTIONS)
    prompt_tag(text)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("<prompt>A is you.</prompt>", "A is you."),
        ("I put it in <prompt> tags:\n<prompt>\nA is you.\n</prompt> done", "A is you."),
        ("<prompt>first</prompt> then <prompt>last</prompt>", "last"),
        ("<prompt>open", None),
        ("closed</prompt>", None),
        ("</prompt><prompt>", None),
        ("<prompt> \n</prompt>", None),
        # tags that are only spoken of
        ("<prompt>B is.</prompt> I put it between <prompt> and </prompt>.", "B is."),
        ("<prompt>B is.</prompt> I put it between `<prompt>` and `</prompt>`.", "B is."),
        ("I put it between <prompt> and </prompt>: <prompt>B is.</prompt>", "B is."),
        ("<prompt>B is.</prompt> as <prompt>…</prompt> or <prompt>...</prompt>", "B is."),
        ("<prompt>B is.</prompt> The tags were <prompt></prompt>.", "B is."),
        ("<prompt>and</prompt>", "and"),
        ("<prompt>B is.</prompt> I opened with <prompt>.", "B is."),
        (
            "<prompt>Answer between <prompt> and </prompt> next time.</prompt>",
            "Answer between <prompt> and </prompt> next time.",
        ),
        ("I would put it between <prompt> and </prompt>.", None),
        ("<prompt>and so on</prompt>", "and so on"),
        ("nothing", None),
    ],
)
def test_prompt_tag(text: str, prompt: str | None) -> None:
    assert prompt_tag(text) == prompt
