"""What a stranger's task may cost: counted work and bounded fields, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import erl_envs
from erl_envs import registry, retrieval
from erl_envs.core import MAX_TURNS, EnvError, TextEnv
from erl_envs.frozenlake import FrozenLake
from erl_envs.hotpotqa import HotpotQA
from erl_envs.hotpotqa.env import MAX_QUERY
from erl_envs.hotpotqa.task import MAX_CONTEXT, MAX_FACTS, MAX_GOLD, MAX_PASSAGES, MAX_QUESTION
from erl_envs.retrieval import Corpus, Passage, Retriever
from erl_envs.sokoban import Sokoban, solver
from erl_envs.sokoban.room import move, parse_layout, walk
from erl_envs.work import MAX_WORK, Work

GOOD: dict[str, dict[str, Any]] = {
    "frozenlake": {"desc": ["SFFG"]},
    "sokoban": {"layout": ["#####", "#@$.#", "#####"]},
    "hotpotqa": {"question": "Who?", "answer": "Ann", "context": [["Ann", ["Ann is here."]]]},
}


def hall(side: int, boxes: int, apart: int) -> list[str]:
    """An empty room of boxes in rows at the top, whose goals are at the bottom."""
    rows = [["#", *" " * (side - 2), "#"] for _ in range(side)]
    rows[0] = rows[-1] = ["#"] * side
    rows[1][1] = "@"
    cells = [(r, c) for r in range(3, side - 3, apart) for c in range(3, side - 3, apart)]
    for r, c in cells[:boxes]:
        rows[r][c] = "$"
    free = [(r, c) for r in range(side - 2, 0, -1) for c in range(side - 2, 0, -1)]
    for r, c in [(r, c) for r, c in free if rows[r][c] == " "][: len(cells[:boxes])]:
        rows[r][c] = "."
    return ["".join(row) for row in rows]


ROOMS = {
    "wide": hall(64, 60, 3),
    "crowded": hall(64, 841, 2),
    "small": hall(10, 4, 2),
    "one box": hall(64, 1, 3),
}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often the solver looks at a cell, or makes a state."""
    done = [0]

    def count(function: Callable[..., Any], cost: Callable[[Any], int]) -> Callable[..., Any]:
        def counting(*args: Any) -> Any:
            found = function(*args)
            done[0] += cost(found)
            return found

        return counting

    with monkeypatch.context() as patch:
        patch.setattr(solver, "walk", count(walk, len))
        patch.setattr(solver, "move", count(move, lambda state: len(state.boxes)))
        yield done


