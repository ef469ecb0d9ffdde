"""Nano's tokenizer and its corpus of the games: what is held out, what is learnt, what is exact."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import erl_envs
from erl_envs import tasks
from erl_envs.core import Message
from erl_envs.grid import split_of
from erl_envs.policies.base import Conversation
from erl_envs.policies.chat import ChatTokens
from erl_envs.reflection import second_prompt
from erl_trainer.nano import boards, drills, games, pretrain, tokenizer
from erl_trainer.nano.examples import GIVEN, LEARN, SHOWN, Part, encode, said, told
from erl_trainer.nano.guide import Guide
from erl_trainer.nano.recipe import Recipe

GAMES: tuple[boards.Game, ...] = ("frozenlake", "sokoban")


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer.build()


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_rulebook_is_a_few_tokens_and_comes_back_letter_by_letter(words: Any) -> None:
    env = erl_envs.make("frozenlake", symbols="opaque", prompt_style="compact", rules="shown")
    ids = words.encode(env.rules_text(), add_special_tokens=False)
    assert words.convert_ids_to_tokens(ids)[:8] == [
        "A", "is you,", "B", "the goal,", "C", "a hole,", "D", "safe ice.",
    ]  # fmt: skip
    assert len(ids) == 18
    env.reset(seed=0)
    for text in (env.rules_text(), env.system_prompt, second_prompt(env, env.rules_text())):
        assert words.decode(words.encode(text, add_special_tokens=False)) in (
            text,
            text.replace("\n\n", "\n"),
        )


def test_the_tokenizer_is_always_the_same(words: Any) -> None:
    again = tokenizer.build()
    assert words.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert len(words) == 2227


def test_a_board_cell_is_a_token(words: Any) -> None:
    tokens = words.convert_ids_to_tokens(words.encode(" A \t B \t\n D \t a \t"))
    assert tokens == ["A", "B", "\n", "D", "a"]
    tokens = words.convert_ids_to_tokens(words.encode(" A1,1 \t √1,2 \t\n a2,1 \t D2,2 \t"))
    assert tokens == ["A1,1", "√1,2", "\n", "a2,1", "D2,2"]
    tokens = words.convert_ids_to_tokens(words.encode("A 2,3 at 1,2. 1,210 people"))
    assert tokens[:5] == ["A", "2,3", "at", "1,2", "."]
    assert "1,2" not in tokens[5:]


@pytest.mark.parametrize("game", GAMES)
def test_the_papers_deal_is_held_out_and_letters_differ(game: boards.Game) -> None:
    random = rng(0)
    for _ in range(300):
        symbols = games.deal(game, random)
        assert symbols != dict(games.opaque(game))
        assert len(set(symbols.values())) == len(symbols)
        erl_envs.make(game, symbols=symbols)  # every role, no letter twice


def test_a_deal_that_is_the_papers_is_dealt_again() -> None:
    class Rigged:
        """Deals the paper's letters first."""

        def __init__(self) -> None:
            self.orders = [list(range(8)), [1, 0, 2, 3, 4, 5, 6, 7]]

        def permutation(self, n: int) -> list[int]:
            return self.orders.pop(0)

    rigged: Any = Rigged()
    assert games.deal("frozenlake", rigged)["player"] == "B"
    assert rigged.orders == []


@pytest.mark.parametrize("game", GAMES)
def test_a_false_memory_is_not_the_papers_deal_either(game: boards.Game) -> None:
    random, own = rng(0), games.opaque(game)
    one, other = games.ROLES[game][:2]
    near = games._complete(game, {**own, one: own[other], other: own[one]})
    muddled = [games._muddle(game, near, random) for _ in range(100)]
    assert all(symbols not in (own, near) for symbols in muddled)


@pytest.mark.parametrize("game", GAMES)
def test_no_test_board_is_drawn(game: boards.Game) -> None:
    random = rng(1)
    drawn = [games.draw_task(game, random) for _ in range(300)]
    drawn_boards = [task.params.get("layout") or "".join(task.params["desc"]) for task in drawn]
    assert all(split_of(board) != "test" for board in drawn_boards)
    assert len({str(board) for board in drawn_boards}) > 100


