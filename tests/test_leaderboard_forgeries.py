"""Entries that follow from their transcripts and yet are not what they say: copies of all kinds.

The committed entries are the measure of both errors: none of them may be refused
(`test_the_repository_s_own_boards_hold`), and of the forgeries made from each as many as can be.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from submissions import ALONE, ENTRY, by_task, forge, make_run, make_submission, read, rewrite

from erl_envs import policies
from erl_envs.core import Episode, Usage
from erl_envs.eval.run import Config, Here, evaluate
from erl_envs.eval.runfolder import RunFolder
from erl_envs.leaderboard import __main__ as cli
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.build import _check_reproduced, read_boards
from erl_envs.leaderboard.copies import check_names, excess
from erl_envs.leaderboard.declared import check_declared
from erl_envs.leaderboard.independence import IMPOSSIBLE, check_samples, so_few_open, unlikeness
from erl_envs.leaderboard.submission import Submission, read_about, read_episodes
from erl_envs.leaderboard.submit import submit
from erl_envs.leaderboard.tracks import TRACKS
from erl_envs.leaderboard.verify import verify

COMMITTED = Path(__file__).parents[1] / "leaderboards" / "submissions"
ONE = "frozenlake-small-test-hidden-outcome-1"

Task = list[Episode]
Copy = Callable[[Task], Task]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two entries of random play: one attempt, and two with the oracle's rules between them."""
    home = tmp_path_factory.mktemp("home")
    submit(make_run(home / "run"), "frozenlake", ALONE, home / "submissions")
    make_submission(home, entry=replace(ENTRY, name="two-dice"))
    return home


@pytest.fixture
def one(home: Path, tmp_path: Path) -> Path:
    return copied(home, tmp_path, "dice")


@pytest.fixture
def two(home: Path, tmp_path: Path) -> Path:
    return copied(home, tmp_path, "two-dice")


def copied(home: Path, to: Path, name: str) -> Path:
    (folder,) = (home / "submissions").glob(f"*/*_{name}")
    return Path(shutil.copytree(folder, to / "submissions" / folder.parent.name / folder.name))


@functools.cache
def committed() -> list[tuple[str, Submission, list[list[Episode]]]]:
    """The entries with four samples a task, in groups of a task."""
    found = []
    for folder in sorted(COMMITTED.glob("*-small-test-*/*")):
        about = read_about(folder)
        episodes = map(Episode.from_json, read_episodes(folder, about, 10**6))
        found.append((f"{folder.parent.name}/{folder.name}", about, by_task(episodes)))
    return found


# One task's transcripts over its other samples


def earned(episode: Episode) -> float:
    return episode.attempts[-1].reward


def over(task: Task, which: Sequence[int], edit: Callable[..., str] | None = None) -> Task:
    """The best episode of a task in the place of some, perhaps with changed characters."""
    best = max(task, key=earned)
    made = list(task)
    for n in which:
        text = best if edit is None else rewrite(best, functools.partial(edit, n=n))
        made[n] = replace(text, sample=task[n].sample)
    return made


def others(task: Task) -> list[int]:
    best = max(task, key=earned)
    return [n for n, episode in enumerate(task) if episode is not best]


def worse(task: Task) -> list[int]:
    return [n for n in others(task) if earned(task[n]) < max(map(earned, task))]


def solved(task: Task) -> list[int]:
    return others(task) if max(map(earned, task)) > 0 else []


def blanks(text: str, n: int) -> str:
    return f" {'  ' * n}\n".join(text.upper().split(" ")) + "\u200b" * n


def letters(text: str, n: int) -> str:
    return f"{text} {'a' * n}"


def all_four(task: Task) -> Task:
    return over(task, others(task))


def all_four_with_blanks(task: Task) -> Task:
    return over(task, others(task), blanks)


def all_four_with_other_letters(task: Task) -> Task:
    return over(task, others(task), letters)


def where_solved(task: Task) -> Task:
    return over(task, solved(task))


def where_solved_with_other_letters(task: Task) -> Task:
    return over(task, solved(task), letters)


def over_the_worse_with_other_letters(task: Task) -> Task:
    return over(task, worse(task), letters)


def over_two_worse(task: Task) -> Task:
    return over(task, worse(task)[:2])


