"""The layouts that people have: level collections, Gymnasium's maps, sets of questions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import MAPS, FrozenLakeEnv
from hypothesis import given
from hypothesis import strategies as st
from loopback import Reply, serving

from erl_envs import tasks
from erl_envs.core import EnvError
from erl_envs.frozenlake import FrozenLake
from erl_envs.hotpotqa import HotpotQA, rows
from erl_envs.sokoban import Sokoban, collections, solver
from erl_envs.sokoban.collections import spell_out, tidy
from erl_envs.sokoban.room import parse_layout, to_layout
from erl_envs.task_files import Entry

DEV = Path(__file__).parents[2] / "shared/data/hotpotqa/dev_500.json"

ROOM = ["#####", "#@$.#", "#####"]


def put(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return f"file:{path}"


def entries(text: str) -> list[Entry]:
    return list(Sokoban.read_tasks(text, Sokoban.Options()))


def layouts(text: str) -> list[Any]:
    return [entry.params["layout"] for entry in entries(text) if entry.params]


# Sokoban


@pytest.mark.parametrize(
    "text",
    [
        "; 1\n#####\n#@$.#\n#####",
        "Title: One #1\nAuthor: me\n\n#####\n#@$.#\n#####\nSolution: R\nrR2u(lr)",
        "::: a file :::\n#####\n#pb.#\n#####\n\n",
        "[Level 1]\n#####\n#@$.#\n#####",
        "{ a comment }\n#####\n#@$.#\n#####",
        "    #####\n    #@$.#\n    #####",
        "--#####\n--#@$.#--\n--#####",
        "__#####__\n__#@$.#\n__#####",
        "5#|#@$.#|5#",
        "2-5#|2-#@$.#|2-5#|",
        "5#\n#@$.#\n5#",
        "(#)4#|#(@$).#|5(#)",
        "#####   \n#@$.#\t\n#####",
        "-\n#####\n#@$.#\n#####\n---\n",
        "A title\n#######\n\n#####\n#@$.#\n#####\n\n# 3\n####\n",  # what has walls alone underlines
    ],
)
def test_a_room_however_it_is_written(text: str) -> None:
    (entry,) = entries(text)
    assert (entry.params, entry.problem) == ({"layout": ROOM}, "")


def test_many_levels_with_all_that_stands_between_them() -> None:
    text = "\n".join(
        [
            "Collection of nobody's",
            "=======================",
            "######",
            "",
            "###",
            "#.#",
            "#$###",
            "#@  #",
            "#####",
            "Title: ragged, and its comment has a #",
            "",
            "  ####",
            "  # $#",
            "-",
            "###  #",
            "######",
        ]
    )
    one, two = entries(text)
    assert (one.place, one.params) == (
        "line 5",
        {"layout": ["###", "#.#", "#$###", "#@  #", "#####"]},
    )
    assert (two.place, two.params) == ("line 12", None) and "exactly one player" in two.problem


def test_rooms_need_not_be_square_and_keep_their_inner_gaps() -> None:
    tall_one = "###\n#.#\n#$#\n# #\n#@#\n###"
    text = f"########\n#@  $ .#\n########\n\n{tall_one}\n\n#####\n#@$.#\n#####\n-\n#####"
    wide, tall, gap = entries(text)
    for entry, turns in ((wide, None), (tall, None), (gap, None)):
        assert entry.params is not None and entry.params.get("max_turns") == turns
        env = Sokoban()
        env.reset(options={"task": entry.params})
        plan = env.oracle()
        assert plan is not None and [env.step(action)[1] for action in plan][-1] == 1.0
    assert gap.params is not None and gap.params["layout"] == [*ROOM, " ", "#####"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("####\n#@$.\n####", "layout is not closed: line 2"),
        ("#####\n#@*.#\n#####", "as many boxes as goals"),
        ("5#|#@$.#|5", "its run-length encoding breaks off"),
        ("5#|#(@$.#|5#", "its run-length encoding breaks off"),
        ("5#|#@$.)#|5#", "a bracket is closed that was not opened"),
        ("5#3|#@$.#|5#", "the number 3 stands before '|'"),
        ("99999999999999#|#@$.#", "the level has more than 8,192 cells"),
        ("99(99(99(99(99(#@$.)))))", "the level has more than 8,192 cells"),
        ("65#|#@$.#|65#", "the level is 65 cells wide; 64 are the most"),
        ("#@$.#\n" * 65, "the level has 65 rows; 64 are the most"),
        ("#####\n#$ .#\n#@  #\n#####", "the level has no solution"),
        ('[{"layout": ["@$."]}]', "the level has no wall"),
        ('[{"layout": "#####"}]', "a level is a list of strings"),
        ('[{"layout": ["#####", 3]}]', "a level is a list of strings"),
    ],
)
def test_what_is_no_level_says_why(text: str, message: str) -> None:
    (entry,) = entries(text)
    assert entry.params is None and message in entry.problem


@given(st.text(alphabet="#@$.+*-_ pb0123()|;\nx", max_size=120))
def test_no_text_breaks_the_reader(text: str) -> None:
    for entry in entries(text):
        assert (entry.params is None) == bool(entry.problem)


@given(st.lists(st.text(alphabet="#.$-", min_size=1, max_size=9), min_size=1, max_size=9))
def test_run_lengths_are_spelt_out(rows: list[str]) -> None:
    def encode(row: str) -> str:
        runs: list[list[Any]] = []
        for cell in row:
            if runs and runs[-1][1] == cell:
                runs[-1][0] += 1
            else:
                runs.append([1, cell])
        return "".join(f"{count if count > 1 else ''}{cell}" for count, cell in runs)

    assert spell_out("|".join(map(encode, rows))) == "|".join(rows)


def test_finished_boxes_outside_the_players_room_are_walls() -> None:
    walled = ["##########", "#@ $.#*#*#", "##########", "*"]
    room, state = parse_layout(walled)
    assert len(state.boxes) == len(room.goals) == 1
    env = Sokoban(symbols="canonical")
    first, _ = env.reset(options={"task": {"layout": walled}})
    assert "*" not in first
    assert env.step("```Right```")[1:3] == (0.0, False)
    assert env.step("```Right```")[1:3] == (1.0, True)
    assert parse_layout(to_layout(room, state)) == (room, state)
    for cell in "$.":
        bad = ["##########", f"#@ $.#{cell}#*#", "##########"]
        other = "." if cell == "$" else "$"
        bad[1] = bad[1].replace("@ ", f"@{other}")
        with pytest.raises(ValueError, match=rf"'\{cell}' stands outside the player's room"):
            parse_layout(bad)
    with pytest.raises(ValueError, match="solved already"):
        parse_layout(["#######", "#@ *#*#", "#######"])


def test_turns_come_from_the_shortest_solution(tmp_path: Path) -> None:
    far = ["############", "#@       $.#", "############"]
    near = ["###########", "#@      $.#", "###########"]
    split = put(tmp_path / "levels.xsb", "\n".join([*near, "", *far]))
    found = tasks.load("sokoban", split)
    # 7 moves, which the usual 8 turns allow; 8 moves and 9 of these
    assert [task.params.get("max_turns") for task in found] == [None, None]
    farther = ["#" * 14, "#@         $.#", "#" * 14]
    (task,) = tasks.load("sokoban", put(tmp_path / "far.xsb", "\n".join(farther)))
    assert task.params["max_turns"] == 10 + 4
    bare = tasks.load("sokoban", put(tmp_path / "far.json", [{"layout": farther}]))
    assert tasks.split_hash(bare) == tasks.split_hash([task])


def test_how_many_could_not_be_solved_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    far = ["#" * 14, "#@$         .#", "#            #", "#" * 14]
    text = "\n".join([*far, "", *ROOM])
    monkeypatch.setattr(collections, "FILE_WORK", 2 * 500)  # the one takes 5,070, the other 89
    with caplog.at_level(logging.WARNING):
        found = tasks.load("sokoban", put(tmp_path / "levels.xsb", text))
    assert [task.params.get("max_turns") for task in found] == [collections.UNSOLVED_TURNS, None]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "1 of 2 sokoban tasks doubtful, the first at line 1: the solver's bound" in line
    solver.count_moves.cache_clear()
    monkeypatch.setattr(solver, "solve", stopped)
    assert tasks.main(["describe", "sokoban", f"file:{tmp_path}/levels.xsb"]) == 0
    shown = capsys.readouterr().out
    assert "doubtful        1" in shown and "unknown         2: the solver reached" in shown
    solver.count_moves.cache_clear()


def stopped(*args: Any) -> Any:
    raise EnvError("the Sokoban solver stopped at its bound")


def test_the_random_value_of_a_large_room_is_not_computed_for_hours() -> None:
    inner = "#" + " " * 20 + "#"
    boxes, goals = "#@ $  $  $           #", "#        .  .  .     #"
    room, state = parse_layout(["#" * 22, inner, boxes, *[inner] * 9, goals, inner, "#" * 22])
    with pytest.raises(EnvError, match="exact value stopped at its bound"):
        solver.random_value(room, state, 200)


def test_tidy_leaves_the_room_as_it_is() -> None:
    for task in tasks.load("sokoban", "test"):
        assert tidy(task.params["layout"]) == task.params["layout"]


# FrozenLake


@pytest.mark.parametrize(
    "content",
    [
        MAPS,
        [MAPS["4x4"], MAPS["8x8"]],
        [[list(row) for row in MAPS[name]] for name in ("4x4", "8x8")],
        [{"desc": MAPS["4x4"]}, {"desc": MAPS["8x8"]}],
        "\n".join(json.dumps(rows) for rows in MAPS.values()),
        "\n".join(["easy:", *MAPS["4x4"], "", "# hard", *MAPS["8x8"]]),
    ],
    ids=["by name", "arrays", "letters", "tasks", "a line", "text"],
)
def test_gymnasiums_maps_in_every_form(content: Any, tmp_path: Path) -> None:
    small, large = tasks.load("frozenlake", put(tmp_path / "maps", content))
    assert small.params == {"desc": MAPS["4x4"]}  # 6 moves
    assert large.params == {"desc": MAPS["8x8"], "max_turns": 14 + 4}


def test_a_map_alone_and_a_rectangle(tmp_path: Path) -> None:
    (task,) = tasks.load("frozenlake", put(tmp_path / "one.json", ["SFFF", "HHFG"]))
    assert task.params == {"desc": ["SFFF", "HHFG"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("SHG\n", "the goal cannot be reached"),
        ("SFG\nFF\n", "desc line 2 is not as long"),
        ("SFF\nFFF\n", "exactly one S"),
        ({"odd": ["SXG"]}, "map 'odd': desc line 1 holds 'X'"),
        ({"odd": 3}, "must be a list of strings"),
        ([[["S", 3, "G"]]], "must be a non-empty string"),
        ([[["S" * 70]] * 2], "must be a non-empty string of at most 64"),
        ([["S"] * 65], "65 lines"),
        ({"seed": 1, "size": 4}, "fields seed, size and p"),
        ("words alone", "holds no frozenlake tasks"),
    ],
)
def test_what_is_no_map_says_why(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.load("frozenlake", put(tmp_path / "maps", content))


@pytest.mark.parametrize(
    "desc",
    [
        [row.encode() for row in MAPS["4x4"]],
        [list(row) for row in MAPS["4x4"]],
        tuple(MAPS["4x4"]),
        "\n".join(MAPS["4x4"]),
        np.asarray(MAPS["4x4"], dtype="c"),
        np.asarray([list(row) for row in MAPS["4x4"]]),
        FrozenLakeEnv(map_name="4x4").desc,
    ],
)
def test_reset_takes_bytes_and_arrays(desc: Any) -> None:
    env, plain = FrozenLake(), FrozenLake()
    given = env.reset(options={"task": {"desc": desc}})
    assert given == plain.reset(options={"task": {"desc": MAPS["4x4"]}})
    assert env.task == plain.task


@pytest.mark.parametrize("desc", [3, None, [3], [[3]], np.zeros((2, 2)), [b"\xff"], [["S", "GG"]]])
def test_a_desc_that_is_none_is_refused(desc: Any) -> None:
    with pytest.raises(ValueError, match="desc"):
        FrozenLake().reset(options={"task": {"desc": desc}})


@pytest.mark.parametrize(
    ("env", "task", "options", "solvable"),
    [
        (FrozenLake, {"desc": MAPS["8x8"]}, {}, False),
        (FrozenLake, {"desc": MAPS["8x8"]}, {"max_turns": 13}, False),
        (FrozenLake, {"desc": MAPS["8x8"]}, {"max_turns": 14}, True),
        (FrozenLake, {"desc": MAPS["8x8"], "max_turns": 14}, {}, True),
        (FrozenLake, {"desc": MAPS["8x8"]}, {"is_slippery": True}, False),
        (FrozenLake, {"desc": ["SHG"]}, {"max_turns": 99}, False),
        (Sokoban, {"layout": ["#" * 14, "#@$         .#", "#" * 14]}, {}, False),
        (Sokoban, {"layout": ["#" * 14, "#@$         .#", "#" * 14]}, {"max_turns": 10}, True),
        (Sokoban, {"layout": ["#####", "#$ .#", "#@  #", "#####"]}, {"max_turns": 99}, False),
    ],
)
def test_a_task_out_of_reach_says_so(
    env: Any, task: Any, options: dict[str, Any], solvable: bool
) -> None:
    _, info = env(**options).reset(options={"task": task})
    assert info.get("solvable", True) is solvable


@pytest.mark.parametrize("env", ["frozenlake", "sokoban"])
def test_tasks_of_ours_are_in_reach(env: str) -> None:
    player = FrozenLake() if env == "frozenlake" else Sokoban()
    for task in tasks.load(env, "test"):
        assert "solvable" not in player.reset(options={"task": task})[1]


# HotpotQA

CONTEXT = [
    ["Ada Quill", ["Ada Quill painted ships.", " She lived in Oskelt."]],
    ["Oskelt", ["A town."]],
]
FACTS = [["Ada Quill", 1], ["Oskelt", 0]]
QUESTION = {
    "question": "Where did the painter of ships live?",
    "answer": "Oskelt",
    "type": "bridge",
    "supporting_facts": FACTS,
    "context": CONTEXT,
}
HUB = {
    **QUESTION,
    "id": "5a",
    "level": "hard",
    "supporting_facts": {"title": [t for t, _ in FACTS], "sent_id": [n for _, n in FACTS]},
    "context": {"title": [t for t, _ in CONTEXT], "sentences": [s for _, s in CONTEXT]},
}
WIKI2 = {**QUESTION, "_id": "5a", "evidences": [["Ada Quill", "lived in", "Oskelt"]]}
WIKI2_HUB = {
    **HUB,
    "context": {"title": [t for t, _ in CONTEXT], "content": [s for _, s in CONTEXT]},
}
WIKI2_TEXT = {**WIKI2, **{key: json.dumps(WIKI2[key]) for key in ("context", "supporting_facts")}}


@pytest.mark.parametrize(
    "content",
    [
        [{**QUESTION, "_id": "5a", "level": "hard"}],
        [HUB],
        json.dumps(HUB) + "\n",
        {"features": [], "rows": [{"row_idx": 0, "row": HUB, "truncated_cells": []}]},
        {"data": [WIKI2]},
        [WIKI2],
        json.dumps(WIKI2_HUB),
        [WIKI2_TEXT],
    ],
    ids=["own", "hub", "hub lines", "hub server", "data", "2wiki", "2wiki hub", "2wiki text"],
)
def test_a_question_in_every_layout(content: Any, tmp_path: Path) -> None:
    (task,) = tasks.load("hotpotqa", put(tmp_path / "questions", content))
    assert task.params == QUESTION
    env = HotpotQA()
    env.reset(options={"task": task})
    assert "painted ships" in env.step("<search>who painted ships</search>")[0]
    assert env.reference().ceiling == 1.0
    pooled = put(tmp_path / "questions", content)
    (same,) = tasks.load("hotpotqa", "all", data=pooled)
    assert same.params == {k: v for k, v in QUESTION.items() if k != "context"} | {"corpus": "all"}


def musique(**more: Any) -> dict[str, Any]:
    paragraphs = [
        {"idx": n, "title": title, "paragraph_text": text, "is_supporting": n < 2}
        for n, (title, text) in enumerate(
            [
                ("Ada Quill", "Ada Quill lived in Oskelt."),
                ("Oskelt", "A town."),
                ("Oskelt", "A dog."),
            ]
        )
    ]
    return {
        "id": "2hop__1_2",
        "paragraphs": paragraphs,
        "question": QUESTION["question"],
        "question_decomposition": [{"id": 1}, {"id": 2}],
        "answer": "Oskelt",
        "answer_aliases": ["Oskelt on Sea", "Oskelt"],
        "answerable": True,
    } | more


def test_musiques_layout(tmp_path: Path) -> None:
    lines = [
        musique(),
        musique(question="Other?", answerable=False),
        musique(question="Third?", paragraphs=[{"title": "A"}]),
        musique(question="Fourth?", paragraphs=3),
    ]
    split = put(tmp_path / "musique.jsonl", "\n".join(map(json.dumps, lines)))
    found = tasks.load_set("hotpotqa", split)
    assert [task.params for task in found.tasks] == [
        {
            "question": QUESTION["question"],
            "answer": "Oskelt",
            "aliases": ["Oskelt on Sea"],
            "context": [
                ["Ada Quill", ["Ada Quill lived in Oskelt."]],
                ["Oskelt", ["A town."]],
                ["Oskelt", ["A dog."]],
            ],
            "supporting_facts": [["Ada Quill", 0], ["Oskelt", 0]],
        }
    ]
    assert [(entry.place, entry.problem[:40]) for entry in found.left_out] == [
        ("line 2", "the question is marked as not answerable"),
        ("line 3", "field paragraphs must hold objects with "),
        ("line 4", "field paragraphs must be a list"),
    ]


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"answer": "Oskelt"}, ["Oskelt"]),
        ({"answer": ["Oskelt", "the town of Oskelt"]}, ["Oskelt", "the town of Oskelt"]),
        ({"answers": ["Oskelt", "", "Oskelt", "Ork"]}, ["Oskelt", "Ork"]),
        ({"id": "1", "golden_answers": ["Oskelt"], "metadata": {}}, ["Oskelt"]),
        ({"answer": "Oskelt", "aliases": ["Ork"]}, ["Oskelt", "Ork"]),
    ],
)
def test_plain_rows_for_a_search_server_of_ones_own(
    row: dict[str, Any], answers: list[str], tmp_path: Path
) -> None:
    split = put(tmp_path / "plain.jsonl", json.dumps({"question": "Where?", **row}))
    with pytest.raises(ValueError, match="line 1: the question has no paragraphs to search"):
        tasks.load("hotpotqa", split)

    def reply(_: Any) -> Reply:
        found = {"document": {"contents": '"Oskelt"\nA town.'}, "score": 1.0}
        return Reply({"result": [[found]]})

    with serving(reply) as url:
        options: dict[str, Any] = {"retriever": "http", "retriever_url": f"{url}/retrieve"}
        (task,) = tasks.load("hotpotqa", split, **options)
        assert task.params == {
            "question": "Where?",
            "answer": answers[0],
            **({"aliases": answers[1:]} if answers[1:] else {}),
        }
        env = HotpotQA(**options, feedback="solution")
        env.reset(options={"task": task})
        assert "A town." in env.step("<search>a town</search>")[0]
        _, reward, _, _, info = env.step(f"\\boxed{{{answers[-1]}}}")
        assert (reward, info["outcome"]) == (1.0, "exact")
        assert all(f"“{answer}”" in info["feedback"] for answer in answers)


@pytest.mark.parametrize("mode", ["paper", "em", "f1"])
def test_the_closest_of_several_answers_counts(mode: Any) -> None:
    task = {**QUESTION, "answer": "the king of Oskelt", "aliases": ["Ada Quill", "no"]}
    for answer, paid, outcome in (
        ("Ada Quill", 1.0, "exact"),
        ("The King of Oskelt!", 1.0, "exact"),
        ("Quill", {"paper": 2 / 3, "em": 0.0, "f1": 2 / 3}[mode], "partial"),
        ("no", 1.0, "exact"),
        ("nobody", 0.0, "wrong"),
    ):
        env = HotpotQA(reward=mode)
        env.reset(options={"task": task})
        _, reward, _, _, info = env.step(f"\\boxed{{{answer}}}")
        assert reward == pytest.approx(paid) and info["outcome"] == outcome


@pytest.mark.parametrize("aliases", [["Ork", ""], "Ork", [3], {"a": "b"}])
def test_bad_aliases_are_named(aliases: Any) -> None:
    with pytest.raises(ValueError, match="field aliases must be a list of non-empty strings"):
        HotpotQA().reset(options={"task": {**QUESTION, "aliases": aliases}})


def test_a_question_without_paragraphs_among_many_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {key: QUESTION[key] for key in ("question", "answer")}
    content = [QUESTION, {**bare, "context": []}, bare, {**QUESTION, "question": "Who?"}]
    split = put(tmp_path / "questions.json", content)
    with caplog.at_level(logging.WARNING):
        found = tasks.load_set("hotpotqa", split)
        assert len(tasks.load("hotpotqa", "all", data=split)) == 2
    assert (len(found.tasks), len(found.left_out)) == (2, 2)
    assert all("2 of 4" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2
    with pytest.raises(ValueError, match=r"row 2 \(line 1\): the question has no paragraphs"):
        tasks.load("hotpotqa", f"strict-{split}")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**QUESTION, "answer": None}, "field answer must be a non-empty string"),
        ({**QUESTION, "answer": []}, "field answer must be a non-empty string"),
        ({**QUESTION, "answer": 1969}, "field answer must be a non-empty string"),
        ({**QUESTION, "type": ["bridge"]}, "field type must be of type str"),
        ({**QUESTION, "max_turns": 0}, "max_turns must be a whole number from 1 to 1000"),
        ({**QUESTION, "context": {"title": ["A"], "sentences": []}}, "differ in length"),
        ({**QUESTION, "context": {"titles": ["A"]}}, "field context must be"),
        ({**QUESTION, "context": "no JSON"}, "field context must be"),
        ({**QUESTION, "supporting_facts": [["A"]]}, "field supporting_facts must be"),
        ({"question": "q", "answer": "a", "corpus": "moon"}, "no corpus 'moon'; valid: train"),
        ({"env": "hotpotqa", "params": {**QUESTION, "odd": 1}}, "has no field 'odd'"),
    ],
)
def test_a_bad_question_says_why(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.load("hotpotqa", put(tmp_path / "questions", [row]))


@pytest.mark.parametrize("retriever", ["bm25", "rank_bm25"])
def test_paragraphs_of_stop_words_alone_are_searched_in_vain(retriever: str) -> None:
    if retriever == "rank_bm25":
        pytest.importorskip("rank_bm25", reason="the data extra is not installed")
    env = HotpotQA(retriever=retriever)
    env.reset(options={"task": {**QUESTION, "context": [["The", ["of and", " the"]]]}})
    assert "Nothing found" in env.step("<search>the town</search>")[0]
    assert env.oracle() is None


def test_real_questions_are_the_same_in_every_layout(tmp_path: Path) -> None:
    if not DEV.exists():
        pytest.skip("the questions are not here (../shared/data)")
    real = json.loads(DEV.read_text(encoding="utf-8"))

    def hub(row: dict[str, Any]) -> dict[str, Any]:
        facts, context = zip(*row["supporting_facts"], strict=True), row["context"]
        titles, numbers = map(list, facts)
        return {
            "id": row["_id"],
            **{key: row[key] for key in ("question", "answer", "type", "level")},
            "supporting_facts": {"title": titles, "sent_id": numbers},
            "context": {"title": [t for t, _ in context], "sentences": [s for _, s in context]},
        }

    own = tasks.load("hotpotqa", f"file:{DEV}")
    assert len(own) == len(real) == 500
    lines = "\n".join(json.dumps(hub(row)) for row in real)
    for content in ([hub(row) for row in real], lines):
        found = tasks.load("hotpotqa", put(tmp_path / "hub", content))
        assert tasks.split_hash(found) == tasks.split_hash(own)
    env = HotpotQA()
    for task in own[:20]:
        env.reset(options={"task": task})
        plan = env.oracle()
        assert plan is None or [env.step(message)[1] for message in plan][-1] == 1.0
    assert rows.question_of(hub(real[0])) == dict(own[0].params)