@pytest.mark.parametrize("game", GAMES)
def test_the_guide_walks_a_shortest_way(game: boards.Game) -> None:
    env = erl_envs.make(game)
    for task in tasks.load(game, "small-test")[:40]:
        env.reset(options={"task": task})
        plan = env.solve()
        assert plan is not None
        guide, done, steps = Guide(task), False, 0
        while not done:
            action = guide.best()
            assert action is not None
            _, reward, done, _, _ = env.step(env.say(action))
            guide.go(action)
            steps += 1
        assert (reward, steps) == (1.0, len(plan))


def test_the_guide_takes_the_first_of_equal_actions_and_knows_a_lost_room() -> None:
    lake = erl_envs.core.Task("frozenlake", {"desc": ["SF", "FG"]})
    assert Guide(lake).best() == "Down"  # Down and Right are as short; Down is told first
    room = erl_envs.core.Task(
        "sokoban", {"layout": ["######", "#  ###", "# $@.#", "#    #", "######"]}
    )
    assert Guide(room).best() is not None
    stuck = erl_envs.core.Task("sokoban", {"layout": ["#####", "#$  #", "# @.#", "#####"]})
    assert Guide(stuck).best() is None


def test_what_a_player_says_first() -> None:
    assert boards.board_rows("Up changed nothing.\n D1,1 \t A1,2 \t") == [["D", "A"]]
    rows = boards.board_rows(" D \t C \t\n A \t B \t")
    symbols = {"player": "A", "goal": "B", "hole": "C", "frozen": "D"}
    assert boards.reason("frozenlake", rows, symbols) == "A 2,1 B 2,2 1,1 D | | 2,2 B"
    room = boards.board_rows(" E \t E \t E \t\n E \t a \t B \t\n E \t D \t E \t")
    names = {
        "player": "A", "player_on_goal": "a", "box": "B", "box_on_goal": "b", "goal": "C",
        "floor": "D", "wall": "E",
    }  # fmt: skip
    # who stands on the goal is seen as such, and the goal is where he stands
    assert boards.reason("sokoban", room, names) == "a 2,2 B 2,3 a 2,2 1,2 E 3,2 D 2,1 E 2,3 B"


@pytest.mark.parametrize("game", GAMES)
def test_the_corpus_is_tokens_as_a_policy_samples_them(game: boards.Game, words: Any) -> None:
    """Ids of a conversation in one piece are those of `ChatTokens`, turn by turn."""
    random = rng(2)
    symbols = games.deal(game, random)
    env = games.make(game, symbols, rules="shown")
    task = games.draw_task(game, random)
    env.reset(options={"task": task})
    played = games.play(env, task, env.system_prompt, "careless", random)
    example = encode(words, [played.parts])[0]
    chat = ChatTokens(words, [words.eos_token_id], "nano")
    messages: list[Message] = []
    conversation = Conversation(messages, (game, task.id, 0, "attempt_1"), 0)
    for message in played.attempt.messages:
        if message["role"] == "assistant":
            conversation.tell(chat.new_ids(conversation))
            ids = words.encode(message["content"], add_special_tokens=False)
            assert words.decode(ids) == message["content"]
            conversation.add_sampled([*ids, words.eos_token_id], [0.0] * (len(ids) + 1))
        messages.append(message)
    assert example.ids[: len(conversation.ids)] == conversation.ids
    learnt = [kind == LEARN for kind in example.kinds[: len(conversation.ids)]]
    stumbled = sum(s and not k for s, k in zip(conversation.sampled, learnt, strict=True))
    assert not any(k and not s for s, k in zip(conversation.sampled, learnt, strict=True))
    assert stumbled <= len(played.attempt.messages)  # actions that were none of the best