def over_one_worse(task: Task) -> Task:
    return over(task, worse(task)[:1])


def two_of_four(task: Task) -> Task:
    return over(task, others(task)[:1])


def pairs(task: Task) -> Task:
    """Two and two, whatever they earn."""
    return [replace(task[n - n % 2], sample=episode.sample) for n, episode in enumerate(task)]


def half_of_the_solved(task: Task) -> Task:
    return where_solved(task) if int(task[0].task.id, 16) % 2 else task


def second_attempts(task: Task) -> Task:
    """The best second attempt, with its reflection, after every first attempt that failed."""
    best = max((e for e in task if e.reflection), key=earned, default=None)
    if best is None:
        return task
    return [
        replace(e, attempts=[e.attempts[0], best.attempts[1]], reflection=best.reflection)
        if e.reflection
        else e
        for e in task
    ]


def reflections_in_pairs(task: Task) -> Task:
    made = [e for e in task if e.reflection]
    return [replace(e, reflection=made[n - n % 2].reflection) for n, e in enumerate(made)]


EQUAL = "all first attempts of a task are equal, on every task: if the policy does not sample"
ALIKE = "earn different rewards on 0 of 100 tasks alone"
BOUND = "the samples of a task are not independent: 0 to"

ONE_ATTEMPT: dict[Copy, str] = {
    all_four: EQUAL,
    all_four_with_blanks: EQUAL,
    all_four_with_other_letters: ALIKE,
    where_solved: ALIKE,
    where_solved_with_other_letters: ALIKE,
    two_of_four: BOUND,
    pairs: BOUND,
}


@pytest.mark.parametrize("copy", ONE_ATTEMPT, ids=lambda copy: copy.__name__)
def test_copied_samples_are_refused(one: Path, copy: Copy) -> None:
    forge(one, copy)
    refused(one, ONE_ATTEMPT[copy])


TWO_ATTEMPTS: dict[Copy, str] = {
    all_four: EQUAL,
    all_four_with_other_letters: ALIKE,
    second_attempts: "all second attempts of a task are equal",
    pairs: BOUND,
}


@pytest.mark.parametrize("copy", TWO_ATTEMPTS, ids=lambda copy: copy.__name__)
def test_copied_second_attempts_are_refused(two: Path, copy: Copy) -> None:
    forge(two, copy)
    refused(two, TWO_ATTEMPTS[copy])


def refused(folder: Path, message: str) -> None:
    with pytest.raises(Refused) as refusal:
        verify(folder)
    told = str(refusal.value)
    assert message in told and "\n" not in told and len(told) < 400


def test_copied_reflections_are_refused() -> None:
    name = "sokoban-small-test-hidden-transitions-2/2026-11-23_nano"
    about, tasks = next((about, tasks) for where, about, tasks in committed() if where == name)
    check_samples(about, flat(tasks))
    with pytest.raises(Refused, match="others have the text of one's reflection"):
        check_samples(about, flat(map(reflections_in_pairs, tasks)))


def flat(tasks: Iterable[Task]) -> list[Episode]:
    return list(chain.from_iterable(tasks))


def test_a_policy_that_does_not_sample_may_say_so(one: Path) -> None:
    def greedy(about: dict[str, Any]) -> None:
        about["sampling"]["temperature"] = 0.0

    forge(one, all_four, greedy)
    verify(one)  # one sample a task, whoever picked it: nothing of it shows


def test_the_rest_of_an_entry_may_be_missing(one: Path) -> None:
    """Whose server was down is judged by what is there."""
    forge(one, lambda task: task[: int(task[0].task.id, 16) % 5])
    assert verify(one).missing > 100


REFUSED: dict[Copy, tuple[int, int]] = {
    all_four: (14, 14),
    all_four_with_blanks: (14, 14),
    all_four_with_other_letters: (10, 14),
    where_solved: (10, 14),
    where_solved_with_other_letters: (10, 14),
    over_the_worse_with_other_letters: (9, 14),
    second_attempts: (6, 6),
    two_of_four: (8, 13),
    over_two_worse: (5, 13),
    half_of_the_solved: (4, 13),
    over_one_worse: (2, 13),
}
"""How many forgeries are refused, of how many that gain .02: one from each committed entry with
four samples a task. What passes is near the top already, or copies on some tasks, or one sample
over one other; nothing but playing again tells such a one from luck."""


