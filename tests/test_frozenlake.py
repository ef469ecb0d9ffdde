"""FrozenLake: the paper's boards exactly, true moves, exact values."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from gymnasium.utils import seeding
from hypothesis import given, settings
from hypothesis import strategies as st

from erl_envs import tasks
from erl_envs.frozenlake import FrozenLake
from erl_envs.frozenlake.levels import generate, safe_path, within_reach

PAPER_DATA = Path(__file__).parents[2] / "shared/data/paper/frozenlake_test.parquet"


def paper_board(seed: int, size: int, p: float) -> list[list[str]]:
    """PAPER.md's words, as literally as they can be written."""
    rng, _ = seeding.np_random(seed)
    while True:
        board = rng.choice(["F", "H"], (size, size), p=[p, 1 - p])
        while True:
            start = int(rng.integers(0, size)), int(rng.integers(0, size))
            goal = int(rng.integers(0, size)), int(rng.integers(0, size))
            if start != goal:
                break
        board[start], board[goal] = "S", "G"
        if accepted(board, start, size):
            return board.tolist()  # type: ignore[no-any-return]


def accepted(board: Any, start: tuple[int, int], size: int) -> bool:
    frontier, discovered = [(start, 0)], set()
    while frontier:
        (r, c), depth = frontier.pop()
        if depth > 5:
            continue
        if (r, c) not in discovered:
            discovered.add((r, c))
            for dr, dc in ((1, 0), (0, 1), (-1, 0), (0, -1)):
                nr, nc = r + dr, c + dc
                if not (0 <= nr < size and 0 <= nc < size):
                    continue
                if board[nr, nc] == "G":
                    return True
                if board[nr, nc] != "H":
                    frontier.append(((nr, nc), depth + 1))
    return False


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 9), st.floats(0.6, 0.85))
def test_boards_are_the_papers(seed: int, size: int, p: float) -> None:
    literal = paper_board(seed, size, p)
    assert generate(seed, size, p) == "".join("".join(row) for row in literal)


def test_paper_test_split_is_the_released_one() -> None:
    if not PAPER_DATA.exists():
        pytest.skip("the paper's data is not here (../shared/data)")
    import pyarrow.parquet as pq

    released = pq.read_table(PAPER_DATA).to_pylist()
    ours = tasks.load("frozenlake", "paper-test")
    assert [dict(t.params) for t in ours] == [
        {k: row[k] for k in ("seed", "size", "p")} for row in released
    ]
    for task in ours:
        literal = paper_board(**task.params)
        assert generate(**task.params) == "".join("".join(row) for row in literal)


def lake(*desc: str, **options: Any) -> FrozenLake:
    env = FrozenLake(**options)
    env.reset(options={"task": {"desc": list(desc)}})
    return env


def test_the_board_is_drawn_as_in_the_paper() -> None:
    env = FrozenLake(render_mode="ansi")
    first, _ = env.reset(options={"task": {"desc": ["SF", "HG"]}})
    assert first == env.render() == " A \t D \t\n C \t B \t"
    assert env.step("```Right```")[0] == " D \t A \t\n C \t B \t"
    assert env.step("```Down```")[0] == " D \t D \t\n C \t √ \t"
    env.reset(options={"task": {"desc": ["SF", "HG"]}})
    assert env.step("```Down```")[0] == " D \t D \t\n X \t B \t"


def test_moves_end_and_pay_as_told() -> None:
    env = lake("SFG", "FHF")
    observation, reward, terminated, truncated, info = env.step("```Up```")
    assert observation.startswith("Up changed nothing.\n A \t")
    assert (reward, terminated, truncated, info["changed"]) == (0.0, False, False, False)
    env.step("```Right```")
    assert env.step("```Right```")[1:4] == (1.0, True, False)
    assert env.feedback().outcome == "solved"
    env = lake("SFG", "FHF")
    env.step("```Right```")
    assert env.step("```Down```")[1:4] == (0.0, True, False)
    assert env.feedback().outcome == "lost"


def test_out_of_turns() -> None:
    env = lake("SFG", max_turns=2)
    env.step("```Left```")
    assert env.step("mumble")[1:4] == (0.0, False, True)
    assert env.feedback().outcome == "out_of_turns"


def test_a_task_carries_its_own_turns_and_the_option_wins() -> None:
    task = {"desc": ["SFFG"], "max_turns": 3}
    env = FrozenLake()
    env.reset(options={"task": task})
    assert env.max_turns == 3 and "You have 3 turns." in env.system_prompt
    env.reset(options={"task": {"desc": ["SFFG"]}})
    assert env.max_turns == 8
    env = FrozenLake(max_turns=5)
    env.reset(options={"task": task})
    assert env.max_turns == 5


def brute_force(env: FrozenLake, desc: list[str], turns: int) -> float:
    """Share of all action sequences that win, each played in the environment."""
    wins = 0
    for sequence in product(env.actions, repeat=turns):
        env.reset(options={"task": {"desc": desc}})
        for action in sequence:
            _, reward, terminated, truncated, _ = env.step(f"```{action}```")
            if terminated or truncated:
                wins += reward == 1.0
                break
    return float(wins / 4**turns)


@pytest.mark.parametrize("desc", [["SFH", "FFG"], ["SG"], ["SHG"], ["SFF", "HFF", "FFG"]])
def test_random_value_is_exact(desc: list[str]) -> None:
    env = lake(*desc, max_turns=4)
    assert env.reference().random == pytest.approx(brute_force(env, desc, 4), abs=1e-12)


