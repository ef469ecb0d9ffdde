"""A thought is no act: for every family's markers, in every environment, and for rulebooks."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import erl_envs
from erl_envs.core import Message, Step, TextEnv
from erl_envs.parsing import boxed, fenced_action, prompt_tag, search_tag
from erl_envs.reflection import NOTHING_SAID, read_rulebook, transcript
from erl_envs.thoughts import FORMS, HARMONY, open_thought, split_thoughts, strip_thoughts

F = "`" * 3
LAKE = {"desc": ["SFG", "HFF"]}
ROOM = {"layout": ["#####", "#@$.#", "#   #", "#####"]}
QUESTION = {
    "question": "Capital of France?",
    "answer": "Paris",
    "context": [["France", ["Its capital is Paris."]]],
}


def play(env: str, task: dict[str, Any], message: str) -> Any:
    played = erl_envs.make(env)
    played.reset(options={"task": task})
    return played.step(message)


@pytest.mark.parametrize(
    ("env", "task", "message", "action"),
    [
        ("frozenlake", LAKE, f"<think>{F}Down{F} is a hole.</think>{F}Right{F}", "Right"),
        ("frozenlake", LAKE, f"<think>use {F} around it</think>\n{F}Right{F}", "Right"),
        (
            "hotpotqa",
            QUESTION,
            r"<think>I would guess \boxed{London}.</think><search>capital of France</search>",
            "search 5: capital of France",
        ),
        ("frozenlake", LAKE, f"<think>Could I play {F}Down{F}? That cell is", None),
        (
            "hotpotqa",
            QUESTION,
            r"<think>It must look like \boxed{answer}. First I need to",
            None,
        ),
    ],
)
def test_the_five_plays(env: str, task: Any, message: str, action: str | None) -> None:
    _, reward, terminated, truncated, info = play(env, task, message)
    assert info["action"] == action
    assert (reward, terminated, truncated) == (0.0, False, False)


class Says(NamedTuple):
    """How an environment's message looks: an act that is weighed, the one that is chosen."""

    env: str
    task: dict[str, Any]
    weighed: str
    chosen: str
    action: str


ENVS = [
    Says("frozenlake", LAKE, f"{F}Down{F}", f"{F}Right{F}", "Right"),
    Says("sokoban", ROOM, f"{F}Left{F}", f"{F}Right{F}", "Right"),
    Says("hotpotqa", QUESTION, r"\boxed{London}", "<search>France</search>", "search 5: France"),
    Says("hotpotqa", QUESTION, "<search>x</search>", r"\boxed{Paris}", "answer: Paris"),
]
PAIRS = [*FORMS, HARMONY]


@pytest.mark.parametrize("says", ENVS, ids=lambda s: f"{s.env} {s.action.split()[0]}")
@pytest.mark.parametrize("form", PAIRS, ids=lambda form: form[0])
def test_an_act_is_read_after_the_thoughts_alone(form: tuple[str, str], says: Says) -> None:
    opening, closing = form
    thought = f"Could it be {says.weighed}? An odd {F} and {{, too."
    read = {
        f"{opening}{thought}{closing}{says.chosen}": says.action,
        f" \n{opening}\n{thought}\n{closing}\n\nSo {says.chosen}": says.action,
        f"{opening.upper()}{thought}{closing.upper()}{says.chosen}": says.action,
        f"{opening}{closing}{says.chosen}": says.action,
        # the prompt opened the thought: it is only closed here
        f"{thought}{closing}{says.chosen}": says.action,
        # thoughts again, after words
        f"{opening}{thought}{closing}I see.\n{opening}{thought}{closing}{says.chosen}": says.action,
        # cut off: nothing is said
        f"{opening}{thought} {says.chosen}": None,
        f"{opening}{thought}{closing}": None,
        f"{opening}{thought}{closing}Hm.\n{opening}{thought} {says.chosen}": None,
    }
    if form == HARMONY:  # its markers are tokens, which have one spelling, and open every message
        read = {text: action for text, action in read.items() if opening in text}
    for text, action in read.items():
        info = play(says.env, says.task, text)[4]
        assert info["action"] == action, text
        if action is None:
            assert info["note"] == (
                "The message could not be read: it says nothing after its thoughts. "
                "Nothing changed."
            )


