"""Sokoban: the paper's layouts exactly, true pushes, shortest solutions, exact values."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erl_envs import tasks
from erl_envs.core import EnvError
from erl_envs.grid import shortest_path
from erl_envs.sokoban import Sokoban
from erl_envs.sokoban.levels import Pulled, pull_room
from erl_envs.sokoban.room import State, deltas, move, parse_layout, solved, to_layout
from erl_envs.sokoban.solver import least_pushes, random_value, solve, stuck

PAPER_DATA = Path(__file__).parents[2] / "shared/data/paper/sokoban_test.parquet"


def test_paper_test_split_is_the_released_one() -> None:
    if not PAPER_DATA.exists():
        pytest.skip("the paper's data is not here (../shared/data)")
    import pyarrow.parquet as pq

    released = [row["layout"] for row in pq.read_table(PAPER_DATA).to_pylist()]
    ours = tasks.load("sokoban", "paper-test")
    assert [task.params["layout"] for task in ours] == released


def room(*layout: str, **options: Any) -> Sokoban:
    env = Sokoban(**options)
    env.reset(options={"task": {"layout": list(layout)}})
    return env


def test_the_board_is_drawn_as_in_the_paper() -> None:
    env = room("######", "#@$ .#", "######", render_mode="ansi")
    wall = " E \t" * 6
    assert env.render() == f"{wall}\n E \t A \t B \t D \t C \t E \t\n{wall}"
    assert env.step("```Right```")[0] == f"{wall}\n E \t D \t A \t B \t C \t E \t\n{wall}"
    observation, reward, terminated, truncated, info = env.step("```Right```")
    assert observation == f"{wall}\n E \t D \t D \t A \t b \t E \t\n{wall}"
    assert (reward, terminated, truncated, info["outcome"]) == (1.0, True, False, "solved")


def test_player_and_box_on_goal_have_their_own_symbols() -> None:
    env = room("#######", "#@*$ .#", "#######", symbols="canonical", render_mode="ansi")
    assert "@" in str(env.render()) and "*" in str(env.render())
    env = room("#######", "#+$ $.#", "#######", render_mode="ansi")
    assert " a \t" in str(env.render())


def test_what_cannot_move_does_not() -> None:
    env = room("#######", "#@$$ .#", "#    .#", "#######")
    assert "has another box behind it" in env.step("```Right```")[4]["note"]
    assert "a wall is there" in env.step("```Up```")[4]["note"]
    env = room("####", "#.@#", "# $#", "#  #", "####")
    env.step("```Down```")
    observation, _, _, _, info = env.step("```Down```")
    assert "has a wall behind it" in info["note"] and observation.startswith("Down changed nothing")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (["####", "#@$.", "####"], "not closed: line 2"),
        (["#@##", "#$.#", "####"], "not closed: line 1"),
        (["#####", "#@$x#", "#####"], "layout line 2 holds 'x'"),
        (["#####", "# $.#", "#####"], "exactly one player"),
        (["#####", "#@@.#", "#####"], "exactly one player"),
        (["#####", "#@$ #", "#####"], "as many boxes as goals"),
        (["#####", "#@  #", "#####"], "as many boxes as goals"),
        (["#####", "#@ *#", "#####"], "solved already"),
        (["#######", "#@$#$.#", "#.#####", "#######"], "outside the player's room"),
        ([], "list of strings"),
        ("#####", "list of strings"),
        (["#####", ""], "line 2 must be a non-empty string"),
    ],
)
def test_a_bad_layout_is_named(layout: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sokoban().reset(options={"task": {"layout": layout}})


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="generator='pulls' only"):
        Sokoban(boxes=2)
    with pytest.raises(ValueError, match="walls"):
        Sokoban(generator="pulls", walls=0.9)
    with pytest.raises(ValueError, match="no room with side 5, 3 boxes, at least 40 pushes"):
        Sokoban(generator="pulls", size=(5, 5), boxes=3, min_pushes=40).reset(seed=0)


def rooms(boxes: int = 2) -> st.SearchStrategy[Pulled]:
    def build(seed: int) -> Pulled:
        return pull_room(np.random.default_rng(seed), 6, 1 + seed % boxes, 2, 0.15)

    return st.integers(0, 10_000).map(build)


@settings(max_examples=60, deadline=None)
@given(rooms())
def test_solutions_solve_and_are_shortest(pulled: Pulled) -> None:
    plan = solve(pulled.room, pulled.state)
    assert plan is not None and len(plan) <= pulled.moves
    state = pulled.state
    for action in plan:
        state = move(pulled.room, state, deltas(pulled.room.width)[action])
    assert solved(pulled.room, state.boxes)
    brute = shortest_path(
        pulled.state,
        lambda s: solved(pulled.room, s.boxes),
        lambda s: [(a, move(pulled.room, s, d)) for a, d in deltas(pulled.room.width).items()],
    )
    assert brute is not None and len(brute) == len(plan)


@settings(max_examples=40, deadline=None)
@given(rooms())
def test_pulled_rooms_need_the_pushes_they_promise(pulled: Pulled) -> None:
    plan = solve(pulled.room, pulled.state)
    assert plan is not None
    state, pushes = pulled.state, 0
    for action in plan:
        after = move(pulled.room, state, deltas(pulled.room.width)[action])
        pushes += after.boxes != state.boxes
        state = after
    assert 2 <= least_pushes(pulled.room, pulled.state.boxes) <= pushes


@settings(max_examples=40, deadline=None)
@given(rooms(3), st.lists(st.sampled_from(["Up", "Down", "Left", "Right"]), max_size=20))
def test_what_is_called_stuck_has_no_solution(pulled: Pulled, walk: list[str]) -> None:
    state = pulled.state
    for action in walk:
        state = move(pulled.room, state, deltas(pulled.room.width)[action])
    if stuck(pulled.room, state.boxes):
        brute = shortest_path(
            state,
            lambda s: solved(pulled.room, s.boxes),
            lambda s: [(a, move(pulled.room, s, d)) for a, d in deltas(pulled.room.width).items()],
        )
        assert brute is None


@settings(max_examples=100, deadline=None)
@given(rooms())
def test_layouts_survive_reading_and_writing(pulled: Pulled) -> None:
    read_room, read_state = parse_layout(to_layout(pulled.room, pulled.state))
    assert (read_room, read_state) == (pulled.room, pulled.state)


@settings(max_examples=15, deadline=None)
@given(rooms())
def test_random_value_is_exact(pulled: Pulled) -> None:
    turns, wins = 5, 0
    for sequence in product(deltas(pulled.room.width).values(), repeat=turns):
        state = pulled.state
        for delta in sequence:
            state = move(pulled.room, state, delta)
            if solved(pulled.room, state.boxes):
                wins += 1
                break
    exact = random_value(pulled.room, pulled.state, turns)
    assert exact == pytest.approx(wins / 4**turns, abs=1e-12)


def test_random_value_takes_any_number_of_turns() -> None:
    pulled = pull_room(np.random.default_rng(1), 6, 1, 4, 0.1)
    some, many = (random_value(pulled.room, pulled.state, turns) for turns in (8, 2000))
    assert 0 <= some < many <= 1


def test_the_solver_stops_at_its_bound_and_says_so() -> None:
    pulled = pull_room(np.random.default_rng(1), 9, 3, 8, 0.1)
    with pytest.raises(EnvError, match="the Sokoban solver stopped at its bound of 3,000 operat"):
        solve(pulled.room, pulled.state, max_work=3_000)
    with pytest.raises(EnvError, match="policy's exact value stopped at its bound of 3,000 operat"):
        random_value(pulled.room, pulled.state, 24, max_work=3_000)


def test_an_unsolvable_room_has_no_oracle() -> None:
    env = room("#####", "#$ .#", "#@  #", "#####")
    assert env.oracle() is None
    assert env.reference().ceiling == 0.0 and env.reference().difficulty is None


def test_a_move_leaves_the_state_untouched() -> None:
    here, state = parse_layout(["#####", "#@$.#", "#####"])
    move(here, state, 1)
    assert state == State(6, (7,))