def test_slippery_ice_slips_a_third_each_way() -> None:
    env = FrozenLake(is_slippery=True, max_turns=10**6)
    counts = {"Up": 0, "Down": 0, "Left": 0, "Right": 0}
    env.reset(seed=5, options={"task": {"desc": ["FFFFF", "FFFFF", "FFSFF", "FFFFF", "FFFFG"]}})
    for _ in range(6000):
        env._player = 12
        _, _, _, _, info = env.step("```Up```")
        way = info["note"].split(":")[1]
        counts[next((w for w in counts if f"slipped {w}" in way), "Up")] += 1
    assert counts["Down"] == 0
    for way in ("Up", "Left", "Right"):
        assert abs(counts[way] / 6000 - 1 / 3) < 0.03


def test_slippery_values_agree_with_play() -> None:
    desc = ["SFF", "FHF", "FFG"]
    env = FrozenLake(is_slippery=True)
    env.reset(options={"task": {"desc": desc}})
    best = env.reference()
    assert best.random is not None and best.ceiling is not None
    assert 0 < best.random < best.ceiling < 1
    wins = 0
    for seed in range(2000):
        env.reset(seed=seed, options={"task": {"desc": desc}})
        done, reward = False, 0.0
        while not done and (plan := env.oracle()):
            _, reward, terminated, truncated, _ = env.step(plan[0])
            done = terminated or truncated
        wins += int(reward)
    assert abs(wins / 2000 - best.ceiling) < 0.035


def test_slips_replay_from_seed_and_task() -> None:
    def play() -> list[Any]:
        env = FrozenLake(is_slippery=True)
        env.reset(seed=9, options={"task": {"desc": ["SFFF", "FFFF", "FFFG"]}})
        return [env.step("```Right```") for _ in range(3)]

    assert play() == play()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"desc": ["SF", "FX"]}, "desc line 2 holds 'X'"),
        ({"desc": ["SF", "FFG"]}, "desc line 2 is not as long"),
        ({"desc": ["SFS", "FFG"]}, "exactly one S"),
        ({"desc": ["SFF"]}, "exactly one S"),
        ({"desc": []}, "must be a list of strings"),
        ({"desc": "SFG"}, "must be a list of strings"),
        ({"desc": ["", "SG"]}, "line 1 must be a non-empty string"),
        ({"desc": ["SG"], "max_turns": 0}, "max_turns"),
        ({"desc": ["SG"], "max_turns": "8"}, "max_turns"),
        ({"desc": ["SG"], "size": 2}, "got \\['desc', 'size'\\]"),
        ({"seed": 1, "size": 4}, "fields seed, size and p"),
        ({"seed": -1, "size": 4, "p": 0.7}, "seed must be a whole number"),
        ({"seed": 1.5, "size": 4, "p": 0.7}, "seed must be a whole number"),
        ({"seed": 1, "size": 1, "p": 0.7}, "size must be a whole number from 2"),
        ({"seed": 1, "size": 4, "p": 0}, "p must be a number above 0"),
        ({"seed": 1, "size": 4, "p": "0.7"}, "p must be a number"),
        ({"seed": 1, "size": 4, "p": float("nan")}, "p must be a number"),
    ],
)
def test_a_bad_task_is_named(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenLake().reset(options={"task": task})


def test_bad_symbols_and_shapes_are_named() -> None:
    roles = list(FrozenLake.opaque)
    with pytest.raises(ValueError, match="symbols must map each of player, goal"):
        FrozenLake(symbols={"player": "P"})
    with pytest.raises(ValueError, match="must differ"):
        FrozenLake(symbols=dict.fromkeys(roles, "P"))
    with pytest.raises(ValueError, match="single printable"):
        FrozenLake(symbols=dict(zip(roles, ["PP", *"GHFxw"], strict=False)))
    with pytest.raises(ValueError, match="'opaque', 'canonical', 'random', a mapping"):
        FrozenLake(symbols="letters")
    with pytest.raises(ValueError, match="size"):
        FrozenLake(size=(1, 4))
    with pytest.raises(ValueError, match="for p"):
        FrozenLake(p=(0.9, 0.8))


def test_random_symbols_are_a_permutation_told_by_the_task() -> None:
    env = FrozenLake(symbols="random")
    seen = set()
    for seed in range(20):
        env.reset(seed=seed)
        assert sorted(env.symbols.values()) == sorted(FrozenLake.opaque.values())
        seen.add(tuple(env.symbols.values()))
    assert len(seen) > 10


def test_the_rules_of_slippery_ice_say_so() -> None:
    told = FrozenLake(rules="shown", is_slippery=True)
    told.reset(seed=0)
    assert "goes the way you meant or to either side of it" in told.system_prompt
    plain = FrozenLake(rules="shown")
    plain.reset(seed=0)
    assert "slippery" not in plain.system_prompt


@given(st.integers(1, 9), st.integers(2, 9), st.integers(0, 12), st.randoms(use_true_random=False))
def test_what_is_within_reach_is_what_a_shortest_path_says(
    height: int, width: int, moves: int, dice: random.Random
) -> None:
    cells = [dice.choice("FFH") for _ in range(height * width)]
    start, goal = dice.sample(range(len(cells)), 2)
    cells[start], cells[goal] = "S", "G"
    board = "".join(cells)
    path = safe_path(board, width, start)
    assert within_reach(board, width, start, moves) == (path is not None and len(path) <= moves)