@pytest.mark.parametrize("form", PAIRS, ids=lambda form: form[0])
def test_a_rulebook_is_read_after_the_thoughts_alone(form: tuple[str, str]) -> None:
    opening, closing = form
    draft, final = "<prompt>A draft.</prompt>", "<prompt>A is you.</prompt>"
    assert read_rulebook(f"{opening}First {draft}{closing}{final}") == "A is you."
    assert read_rulebook(f"{opening}First {draft} then") is None
    assert read_rulebook(f"{opening}An open <prompt>{closing}{final}") == "A is you."
    assert read_rulebook(f"{opening}{draft}{closing}No more.") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # a marker in prose is no thought
        (f"I will <think> about it: {F}Up{F}", f"I will <think> about it: {F}Up{F}"),
        ("I think between <think> and </think>, always.", None),
        ("<prompt>Think in <think>…</think>, then act.</prompt>", None),
        ("It goes into `<think>`\n`</think>` tags", None),
        ("a\n`<think>` b", None),
        ("2 <thinking of you> [THINKING] </p>", None),
        # but one that holds more than plain words is
        (f"Okay. <think>{F}Down{F}?</think>{F}Up{F}", f"{F}Up{F}"),
        (r"Hm <think>\boxed{A}?</think> B", " B"),
        # a mention within a thought neither opens nor closes
        (f"<think>I use <think> and </think>. {F}Down{F}", ""),
        ("<think>I use <think> and </think>.</think>Up", "Up"),
        ("<think>I write `</think>` at its end. Down", ""),
        # other families' markers neither
        ("<think>in <reasoning>a b</reasoning> Down", ""),
        ("<think>in\n<reasoning>a</reasoning> Down</think>Up", "Up"),
        # twice opened, once closed: the prompt opened it, and the model did again
        ("<think>\n<think>\nDown</think>Up", "Up"),
        ("<think><think>Down</think>Up", "Up"),
        ("<think>a</think><think>b", ""),
        ("<think>I must close with </think> and Down</think>Up", "Up"),
        # an empty thought, as some models write where they do not think
        ("<think>\n\n</think>\n\nUp", "\n\nUp"),
        # gpt-oss: nothing but the last channel, if it is the final one
        ("<|channel|>final<|message|>Up", "Up"),
        ("<|channel|>final <|constrain|>json<|message|>Up", "Up"),
        ("<|channel|>commentary<|message|>Up", ""),
        ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}", ""),
        ("<|channel|>analysis<|message|>a </think> Down<|end|>", ""),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>fin", ""),
        ("<|channel|>final<|message|>Up<|end|><|start|>assistant<|channel|>analysis", ""),
        # gpt-oss decoded without its special tokens
        ("analysisWe need Downassistantfinal\nUp", "\nUp"),
        ("analysisWe need Down", ""),
        ("analysis of the board: Up", None),
        ("", ""),
        ("no marker at all", None),
    ],
)
def test_what_is_said(text: str, said: str | None) -> None:
    said = text if said is None else said
    assert strip_thoughts(text) == said
    assert split_thoughts(text) == (text.removesuffix(said), said)


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n", ""),
        ("<|Assistant|><think>\n", "<think>\n"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("<turn>model\n<|channel>thought\n<channel|>", ""),
        ("[/INST][THINK]", "[THINK]"),
        ("", ""),
    ],
)
def test_a_prompt_that_ends_within_a_thought(prompt: str, opened: str) -> None:
    assert open_thought(prompt) == opened


MARKERS = st.sampled_from([*(m for pair in PAIRS for m in pair), "`", F, "\n", " ", "and", "Up"])


@given(st.lists(MARKERS, max_size=30).map("".join))
def test_any_mixture_of_markers_is_read(text: str) -> None:
    thoughts, said = split_thoughts(text)
    assert thoughts + said == text
    assert split_thoughts(said)[1] == said or "<|channel|>" in text or text.startswith("analysis")
    for reader in (boxed, search_tag, prompt_tag):
        reader(text)
    fenced_action(text, ("Up", "Down"))


