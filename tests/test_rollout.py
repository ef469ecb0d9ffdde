"""The loop: two attempts as the paper has them, failures that are no zeros, no one's order."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from erl_envs import registry, tasks
from erl_envs.core import Attempt, EnvError, Episode, Task, TextEnv
from erl_envs.frozenlake import FrozenLake
from erl_envs.policies import Completion, Conversation, Policy, PolicyError, Sampling, load
from erl_envs.reflection import (
    MAX_RULEBOOK,
    read_rulebook,
    reflection_messages,
    second_prompt,
    shorten,
)
from erl_envs.rollout import EnvPool, Job, Player, rollout

RULES = "<prompt>Reach B by going Right.</prompt>"


class Scripted(Policy):
    """Answers by a function of the conversation, and records what it was shown."""

    spec, revision = "scripted", "1"

    def __init__(self, answer: Callable[[Conversation], str | PolicyError], remote: bool = False):
        self.answer, self.remote = answer, remote
        self.batches: list[list[Conversation]] = []

    def complete(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion | PolicyError]:
        self.batches.append(list(conversations))
        found = [self.answer(conversation) for conversation in conversations]
        return [a if isinstance(a, PolicyError) else Completion(a) for a in found]


def corridor(length: int = 3) -> Any:
    return Task("frozenlake", {"desc": ["S" + "F" * (length - 2) + "G"]})


def play(
    actor: Policy, reflector: Policy | None = None, jobs: Sequence[Job] = (), **kwargs: Any
) -> list[Episode]:
    pool = EnvPool({"frozenlake": {"feedback": "transitions"}, "sokoban": {}})
    players: Any = {"actor": Player(actor, Sampling())}
    if kwargs.get("attempts") == 2:
        players["reflector"] = Player(reflector or actor, Sampling(0.5, 0.9, 0))
    return list(rollout(jobs or [Job(corridor(), 0, 0)], pool, players, **kwargs))


def plays_left_until_told(conversation: Conversation) -> str:
    if conversation.key[3] == "reflection":
        return f"I noticed something. {RULES}"
    told = "Reach B" in conversation.messages[0]["content"]
    return "```Right```" if told else "```Left```"


def test_two_attempts_read_like_the_paper() -> None:
    (episode,) = play(Scripted(plays_left_until_told), attempts=2)
    first, second = episode.attempts
    assert (first.reward, first.outcome) == (0.0, "out_of_turns")
    assert (second.reward, second.outcome) == (1.0, "solved")
    env = FrozenLake()
    env.reset(options={"task": episode.task})
    assert episode.reflection is not None
    assert episode.reflection.rulebook == "Reach B by going Right."
    assert episode.reflection.prompt == f"Reach B by going Right.\n\n{env.format_reminder}"
    assert first.messages[0]["content"] == env.system_prompt
    assert second.messages[0]["content"] == episode.reflection.prompt
    asked = episode.reflection.messages[1]["content"]
    assert first.feedback in asked and env.system_prompt in asked
    assert all(message["content"] in asked for message in first.messages[1:])
    roles = [message["role"] for message in second.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert second.messages[-1]["content"] == " D \t D \t √ \t"


def test_a_solved_attempt_is_not_reflected_on() -> None:
    actor = Scripted(lambda c: "```Right```")
    (episode,) = play(actor, attempts=2)
    assert len(episode.attempts) == 1 and episode.reflection is None and episode.valid
    assert all(c.key[3] == "attempt_1" for batch in actor.batches for c in batch)


def test_without_tags_attempt_two_gets_the_initial_prompt() -> None:
    def answer(conversation: Conversation) -> str:
        return "no tags" if conversation.key[3] == "reflection" else "```Left```"

    (episode,) = play(Scripted(answer), attempts=2)
    assert episode.reflection is not None and episode.reflection.rulebook is None
    assert episode.attempts[1].messages[0] == episode.attempts[0].messages[0]


def test_memory_is_shown_and_takes_the_place_of_a_missing_rulebook() -> None:
    env = FrozenLake()
    env.reset(seed=0)
    assert second_prompt(env, None, "old rules").startswith("old rules\n\n")
    assert second_prompt(env, "new rules", "old rules").startswith("new rules\n\n")
    attempt = Attempt(
        corridor(), 0, [{"role": "system", "content": "s"}], [], 0.0, "Reward: 0 of 1.", "lost"
    )
    assert "old rules" in reflection_messages(env, attempt, "old rules")[1]["content"]
    assert "earlier task" not in reflection_messages(env, attempt)[1]["content"]


def test_lengths_are_bounded() -> None:
    assert shorten("a" * 10, 10) == "a" * 10
    short = shorten("a" * 500 + "b" * 1_000_000 + "c" * 500, 1_000)
    assert short.startswith("a" * 500) and short.endswith("c" * 500) and len(short) < 1_050
    assert "1000000 characters left out" in short
    rulebook = read_rulebook(f"<prompt>{'x' * 100_000}</prompt>")
    assert rulebook is not None and len(rulebook) == MAX_RULEBOOK


def test_a_policy_error_makes_an_invalid_attempt_not_a_zero() -> None:
    (episode,) = play(Scripted(lambda c: PolicyError("server gone")))
    assert not episode.valid and episode.attempts[0].error == "PolicyError: server gone"
    assert episode.attempts[0].feedback == "" and episode.attempts[0].outcome == ""


def test_a_failed_reflection_makes_an_invalid_episode() -> None:
    def answer(conversation: Conversation) -> str | PolicyError:
        if conversation.key[3] == "reflection":
            return PolicyError("server gone")
        return "```Left```"

    (episode,) = play(Scripted(answer), attempts=2)
    assert not episode.valid and episode.error == "reflection: server gone"
    assert episode.attempts[0].valid


class Failing(FrozenLake):
    """Its outside world fails on the second turn."""

    name = "failing"

    def act(self, action: str) -> Any:
        if self.turn == 1:
            raise EnvError("retriever down")
        return super().act(action)


def test_an_env_error_makes_an_invalid_attempt_that_keeps_its_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry._ENTRY_POINTS, "failing", Failing)
    pool = EnvPool({"failing": {}})
    job = Job(Task("failing", {"desc": ["SFFG"]}), 0, 0)
    players: Any = {"actor": Player(Scripted(lambda c: "```Right```"), Sampling())}
    (episode,) = rollout([job], pool, players)
    attempt = episode.attempts[0]
    assert attempt.error == "EnvError: retriever down" and not attempt.valid
    assert len(attempt.turns) == 1 and attempt.reward == 0.0


class Closed(FrozenLake):
    """Its outside world is not there when an attempt at a board of three begins."""

    name = "closed"

    def begin(self, params: Any) -> None:
        if len(params["desc"][0]) == 3:
            raise EnvError("the index is not ready")
        super().begin(params)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("width", [1, 2, 64])
def test_an_attempt_that_cannot_begin_is_invalid(
    monkeypatch: pytest.MonkeyPatch, remote: bool, width: int
) -> None:
    monkeypatch.setitem(registry._ENTRY_POINTS, "closed", Closed)
    pool = EnvPool({"closed": {}})
    boards = ["SFG", "SFG", "SFFG", "SFG"]
    played = [Job(Task("closed", {"desc": [board]}), i, 0) for i, board in enumerate(boards)]
    players: Any = {"actor": Player(Scripted(lambda c: "```Right```", remote), Sampling())}
    found = {e.sample: e.attempts[0] for e in rollout(played, pool, players, concurrency=width)}
    assert [found[i].valid for i in range(4)] == [False, False, True, False]
    assert found[0].error == "EnvError: the index is not ready" and found[2].reward == 1.0


def jobs(count: int = 40) -> list[Job]:
    found = [*tasks.load("frozenlake", "paper-test"), *tasks.load("sokoban", "paper-test")]
    return [Job(task, sample, 7) for task in found[:count:2] for sample in range(2)]


def test_results_do_not_depend_on_what_is_played_beside() -> None:
    random = load("random")
    alone = {e.key: e for job in jobs() for e in play(random, jobs=[job])}
    for width in (1, 3, 64):
        together = {e.key: e for e in play(random, jobs=jobs(), concurrency=width)}
        assert together == alone
    backwards = {e.key: e for e in play(random, jobs=jobs()[::-1])}
    assert backwards == alone


def test_samples_of_a_task_differ_and_seeds_count() -> None:
    texts = {
        tuple(m["content"] for m in e.attempts[0].messages)
        for seed in (0, 1)
        for e in play(load("random"), jobs=[Job(corridor(7), k, seed) for k in range(5)])
    }
    assert len(texts) == 10


def test_a_batch_holds_all_live_conversations_and_refills() -> None:
    actor = Scripted(lambda c: "```Right```")
    lengths = [Job(corridor(3 + i % 4), i, 0) for i in range(10)]
    episodes = play(actor, jobs=lengths, concurrency=4)
    assert len(episodes) == 10
    sizes = [len(batch) for batch in actor.batches]
    assert max(sizes) == 4 and sizes[:-4] == [4] * (len(sizes) - 4)


def test_remote_policies_go_their_own_pace() -> None:
    """A batch of all would deadlock here: the first answer waits for another's third turn."""
    third_turn = threading.Event()

    def answer(conversation: Conversation) -> str:
        turn = sum(m["role"] == "assistant" for m in conversation.messages)
        if conversation.key[2] == 0 and turn == 0:
            assert third_turn.wait(timeout=20)
        if conversation.key[2] == 1 and turn == 2:
            third_turn.set()
        return "```Left```"

    actor = Scripted(answer, remote=True)
    episodes = play(actor, jobs=[Job(corridor(), k, 0) for k in range(2)], concurrency=2)
    assert sorted(e.sample for e in episodes) == [0, 1] and all(e.valid for e in episodes)
    assert all(len(batch) == 1 for batch in actor.batches)