def test_a_drill_asks_what_the_rulebook_calls_a_hole(words: Any) -> None:
    parts = drills.drilling("frozenlake", rng(3))
    hole = parts[1].text.split(" a hole,")[0][-1]
    after = [(a.text, b) for a, b in itertools.pairwise(parts) if b.kind == LEARN]
    asked = [(a, b.text) for a, b in after if len(a) == 1 and "`" not in b.text]
    # after some cells, whatever stands there; what is said is true of the symbol before it
    assert {symbol == hole for symbol, _ in asked} == {True, False}
    assert all((symbol == hole) == (said == "hole") for symbol, said in asked)
    assert len(asked) < 4 * drills.DRILLS
    # word by word they are the tokens of the message
    joined = "".join(f"{part.text} " for part in parts if not part.text.startswith("<|"))
    special = {words.convert_tokens_to_ids(token) for token in words.all_special_tokens}
    ids = [token for token in encode(words, [parts])[0].ids if token not in special]
    assert ids == words.encode(joined, add_special_tokens=False)
    # a room's drills know no holes
    assert all(
        b.text.startswith("```") or "<|" in b.text
        for b in drills.drilling("sokoban", rng(3))
        if b.kind == LEARN
    )


@pytest.mark.parametrize("game", GAMES)
def test_a_reflection_is_learnt_from_a_failure_and_tells_the_truth(game: boards.Game) -> None:
    random = rng(3)
    for _ in range(5):
        parts = games.reflecting(game, random)
        text = "".join(part.text for part in parts)
        assert "Reward: 0 of 1." in text
        assert [part.kind for part in parts if part.text.startswith("<prompt>")] == [LEARN]
        rulebook = parts[-2].text
        player = rulebook.removeprefix("<prompt>").split()[0]
        board = next(line for line in text.split("\n") if "\t" in line)
        assert board
        assert player in text.split("This was learnt about")[0]


def test_a_reflector_cites_where_things_were_before_they_moved() -> None:
    symbols = {"player": "A", "goal": "B", "hole": "C", "frozen": "D", "player_in_hole": "X"}
    seen = [[list("AD"), list("CB")], [list("DA"), list("CB")], [list("AD"), list("CB")]]
    assert boards.evidence("frozenlake", seen, symbols) == "player 1,1 A"
    assert boards.evidence("frozenlake", [seen[0], seen[0]], symbols) == ""
    fallen = [seen[0], [list("DD"), list("XB")]]
    assert boards.evidence("frozenlake", fallen, symbols) == "player 1,1 A hole 2,1 C"


def test_a_rooms_evidence_is_on_its_last_board() -> None:
    room = {"player": "A", "box": "B", "goal": "C", "floor": "D", "wall": "E", "box_on_goal": "b"}

    def rows(inside: str) -> boards.Rows:
        return [list("EEEEEE"), ["E", *inside, "E"], list("EEEEEE")]

    still = [rows("ABDC"), rows("DADb")]
    assert boards.evidence("sokoban", still, room) == "2,2 D 2,3 ? A 2,4 | 2,5 ! b ? A ! b"
    notes = """Turn 1: Right: the player moved from 2,2 to 2,3, pushing a box to 2,4.
Turn 2: Right: the player moved from 2,3 to 2,4, pushing a box off a goal to 2,5.
Turn 3: Left: the player moved from 2,4 to 2,3.
"""
    moved = "the player moved from 2,4 to 2,3"
    scan = "2,2 D 2,3 player A 2,4 | 2,5 box b player A box b"
    told = boards.evidence("sokoban", still, room, notes)
    assert told == f"{moved} , pushing a box off a goal to 2,5 {scan}"
    notes += "Turn 4: Right: the box at 2,5 has a wall behind it, so nothing changed."
    told = boards.evidence("sokoban", still, room, notes)
    assert told == f"{moved} the box at 2,5 {scan}"
    told = boards.evidence("sokoban", [rows("ABDC")], room, "the player moved from 2,3 to 2,2")
    scan = "2,2 player A 2,3 ? B 2,4 D 2,5 ! C player A ? B ! C"
    assert told == f"the player moved from 2,3 to 2,2 {scan}"


