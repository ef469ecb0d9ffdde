"""What both games share: boards with and without coordinates."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import erl_envs
from erl_envs.grid import Board


@pytest.mark.parametrize("game", ["frozenlake", "sokoban"])
def test_coordinates_change_nothing_but_what_is_shown(game: str) -> None:
    plain = erl_envs.make(game)
    labelled = erl_envs.make(game, coordinates=True)
    for seed in range(10):
        shown = [plain.reset(seed=seed)[0], labelled.reset(seed=seed)[0]]
        done, turn = False, 0
        while not done:
            assert re.sub(r"\d+,\d+ \t", " \t", shown[1]) == shown[0]
            action = plain.actions[(seed + turn) % 4]
            one, two = plain.step(f"```{action}```"), labelled.step(f"```{action}```")
            assert one[1:4] == two[1:4]
            assert re.sub(r"row (\d+), column (\d+)", r"\1,\2", one[4]["note"]) == two[4]["note"]
            shown, done, turn = [one[0], two[0]], one[2] or one[3], turn + 1


def test_coordinates_count_from_one_at_the_top_left() -> None:
    assert Board("ABCD", 2, coordinates=True).text == " A1,1 \t B1,2 \t\n C2,1 \t D2,2 \t"


@given(st.integers(1, 12), st.integers(1, 12), st.booleans(), st.data())
def test_an_edited_board_is_the_board_drawn_anew(
    height: int, width: int, coordinates: bool, data: st.DataObject
) -> None:
    symbols = ["D"] * (height * width)
    board = Board(symbols, width, coordinates)
    for _ in range(5):
        cell = data.draw(st.integers(0, len(symbols) - 1))
        symbols[cell] = data.draw(st.sampled_from("AB√"))
        board.put(cell, symbols[cell])
    assert board.text == Board(symbols, width, coordinates).text