def test_how_many_copies_of_committed_entries_are_refused() -> None:
    found: dict[Copy, list[bool]] = {copy: [] for copy in REFUSED}
    for _, about, tasks in committed():
        before = np.mean([*map(earned, flat(tasks))])
        for copy in REFUSED:
            made = flat(map(copy, tasks))
            if np.mean([*map(earned, made)]) >= before + 0.02:
                found[copy].append(is_refused(check_samples, about, made))
    assert {copy: (sum(kind), len(kind)) for copy, kind in found.items()} == REFUSED


def is_refused(check: Callable[..., None], *values: Any) -> bool:
    try:
        check(*values)
    except Refused:
        return True
    return False


@pytest.mark.parametrize("spread", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("mean", [0.05, 0.3, 0.5, 0.8, 0.97])
def test_honest_entries_are_not_refused(spread: float, mean: float) -> None:
    """Entries of policies whose chances are spread as those of the committed ones, or evener."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        chances = rng.beta(spread * mean, spread * (1 - mean), 100)
        successes = rng.binomial(4, chances)
        assert unlikeness(np.bincount(successes, minlength=5).astype(float)) < IMPOSSIBLE
        open_ = int(((successes > 0) & (successes < 4)).sum())
        assert so_few_open(open_, [4] * 100, list(successes / 4)) > 1e-3


def test_a_mixture_explains_itself_and_nothing_else() -> None:
    even = np.array([1.0, 4, 6, 4, 1])  # of one fair coin for all
    assert unlikeness(6 * even) == pytest.approx(0, abs=0.05)
    assert unlikeness(np.array([50.0, 0, 0, 0, 50])) == pytest.approx(0, abs=0.05)
    # two of four on every task: 6/16 of the time at best, by a coin
    assert unlikeness(np.array([0.0, 0, 9, 0, 0])) == pytest.approx(9 * np.log(16 / 6), abs=0.05)


def test_open_tasks_are_expected() -> None:
    """Two draws of a beta distribution with α = β = 1/8 differ with 2·(1/8)²/(1/4·5/4) = 1/10."""
    assert so_few_open(0, [2], [0.5]) == pytest.approx(0.9)
    assert so_few_open(0, [2, 2], [0.0, 1.0]) == pytest.approx(0.81)
    assert so_few_open(1, [2, 2], [0.0, 1.0]) == pytest.approx(0.99)
    assert so_few_open(0, [4] * 100, [1.0] * 100) == 1  # who always succeeds has none


# One entry's transcripts under another name


def beside(folder: Path, edit: Copy = list, name: str = "mine", **about: Any) -> Path:
    """An entry made of another, in its own folder beside it."""
    own = {"name": name, "model": name, **about}
    place = folder.with_name(f"{own.get('date', '2026-01-31')}_{name}")
    shutil.copytree(folder, place)
    forge(place, edit, lambda told: told.update(own))
    return place


def other_samples(task: Task) -> Task:
    return [replace(episode, sample=3 - episode.sample) for episode in task]


def with_blanks(task: Task) -> Task:
    return [rewrite(episode, lambda text: blanks(text, 1)) for episode in task]


def without_failures(task: Task) -> Task:
    return [episode for episode in task if earned(episode)]


def in_other_words(task: Task) -> Task:
    return [rewrite(episode, lambda text: f"Let me see. {text}") for episode in task]


THOSE = "of its transcripts are those of frozenlake-small-test-hidden-outcome-1/2026-01-31_dice"
AGREE = "agree with those of frozenlake-small-test-hidden-outcome-1/2026-01-31_dice more than"

UNDER_ANOTHER_NAME: dict[Copy, str] = {
    list: THOSE,
    other_samples: THOSE,
    with_blanks: THOSE,
    without_failures: THOSE,
    in_other_words: f"its actions {AGREE}",
}


@pytest.mark.parametrize("copy", UNDER_ANOTHER_NAME, ids=lambda copy: copy.__name__)
def test_another_s_transcripts_are_refused(
    one: Path, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = beside(one, copy)
    verify(mine)  # alone it is an entry as any
    assert cli.main(["verify", str(mine)]) == 1
    told = capsys.readouterr().err
    assert UNDER_ANOTHER_NAME[copy] in told
    assert told.count("\n") == 1 and len(told.removeprefix(str(mine))) < 400
    with pytest.raises(Refused) as refusal:
        read_boards(one.parents[2])
    assert UNDER_ANOTHER_NAME[copy] in str(refusal.value)


def test_first_attempts_of_another_track_are_refused(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random play with the same seed: what both tracks' first attempts say."""
    run = make_run(two.parents[2] / "run")
    with pytest.raises(Refused, match=r"100% of its transcripts are those of .*two-dice"):
        submit(run, "frozenlake", replace(ALONE, model="mine"), two.parents[1])
    assert not (two.parents[1] / ONE).exists()
    submit(run, "frozenlake", ALONE, two.parents[1])  # the same model's


def test_an_own_run_is_not_another_s(one: Path) -> None:
    run = make_run(one.parents[2] / "run", seed=1)
    submit(run, "frozenlake", replace(ALONE, name="mine", model="mine"), one.parents[1])
    assert cli.main(["verify", *map(str, one.parent.iterdir())]) == 0


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"date": "2026-02-02"}, f"{ONE}/2026-01-31_dice has its name: an entry of a track needs"),
        ({"date": "2026-02-02", "model": "loaded"}, "has its name: an entry of a track needs"),
    ],
)
def test_a_name_stands_for_one_entry_of_a_track(
    one: Path, about: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    again = beside(one, name="dice", **about)
    assert cli.main(["verify", str(again)]) == 1
    assert message in capsys.readouterr().err
    with pytest.raises(Refused, match="has its name"):
        read_boards(one.parents[2])


def test_a_name_stands_for_one_model_on_all_tracks(one: Path) -> None:
    about = read_about(one)
    elsewhere = replace(about, track=TRACKS["sokoban-test-hidden-outcome-1"].specification())
    check_names(replace(elsewhere, revision="2"), about)
    with pytest.raises(Refused, match="2026-01-31_dice has its name, and another model"):
        check_names(replace(elsewhere, model="loaded dice"), about)


def test_what_lies_beside_an_entry_cannot_hurt_it(one: Path) -> None:
    (one.parent / "2026-01-01_broken").mkdir()
    (one.parent / "2026-01-01_file").write_text("{}", encoding="utf-8")
    broken = Path(shutil.copytree(one, one.with_name("2026-01-01_cut")))
    (broken / "episodes.jsonl.gz").write_bytes(b"")
    assert cli.main(["verify", str(one)]) == 0


@pytest.mark.parametrize("size", [1, 2, 12, 1000])
def test_one_policy_s_entries_agree_by_chance_alone(size: int) -> None:
    """Two entries of a policy with so many equally likely transcripts a task, and a copy."""
    rng = np.random.default_rng(0)

    def entry() -> dict[tuple[str, str], list[int]]:
        return {(str(task), "a"): rng.integers(size, size=4).tolist() for task in range(100)}

    first = entry()
    for _ in range(200):
        assert excess(first, entry()) < 4
    assert excess(first, first) > 5 or size < 12


# Playing again


def test_the_same_episodes_do_not_reproduce(one: Path) -> None:
    entry = verify(one)
    again = verify(beside(one, with_blanks, name="again", model="dice"))
    with pytest.raises(Refused, match=r"is the same episodes: 100% of its transcripts are the en"):
        _check_reproduced({"one": entry, "two": again}, "one", "two")


def test_other_episodes_reproduce(one: Path) -> None:
    entry = verify(one)
    run = make_run(one.parents[2] / "run", seed=1)
    _, again = submit(run, "frozenlake", replace(ALONE, name="again"), one.parents[1])
    _check_reproduced({"one": entry, "two": again}, "one", "two")


def test_a_policy_that_never_varies_is_played_again_on_a_salted_set(tmp_path: Path) -> None:
    def oracle(name: str, **config: Any) -> Any:
        asked = Config(("frozenlake",), **{"split": "small-test", "samples": 4, **config})
        out = tmp_path / "runs" / name
        evaluate(asked, Here(asked, policies.load("oracle"), None), RunFolder(out))
        entry = replace(ALONE, name=name, model="oracle")
        return submit(out, "frozenlake", entry, tmp_path / name)[1]

    entry, again = oracle("oracle"), oracle("again", seed=1)
    with pytest.raises(Refused, match="a salted set has others"):
        _check_reproduced({"one": entry, "two": again}, "one", "two")
    salted = oracle("salted", split="small-test@secret")
    _check_reproduced({"one": entry, "two": salted}, "one", "two")


# Sampling that is declared


def declare(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda about: about["sampling"].update(values)


def tokens(number: int) -> Copy:
    def edit(task: Task) -> Task:
        first = task[0].attempts[0]
        turns = [replace(turn, usage=Usage(9, number)) for turn in first.turns]
        return [replace(task[0], attempts=[replace(first, turns=turns)]), *task[1:]]

    return edit


def long_message(task: Task) -> Task:
    return [rewrite(episode, lambda text: "Hm. " * 300 + text) for episode in task]


GREEDY = "sampling is declared greedy, but 2"
SAMPLING: dict[str, tuple[Copy, Callable[[dict[str, Any]], None], str]] = {
    "temperature 0": (list, declare(temperature=0), GREEDY),
    "temperature of nearly 0": (list, declare(temperature=1e-9), GREEDY),
    "top_k 1": (list, declare(top_k=1), GREEDY),
    "top_p of nearly 0": (list, declare(top_p=1e-9), GREEDY),
    "both": (list, declare(temperature=0, max_tokens=1), "where max_tokens is 1"),
    "one token": (list, declare(max_tokens=1), "where max_tokens is 1"),
    "few tokens": (long_message, declare(max_tokens=3), "characters and ended by itself, where"),
    "counted tokens": (tokens(40), declare(max_tokens=39), "of 40 tokens, where max_tokens is 39"),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_sampling_that_made_none_of_it_is_refused(one: Path, name: str) -> None:
    copy, about, message = SAMPLING[name]
    forge(one, copy, about)
    refused(one, message)


def test_as_many_tokens_as_declared_are_taken(one: Path) -> None:
    forge(one, tokens(40), declare(max_tokens=40))
    verify(one)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (None, "reflection_sampling must say how"),
        ({}, "reflection_sampling is none"),
        ({"max_tokens": 1}, "reflection: a message of 9 tokens, where max_tokens is 1"),
    ],
)
def test_a_reflector_s_sampling_is_declared_too(
    two: Path, sampling: dict[str, Any] | None, message: str
) -> None:
    def cost(task: Task) -> Task:
        return [
            e and replace(e, reflection=e.reflection and replace(e.reflection, usage=Usage(9, 9)))
            for e in task
        ]

    def about(told: dict[str, Any]) -> None:
        told["reflection_sampling"] = sampling and {**told["reflection_sampling"], **sampling}

    forge(two, cost, about)
    refused(two, message)


def test_nobody_reflects_on_one_attempt(one: Path) -> None:
    forge(one, list, lambda about: about.update(reflection_sampling=about["sampling"]))
    refused(one, "nobody reflects on")


CERTAIN = {"oracle", "nano-erl"}
"""Committed policies that may be greedy, for all that their messages tell; on HotpotQA the two that
answer at once are as well."""


def test_committed_entries_are_not_greedy() -> None:
    for where, about, tasks in committed():
        greedy = replace(about, sampling={**about.sampling, "temperature": 0.0})
        env, name = where.split("-")[0], where.split("_")[1]
        may_be = name in CERTAIN or (env == "hotpotqa" and name in ("nano", "nano-grpo"))
        assert is_refused(check_declared, greedy, flat(tasks)) != may_be


def test_a_near_tie_now_and_then_is_taken(one: Path) -> None:
    """Greedy answers differ where rounding does: once in some thousands of characters."""
    about, lines = read(one)
    episodes = list(map(Episode.from_json, lines))
    text = json.dumps(list(range(500)))

    def greedy(task: Task, rounded: bool) -> Task:
        made = []
        for sample in range(4):
            said = f"{text} {sample * rounded} "
            made.append(replace(rewrite(task[0], said.__add__), sample=sample))
        return made

    told = replace(about, sampling={**about.sampling, "temperature": 0.0})
    made = [e for n, t in enumerate(by_task(episodes)) for e in greedy(t, rounded=n % 2 == 0)]
    check_declared(told, made)