@pytest.mark.parametrize("game", GAMES)
def test_who_is_told_nothing_learns_all_four_actions(game: boards.Game) -> None:
    random = rng(4)
    env = games.make(game, games.deal(game, random))
    said_: list[str] = []
    for _ in range(60):
        task = games.draw_task(game, random)
        env.reset(options={"task": task})
        parts = games.play(env, task, env.system_prompt, "untold", random).parts
        assert all(p.kind == LEARN for p in parts if p.text.startswith("```"))
        said_ += [p.text for p in parts if p.text.startswith("```")]
    shares = [said_.count(f"```{a}```") / len(said_) for a in ("Up", "Down", "Left", "Right")]
    assert all(0.15 < share < 0.35 for share in shares)


def test_collate_weighs_what_is_said_as_one_and_the_worlds_answers_less(words: Any) -> None:
    parts = [*told({"role": "user", "content": "A B"}), *said(Part("A 1 1", LEARN))]
    parts += told({"role": "user", "content": "B A"}, SHOWN)
    example = encode(words, [parts])[0]
    assert example.kinds == [GIVEN, GIVEN, GIVEN, GIVEN, LEARN, LEARN, LEARN, LEARN, GIVEN, 1, 1]
    batch = pretrain.collate([example, example], 16, 4, 0.25, rng(0))
    assert batch.ids_BT.shape == (4, 16)
    assert batch.weight_P.sum().item() == pytest.approx(1.25)
    flat = batch.ids_BT[:, 1:].reshape(-1)
    assert torch.equal(flat[batch.place_P], batch.target_P)
    heavy = batch.weight_P == batch.weight_P[0]
    said_ids = [example.ids[i] for i in range(4, 8)]
    assert sorted(batch.target_P[heavy].tolist()) == sorted(said_ids * 2)


def test_a_step_of_pretraining_is_a_function_of_seed_and_step(words: Any) -> None:
    recipe = Recipe(tokens=2048)
    one, same, other = (pretrain.draw_batch(recipe, words, step) for step in (3, 3, 4))
    assert one[0] == same[0]
    assert torch.equal(one[1].ids_BT, same[1].ids_BT)
    assert not torch.equal(one[1].ids_BT, other[1].ids_BT)
    drawn = [{pretrain.draw_batch(recipe, words, at + n)[0] for n in range(60)} for at in (0, 1500)]
    own = pretrain.SOURCES["frozenlake"]
    assert drawn == [{*pretrain.FIRST}, {*pretrain.THEN} & {*own}]
    assert {*pretrain.THEN} == {name for of in pretrain.SOURCES.values() for name in of}


def test_a_lead_starts_as_sokoban_and_the_own_part_anew(words: Any) -> None:
    led = Recipe(env="frozenlake", tokens=1024, lead=5, warmup=10)
    room = Recipe(env="sokoban", tokens=1024)
    own, theirs = (pretrain.draw_batch(recipe, words, 3)[1] for recipe in (led, room))
    assert torch.equal(own.ids_BT, theirs.ids_BT)
    rates = [pretrain.learning_rate(led, step) for step in range(10)]
    assert rates[5:] == rates[:5]