def test_a_stopped_run_waits_for_the_answers_under_way_and_asks_no_more() -> None:
    released, asked = threading.Event(), []

    def answer(conversation: Conversation) -> str:
        if conversation.key[2] == 0:
            return "```Right```"
        asked.append(conversation.key)
        assert released.wait(timeout=20)
        return "```Left```"

    players: Any = {"actor": Player(Scripted(answer, remote=True), Sampling())}
    two = [Job(corridor(), sample, 0) for sample in range(2)]
    run = rollout(two, EnvPool({"frozenlake": {}}), players, concurrency=2)
    assert next(run).sample == 0
    threading.Timer(0.3, released.set).start()
    run.close()  # type: ignore[attr-defined]
    assert len(asked) == 1


def test_the_oracle_reaches_the_ceiling_on_every_paper_task() -> None:
    everything = [
        Job(task, 0, 0)
        for env in ("frozenlake", "sokoban")
        for task in tasks.load(env, "paper-test")
    ]
    episodes = play(load("oracle"), jobs=everything)
    assert [e.attempts[0].reward for e in episodes] == [1.0] * 200


def test_episodes_survive_json() -> None:
    (episode,) = play(Scripted(plays_left_until_told), attempts=2)
    assert Episode.from_json(json.loads(json.dumps(episode.to_json()))) == episode


def test_the_oracles_give_up_is_an_unreadable_turn() -> None:
    closed = Task("sokoban", {"layout": ["#####", "#$ .#", "#@  #", "#####"]})
    (episode,) = play(load("oracle"), jobs=[Job(closed, 0, 0)])
    assert episode.valid and episode.attempts[0].outcome == "out_of_turns"
    assert all(turn.action is None for turn in episode.attempts[0].turns)


def test_env_pool_lends_each_environment_to_one() -> None:
    pool = EnvPool({"frozenlake": {}})
    lent: list[TextEnv] = [pool.lend("frozenlake") for _ in range(3)]
    assert len({id(env) for env in lent}) == 3
    pool.give_back(lent[0])
    assert pool.lend("frozenlake") is lent[0]