@pytest.mark.parametrize(
    "text",
    [
        *(marker * (1_000_000 // len(marker)) for marker in ("<think>", "</think>", "x<think>")),
        "<think> and </think>" * 50_000,
        "<think>" + f"{F}Up{F}" * 100_000,
        "<think>a</think>" * 60_000 + f"{F}Up{F}",
        "x <think>" + " " * 1_000_000 + "</think>",
        "\n<think>" * 120_000,
        "`<think>`" * 110_000,
        "<|channel|>" * 90_000,
        "<|channel|>final" + " " * 1_000_000,
        "analysisW" + "assistantfinal" * 70_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_megabyte_of_thoughts_is_read(text: str) -> None:
    for reader in (boxed, search_tag, prompt_tag):
        reader(text)
    found, _ = fenced_action(text, ("Up", "Down"))
    assert found == ("Up" if text.endswith(f"</think>{F}Up{F}") else None)


class Spoken(TextEnv):
    """Reads its messages itself, by no reader of ours."""

    name = "spoken"

    def sample_task(self, rng: Any) -> dict[str, Any]:
        return {}

    def begin(self, params: Any) -> None:
        """It has no state."""

    def observe(self) -> str:
        return "Say a word."

    def parse(self, text: str) -> tuple[str | None, str]:
        return (text.strip() or None), "it holds no word"

    def act(self, action: str) -> Step:
        return Step(f"{action}.")


def test_an_environment_that_reads_for_itself_sees_no_thoughts() -> None:
    env = Spoken()
    env.reset(seed=0)
    assert env.step("<think>no</think> yes")[4]["action"] == "yes"
    assert env.step("<think>no")[4]["note"].startswith("The message could not be read: it says")
    assert "it holds no word" in env.step(" ")[4]["note"]


def test_a_transcript_shows_what_was_said() -> None:
    messages: list[Message] = [
        {"role": "user", "content": "<think>a board"},
        {"role": "assistant", "content": "<think>Down?</think>\n\nUp"},
        {"role": "user", "content": "a board"},
        {"role": "assistant", "content": "<think>Down"},
        {"role": "user", "content": "the end"},
        {"role": "assistant", "content": " Up\n"},
    ]
    assert transcript(messages) == (
        "Observation:\n<think>a board\n\nPlayer:\nUp\n\nObservation:\na board\n\n"
        f"Player:\n{NOTHING_SAID}\n\nObservation:\nthe end\n\nPlayer:\n Up\n"
    )


@pytest.mark.parametrize("first", ["Up", "Right"])
def test_two_actions_that_are_weighed_in_fences_are_none(first: str) -> None:
    """As the prompt says: neither the first nor the last of them is taken for the choice."""
    second = {"Up": "Right", "Right": "Up"}[first]
    weighed = f"{F}{first}{F} would do nothing, {F}{second}{F} brings me closer."
    for text in (weighed, f"{weighed} So {F}Right{F}", f"{weighed}\n\n{F}{first}{F}"):
        _, _, _, _, info = play("frozenlake", LAKE, text)
        assert info["action"] is None
        assert "more than one action in triple backticks" in info["note"]
    chosen = f"{first} would do nothing, {second} brings me closer: {F}Right{F}, yes, {F}Right{F}"
    assert play("frozenlake", LAKE, chosen)[4]["action"] == "Right"
    told = erl_envs.make("frozenlake").system_prompt
    assert "a message with two different actions between them is not read" in told


def test_of_two_searches_the_last_is_made_and_an_answer_goes_before_both() -> None:
    two = "<search>first</search> or <search>second</search>"
    assert play("hotpotqa", QUESTION, two)[4]["action"] == "search 5: second"
    assert play("hotpotqa", QUESTION, rf"\boxed{{Paris}} {two}")[4]["action"] == "answer: Paris"
    told = erl_envs.make("hotpotqa").system_prompt
    assert "only the last is made, and an answer goes before them all" in told