@pytest.mark.parametrize("name", ROOMS)
def test_no_room_takes_the_solver_more_than_its_bound(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = MAX_WORK // 10
    room, state = parse_layout(ROOMS[name])
    with counted(monkeypatch) as done:
        with pytest.raises(EnvError, match=f"stopped at its bound of {most:,} operations"):
            solver.solve(room, state, max_work=most)
        assert 0 < done[0] <= most


@pytest.mark.parametrize("name", ["small", "one box"])
def test_no_room_takes_the_random_value_more_than_its_bound(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = MAX_WORK // 100
    room, state = parse_layout(ROOMS[name])
    with counted(monkeypatch) as done:
        with pytest.raises(EnvError, match=f"stopped at its bound of {most:,} operations"):
            solver.random_value(room, state, {"small": 40, "one box": 150}[name], max_work=most)
        assert 0 < done[0] <= most


def test_spelling_a_solution_out_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box along a hall: sixty pushes, each with a walk to look for."""
    wall, empty = "#" * 64, "#" + " " * 62 + "#"
    room, state = parse_layout([wall, "#@$" + " " * 59 + ".#", empty, wall])
    spent: list[int] = []
    monkeypatch.setattr(Work, "spend", lambda _, operations: spent.append(operations))
    assert solver.solve(room, state) == ["Right"] * 60
    assert spent[-60:] == [8 * len(room.floor)] * 60


def test_an_attempt_whose_solution_is_out_of_reach_fails_as_the_environment_s() -> None:
    env = Sokoban(feedback="solution")
    env.reset(options={"task": {"layout": ROOMS["wide"], "max_turns": 1}})
    with pytest.raises(EnvError, match="the Sokoban solver stopped at its bound of 10,000,000 op"):
        env.step("```Down```")
    env.reset(options={"task": {**GOOD["sokoban"], "max_turns": 1}})
    assert "takes 1 turns: Right" in env.step("```Left```")[4]["feedback"]


def test_a_frozen_lake_of_any_size_and_turns_is_bounded() -> None:
    env = FrozenLake(is_slippery=True, max_turns=10**5)
    for side in (3, 64):
        env.reset(options={"task": {"desc": ["S" + "F" * (side - 1), "F" * (side - 1) + "G"]}})
        for ask in (env.reference, env.oracle):
            with pytest.raises(EnvError, match="stopped at its bound of 10,000,000 operations"):
                ask()


def test_a_task_s_own_turns_are_never_too_many_for_its_values() -> None:
    env = FrozenLake(is_slippery=True)
    rows = ["S" + "F" * 63, *["F" * 64] * 62, "F" * 63 + "G"]
    env.reset(options={"task": {"desc": rows, "max_turns": MAX_TURNS}})
    known = env.reference()
    assert known.random is not None and known.ceiling is not None
    assert 0 < known.random < known.ceiling <= 1
    assert env.oracle() is not None


@pytest.mark.parametrize("turns", [0, -1, MAX_TURNS + 1, 10**9, True, 2.0, "8", [8], "x" * 9_999])
@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_task_asks_for_so_many_turns_and_no_more(name: str, turns: Any) -> None:
    env = erl_envs.make(name)
    with pytest.raises(ValueError, match="task field max_turns must be a whole number from 1 to 1"):
        env.reset(options={"task": {**GOOD[name], "max_turns": turns}})
    env.reset(options={"task": {**GOOD[name], "max_turns": MAX_TURNS}})
    assert env.max_turns == MAX_TURNS


def test_a_room_that_is_drawn_can_be_played() -> None:
    env = Sokoban(generator="pulls", size=(10, 12), boxes=3, min_pushes=20)
    for seed in range(3):
        env.reset(seed=seed)
        assert env.max_turns <= MAX_TURNS


@pytest.mark.parametrize("wish", [{"boxes": 101}, {"min_pushes": 10**10}, {"boxes": 0}])
def test_a_room_s_wishes_are_bounded(wish: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="bad value for boxes or min_pushes; valid: 1 to 100"):
        Sokoban(generator="pulls", **wish)


QA = GOOD["hotpotqa"]
TOO_MUCH: list[tuple[dict[str, Any], str]] = [
    ({"question": "q" * (MAX_QUESTION + 1)}, "question has 4,001 characters; 4,000 are the most"),
    ({"answer": "a" * (MAX_GOLD + 1)}, "answer has 1,001 characters; 1,000 are the most"),
    ({"supporting_facts": [["t", 0]] * (MAX_FACTS + 1)}, "supporting_facts has 101 facts; 100 are"),
    ({"supporting_facts": [["t" * 1_001, 0]]}, "has 1,001 characters in a title; 1,000 are"),
    (
        {"context": [["t", ["s"]]] * (MAX_PASSAGES + 1)},
        "context has 101 passages; 100 are",
    ),
    ({"context": [["t", ["s" * 100_000] * 2]]}, "context has 200,001 characters; 200,000 are"),
    ({"context": [["t" * (MAX_CONTEXT + 1), []]]}, "context has 200,001 characters; 200,000 are"),
]


@pytest.mark.parametrize(("field", "reason"), TOO_MUCH)
def test_a_question_s_fields_are_bounded(field: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        HotpotQA().reset(options={"task": {**QA, **field}})


def test_what_is_within_the_bounds_is_played() -> None:
    env = HotpotQA()
    words = " ".join(f"word{number}" for number in range(200))
    task = {
        "question": ("long question " * MAX_QUESTION)[:MAX_QUESTION],
        "answer": ("ruva " * MAX_GOLD)[:MAX_GOLD],
        "supporting_facts": [[f"T{n}", 0] for n in range(MAX_FACTS)],
        "context": [[f"T{n}", [words]] for n in range(MAX_PASSAGES)],
    }
    env.reset(options={"task": task})
    assert env.reference().random is not None
    assert "Found for" in env.step("<search>word7</search>")[0]


def test_random_s_value_counts_no_turns() -> None:
    env = HotpotQA(max_turns=10**30)
    env.reset(options={"task": {**QA, "question": "Is Ann there now }"}})
    # four words are sure to be boxed at some time, one of them rightly; the brace never is
    assert env.reference().random == pytest.approx(1 / 4)
    env.reset(options={"task": {**QA, "question": "}"}})
    assert env.reference().random == 0.0


def test_the_oracle_asks_no_more_than_a_policy_may(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Recording(Retriever):
        name = "recording"

        def search(self, query: str, top_k: int) -> list[Passage]:
            asked.append(query)
            return []

    env = HotpotQA()
    env.reset(options={"task": {**QA, "supporting_facts": [["t" * MAX_GOLD, 0]]}})
    monkeypatch.setattr(env, "_retriever", Recording())
    assert env.oracle() is None
    assert len(asked) == 2 and max(map(len, asked)) == MAX_QUERY


@pytest.mark.parametrize("kind", ["bm25", "rank_bm25"])
def test_a_task_s_own_context_is_kept_nowhere(
    kind: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if kind == "rank_bm25":
        pytest.importorskip("rank_bm25", reason="rank-bm25 is not installed")
    monkeypatch.setenv("ERL_ENVS_CACHE", str(tmp_path / "cache"))
    before = dict(retrieval._places)
    env = HotpotQA(retriever=kind)
    other = [[f"T{number}", ["Nobody."]] for number in range(5)]
    env.reset(options={"task": {**QA, "context": [*QA["context"], *other]}})
    assert "Ann is here." in env.step("<search>Ann</search>")[0]
    assert retrieval._places == before and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("passages", [1, 300])
@pytest.mark.parametrize("kind", ["bm25", "rank_bm25"])
def test_passages_without_a_word_are_searched_in_vain(
    kind: str, passages: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if kind == "rank_bm25":
        pytest.importorskip("rank_bm25", reason="rank-bm25 is not installed")
    monkeypatch.setenv("ERL_ENVS_CACHE", str(tmp_path))
    corpus = Corpus(tuple(Passage("the", "." * number) for number in range(passages)))
    for keep in (True, False):
        found = retrieval.load(kind, corpus, keep=keep)
        assert [found.search(query, 5) for query in ("the", "oslo", " ", "")] == [[]] * 4


LONG = "x" * 100_000


def resets(name: str, task: Any) -> Callable[[], object]:
    return lambda: erl_envs.make(name).reset(options={"task": task})


@pytest.mark.parametrize(
    "ask",
    [
        *(resets(name, {**GOOD[name], LONG: 1}) for name in sorted(GOOD)),
        *(resets(name, LONG) for name in sorted(GOOD)),
        resets("frozenlake", {"desc": LONG}),
        resets("frozenlake", {"desc": [LONG]}),
        *(
            resets("frozenlake", {"seed": 1, "size": 4, "p": 0.7, field: LONG})
            for field in ("seed", "size", "p")
        ),
        resets("sokoban", {"layout": [LONG]}),
        resets("hotpotqa", {**QA, "context": [LONG]}),
        resets("hotpotqa", {**QA, "corpus": LONG, "context": [LONG]}),
        lambda: erl_envs.make("frozenlake").reset(seed=LONG),  # type: ignore[arg-type]
        lambda: erl_envs.make("frozenlake", symbols=LONG),
        lambda: erl_envs.make("frozenlake", symbols=dict.fromkeys(FrozenLake.opaque, LONG)),
        lambda: erl_envs.make("frozenlake", **{LONG: 1}),
        lambda: erl_envs.make(LONG),
        lambda: erl_envs.Task("frozenlake", LONG),  # type: ignore[arg-type]
        lambda: erl_envs.Task.from_json({"env": "a", "params": {}, LONG: 1}),
        lambda: erl_envs.Task("frozenlake", {}, id=LONG),
    ],
)
def test_what_is_refused_is_not_repeated_in_full(ask: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="x" * 10) as caught:
        ask()
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_every_environment_is_tried() -> None:
    assert set(registry.list_envs()) >= set(GOOD)
    assert all(issubclass(registry.env_class(name), TextEnv) for name in GOOD)
