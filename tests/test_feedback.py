"""Feedback is true: held against a second, independent account of what happened."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import erl_envs
from erl_envs.core import LEVELS, TextEnv
from erl_envs.registry import env_class

MESSAGES = st.lists(
    st.sampled_from(
        ["```Up```", "```Down```", "```Left```", "```Right```", "hm", "```Up``` ```Down```"]
    ),
    min_size=1,
    max_size=8,
)
GAMES = st.sampled_from(["frozenlake", "sokoban"])


def board(observation: str) -> list[list[str]]:
    """The cells of an observation; notices hold no tabs."""
    return [
        [cell.strip() for cell in line.split("\t") if cell]
        for line in observation.split("\n")
        if "\t" in line
    ]


def find(cells: list[list[str]], symbols: str) -> list[tuple[int, int]]:
    return [
        (r + 1, c + 1)
        for r, row in enumerate(cells)
        for c, cell in enumerate(row)
        if cell in symbols
    ]


def play(env: TextEnv, seed: int, messages: list[str]) -> tuple[list[str], list[Any]]:
    """Observations, then steps; the last message is repeated until the attempt ends."""
    observation, _ = env.reset(seed=seed)
    observations, steps = [observation], []
    for turn in range(env.max_turns):
        step = env.step(messages[min(turn, len(messages) - 1)])
        observations.append(step[0])
        steps.append(step)
        if step[2] or step[3]:
            break
    return observations, steps


@settings(max_examples=300, deadline=None)
@given(GAMES, st.integers(0, 500), MESSAGES, st.sampled_from(LEVELS[1:]))
def test_the_outcome_is_what_the_last_board_shows(
    name: str, seed: int, messages: list[str], level: Any
) -> None:
    env = erl_envs.make(name, feedback=level)
    observations, steps = play(env, seed, messages)
    last, feedback = board(observations[-1]), env.feedback()
    reward = sum(step[1] for step in steps)
    if name == "frozenlake":
        won, fell = bool(find(last, "√")), bool(find(last, "X"))
    else:
        won, fell = not find(last, "B"), False
    assert feedback.outcome == ("solved" if won else "lost" if fell else "out_of_turns")
    assert reward == float(won)
    assert ("The objective was reached on" in feedback.text) == won
    assert ("was lost on turn" in feedback.text) == fell
    assert ("turns were used and the objective was not" in feedback.text) == (not won and not fell)
    assert f"Reward: {reward:g} of 1." in feedback.text
    if won or fell:
        assert f"on turn {len(steps)} of 8" in feedback.text


@settings(max_examples=300, deadline=None)
@given(GAMES, st.integers(0, 500), MESSAGES)
def test_every_note_is_what_two_boards_show(name: str, seed: int, messages: list[str]) -> None:
    env = erl_envs.make(name, feedback="transitions")
    observations, steps = play(env, seed, messages)
    told = [line for line in env.feedback().text.split("\n") if line.startswith("Turn ")]
    assert [f"Turn {n}: {step[4]['note']}" for n, step in enumerate(steps, 1)] == told
    player = "Aa" if name == "sokoban" else "AX√"
    for before, after, step in zip(observations, observations[1:], steps, strict=False):
        note, info = step[4]["note"], step[4]
        same = board(before) == board(after)
        assert same == (not info["changed"]) == ("nothing changed" in note.lower())
        assert ("could not be read" in note) == (info["action"] is None)
        if same:
            continue
        (start,), (end,) = find(board(before), player), find(board(after), player)
        moved = {(-1, 0): "Up", (1, 0): "Down", (0, -1): "Left", (0, 1): "Right"}
        assert note.startswith(moved[end[0] - start[0], end[1] - start[1]] + ":")
        assert f"row {end[0]}, column {end[1]}" in note
        assert f"from row {start[0]}, column {start[1]}" in note or "reached the goal" in note
        boxes_before, boxes_after = find(board(before), "Bb"), find(board(after), "Bb")
        if name == "sokoban":
            assert ("pushing a box" in note) == (boxes_before != boxes_after)
            pushed = sorted(set(boxes_after) - set(boxes_before))
            assert all(f"to row {r}, column {c}" in note for r, c in pushed)
            assert ("onto a goal" in note) == (
                bool(pushed) and set(pushed) <= set(find(board(after), "b"))
            )
        else:
            assert ("into the hole at" in note) == bool(find(board(after), "X"))
            assert ("reached the goal" in note) == bool(find(board(after), "√"))


@settings(max_examples=200, deadline=None)
@given(GAMES, st.integers(0, 500), MESSAGES, st.sampled_from(["score", "outcome"]))
def test_below_transitions_nothing_is_named(
    name: str, seed: int, messages: list[str], level: Any
) -> None:
    env = erl_envs.make(name, feedback=level)
    play(env, seed, messages)
    text = env.feedback().text.lower()
    assert not re.search(r"\b(hole|goal|box|wall|ice|player|row|column|symbol)", text)
    assert not any(f" {symbol} " in f" {text} " for symbol in env_class(name).opaque.values())  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None)
@given(GAMES, st.integers(0, 500))
def test_the_told_solution_solves(name: str, seed: int) -> None:
    env = erl_envs.make(name, feedback="solution")
    play(env, seed, ["hm"])
    line = env.feedback().text.split("\n")[-1]
    plan = line.removesuffix(".").split(": ")[1].split(", ")
    assert line.startswith(f"A shortest solution takes {len(plan)} turns: ")
    _, steps = play(env, seed, [f"```{action}```" for action in plan])
    assert env.feedback().outcome == "solved" and len(steps) == len(plan)


def test_stuck_is_told_at_transitions_only() -> None:
    layout = ["######", "#    #", "# $@.#", "#    #", "######"]
    for level in LEVELS:
        env = erl_envs.make("sokoban", feedback=level)
        env.reset(options={"task": {"layout": layout}})
        for _ in range(8):
            env.step("```Left```")
        stuck = "can no longer be solved" in env.feedback().text
        assert stuck == (level in ("transitions", "solution"))


@pytest.mark.parametrize("name", ["frozenlake", "sokoban"])
def test_turn_feedback_appends_every_note(name: str) -> None:
    plain, telling = erl_envs.make(name), erl_envs.make(name, turn_feedback=True)
    rng = np.random.default_rng(3)
    plain.reset(seed=4)
    telling.reset(seed=4)
    for _ in range(8):
        message = plain.random_message(rng)
        _, _, terminated, _, info = plain.step(message)
        assert telling.step(message)[0].startswith(info["note"] + "\n")
        if terminated:
            break