def test_it_cools_down_after_all_steps() -> None:
    recipe = Recipe(lead=3, steps=10, warmup=2, cooling=4, lr=1.0)
    rates = [pretrain.learning_rate(recipe, step) for step in range(3, 17)]
    same = [pretrain.learning_rate(replace(recipe, cooling=0), step) for step in range(3, 13)]
    assert rates[:10] == same and same[-1] > 0.1
    assert rates[10:] == pytest.approx([0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize("game", GAMES)
def test_cells_are_cited_as_the_board_shows_them(game: boards.Game) -> None:
    for seed in range(20):
        parts = games.looking(game, rng(seed))
        texts = [part.text for part in parts]
        start = texts.index("<|assistant|>") + 1
        rows = boards.board_rows(texts[start - 2])
        answer = parts[start:-1]
        assert [part.kind for part in answer] == [GIVEN, LEARN] * (len(answer) // 2)
        assert not any(part.kind == LEARN for part in parts[:start])
        cited = {p.text: s.text for p, s in zip(answer[::2], answer[1::2], strict=True)}
        assert len(cited) == len(answer) // 2 >= 4
        assert set(cited.values()) == {symbol for row in rows for symbol in row}
        for cell, symbol in cited.items():
            r, c = map(int, cell.split(","))
            assert rows[r - 1][c - 1] == symbol


def test_pretraining_resumes_bit_for_bit(words: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 2)
    recipe = Recipe(
        hidden=32,
        layers=1,
        heads=1,
        steps=3,
        playing=2,
        cooling=1,
        tokens=1024,
        warmup=2,
        compiled=False,
    )
    whole = pretrain.pretrain(recipe, words, tmp_path / "whole")

    class Stopped(Exception):
        pass

    draw = pretrain.draw_batch

    def stop(recipe: Any, words: Any, step: int) -> Any:
        if step == 3:
            raise Stopped
        return draw(recipe, words, step)

    monkeypatch.setattr(pretrain, "draw_batch", stop)
    with pytest.raises(Stopped):
        pretrain.pretrain(recipe, words, tmp_path / "parts")
    monkeypatch.setattr(pretrain, "draw_batch", draw)
    parts = pretrain.pretrain(recipe, words, tmp_path / "parts")
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="parts holds a model with another seed"):
        pretrain.pretrain(replace(recipe, seed=1), words, tmp_path / "parts")


def test_reflection_prompts_fit_the_longest_shape(words: Any) -> None:
    random = rng(5)
    examples = encode(words, [games.reflecting("sokoban", random) for _ in range(30)])
    assert max(len(example.ids) for example in examples) <= pretrain.SHAPES[-1]
    assert all(words.unk_token_id not in example.ids for example in examples)


def test_gates_measure_what_a_policy_does() -> None:
    """The oracle plays well whoever tells it; its reflections are the rules."""
    from erl_envs.policies import load
    from erl_trainer.nano import gates

    oracle = gates.measure(load("oracle"), "frozenlake", 1)
    assert (oracle.told, oracle.untold) == (1.0, 1.0)
    assert [line.split(":")[1].split()[0] for line in oracle.failed()] == ["not", "second"]
    passed = gates.Skills("sokoban", 0.95, 0.05, 0.05, 0.5, 0.4)
    assert passed.failed() == []
    assert gates.Skills("sokoban", 0.89, 0.08, 0.05, 0.4, 0.4).failed() == [
        "sokoban: told 0.890, needs 0.90",
        "sokoban: not told 0.080, at most 0.075",
        "sokoban: second attempt 0.400, needs 0.445",
    ]
    assert "every gate passed" in gates.table([passed])
    assert gates.Skills("hotpotqa", 0.9, 0.1, 0.0, 0.5, 1.0).failed() == [
        "hotpotqa: not told 0.100, at most 0.000"
    ]


def test_without_its_models_nano_says_how_to_build_them(tmp_path: Any, monkeypatch: Any) -> None:
    from erl_envs.policies import load, nano

    monkeypatch.setattr(nano, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="built by: python -m erl_trainer nano --ship"):
        load("nano")
    with pytest.raises(ValueError, match="nano has no model for 'chess'; its models are built by"):
        nano.folder("chess")


def test_a_recounted_room_is_a_reflection_in_few_tokens() -> None:
    for parts in (games.recounting(rng(seed)) for seed in range(30)):
        thought, rulebook, _ = parts[-3:]
        assert thought.kind == rulebook.kind == LEARN
        player = rulebook.text.removeprefix("<prompt>").split()[0]
        last = thought.text.split()[-6:]
        assert {last[1], last[3], last[5]} >= {player} or player.lower() in last
        assert ("player moved" in "".join(p.text for p in parts[:-3])) == ("player" in last)
