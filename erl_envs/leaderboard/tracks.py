"""What is measured, exactly: every track's frozen specification.

A track is environment × split × rules × feedback × attempts. What its options leave open (how a
board is written, how many passages a search shows) is the player's choice and told in its entry.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from erl_envs import registry, tasks
from erl_envs.core import LEVELS, Level, Reference, Task, TextEnv
from erl_envs.options import to_json

Rules = Literal["hidden", "shown"]

FREE = ("prompt_style", "coordinates", "top_k", "snippet_chars")
"""Options that a player chooses: how it is told what everybody is told."""

SAMPLES: Mapping[str, int] = {"test": 1, "hard": 1, "paper-test": 4, "small-test": 4}
"""Split → episodes a task; the paper's are 4."""

TASKS: Mapping[str, int] = {"test": 200, "hard": 100, "paper-test": 100, "small-test": 100}
"""Split → its tasks."""

HASHES: Mapping[tuple[str, str], str] = {
    ("frozenlake", "test"): "5e6cf6df437f8e603cbff1ccb780eda83bc645f127f357773fcf79198096ef78",
    ("frozenlake", "hard"): "2dce8206ef5d1dafa094d5d5f088cfa26ba4e2c37ac38b4333567a66cc2d3afd",
    ("frozenlake", "paper-test"): (
        "7a2ce403e65ff573afd078cb61d0147c3a88bc80895f1b75143cc57c9439fe25"
    ),
    ("frozenlake", "small-test"): (
        "1c310c8a8b7a0c7b7f402f7a57c649309519da4bc75cc8a573de49f462eba3da"
    ),
    ("sokoban", "test"): "336ae16ab8c19bef04cb742657cc1305ff5888b9f22fc9e53e4f2084f082f1c8",
    ("sokoban", "hard"): "cc1e51a81b51c5c485d77e59f4cd5a2b06f5336d08b7b10799ed61e8521ce511",
    ("sokoban", "paper-test"): "dcc028c37f279e97347d064439ab684f03ab15c21a549a87f6b222d1db2727ac",
    ("sokoban", "small-test"): "d3df813d45a57f2b1c2931e9a7bb2ce675fb2d837099835fd7ae391df56e4505",
    ("hotpotqa", "test"): "13b8118b4e11102e5c3d012084bbce48dd0616ce79ca21571b4c05b95fc815cc",
    ("hotpotqa", "hard"): "419278727908e4480cf7dbdd0d0b774fb7cf73312c92e2107808c28f398c2d72",
    ("hotpotqa", "small-test"): "faacf0e74e74c14832fd9051eb8858c9048c839fb4379cd475d31b6ec927009e",
}
"""Of each task set (`tasks.split_hash`); with other tasks it would not be the same track."""

CORPORA: Mapping[str, str] = {
    "test": "704494c39af4c21e3bcfa628d7a7b375e69b766e45dd27c79a685ee7ef2f8841",
    "hard": "45b439248f853b6c14742d9281bd1bb878786a19098373ee165db9b5b106dfd7",
    "small-test": "704494c39af4c21e3bcfa628d7a7b375e69b766e45dd27c79a685ee7ef2f8841",
}
"""Of what HotpotQA's splits search (`Corpus.hash`)."""


@dataclass(frozen=True)
class Track:
    """One table of the leaderboards.

    Attributes:
        env: Environment id.
        split: Task set.
        rules: Whether the system prompt tells the rules.
        feedback: What a failed attempt's end tells the reflector.
        attempts: 1, or 2 with a reflection between them.
        version: Goes up when what is measured changes; entries of before must be played again.
    """

    env: str
    split: str
    rules: Rules
    feedback: Level
    attempts: int
    version: int = 1

    @property
    def id(self) -> str:
        """Its name, and its folder's."""
        return f"{self.env}-{self.split}-{self.rules}-{self.feedback}-{self.attempts}"

    @property
    def samples(self) -> int:
        """Episodes a task."""
        return SAMPLES[self.split]

    @property
    def episodes(self) -> int:
        """Episodes of an entry that lacks none."""
        return TASKS[self.split] * self.samples

    @property
    def default(self) -> bool:
        """Whether it is one of the few that everybody should enter."""
        told = "outcome" if self.attempts == 1 else "transitions"
        usual = self.split in ("test", "small-test")
        return self.rules == "hidden" and self.feedback == told and usual

    @property
    def corpus_hash(self) -> str | None:
        """Content hash of what is searched, None where nothing is."""
        return CORPORA[self.split] if self.env == "hotpotqa" else None

    def make(self, free: Mapping[str, Any]) -> TextEnv:
        """Its environment, as a player chose to be told.

        Raises:
            ValueError: An option is not the player's to choose, or its value is bad.
        """
        if closed := sorted(set(free) - set(FREE)):
            raise ValueError(f"option {closed[0]!r} is the track's; free are {', '.join(FREE)}")
        return registry.make(self.env, rules=self.rules, feedback=self.feedback, **free)

    def tasks(self, salt: str = "") -> Sequence[Task]:
        """Its tasks; those of a salt if there is one.

        Raises:
            ValueError: This package makes other tasks than the track's, or no salted ones.
        """
        public = tasks.load(self.env, self.split)
        if tasks.split_hash(public) != HASHES[self.env, self.split]:
            raise ValueError(f"this package's tasks are not those of {self.id}, v{self.version}")
        if self.make({}).corpus_hash(public) != self.corpus_hash:
            raise ValueError(f"this package's corpus is not that of {self.id}, v{self.version}")
        return tasks.load(self.env, f"{self.split}@{salt}") if salt else public

    def specification(self) -> dict[str, Any]:
        """All that an entry must agree with, as JSON."""
        env = self.make({})
        options = to_json(env.options)
        return {
            "id": self.id,
            "version": self.version,
            "env": self.env,
            "split": self.split,
            "split_hash": HASHES[self.env, self.split],
            "corpus_hash": self.corpus_hash,
            "samples": self.samples,
            "attempts": self.attempts,
            "turns": None if _own_turns(self.env, self.split) else env.default_max_turns,
            "options": {k: v for k, v in options.items() if k not in FREE},
        }


def _own_turns(env: str, split: str) -> bool:
    """Whether each task has as many turns as it says itself (`max_turns`)."""
    return split == "hard" and env != "hotpotqa"


def _version(env: str, split: str) -> int:
    """Count the changes of what is measured.

    All tracks: thoughts are no acts, the full prompts say what two actions mean, and in a world
    naming both of a choice earns nothing. The games' `hard`: a task says its own turns.
    """
    return 2 + _own_turns(env, split)


def _all() -> list[Track]:
    two: list[tuple[int, Level]] = [(2, level) for level in LEVELS]
    return [
        Track(env, split, rules, feedback, attempts, _version(env, split))
        for env, split in HASHES
        for rules in get_args(Rules)
        for attempts, feedback in [(1, "outcome"), *two]
    ]


TRACKS: Mapping[str, Track] = {track.id: track for track in _all()}
"""Every track by its id. Of one attempt nobody reads the feedback, so its level is the usual one.
"""


def find(track: str) -> Track:
    """The track of an id.

    Raises:
        ValueError: There is none.
    """
    if track not in TRACKS:
        raise ValueError(f"no track {track!r}; python -m erl_envs.leaderboard tracks lists them")
    return TRACKS[track]


def references(track: Track, salt: str = "") -> tuple[Reference | None, ...]:
    """What is known of each of a track's tasks: random's expected reward, the best there is."""
    return _references(track.env, track.split, salt)


@functools.lru_cache(maxsize=64)  # what is told of a task changes nothing of it; salts have no end
def _references(env: str, split: str, salt: str) -> tuple[Reference | None, ...]:
    found = tasks.load(env, f"{split}@{salt}" if salt else split)
    return tuple(tasks.references(registry.make(env), found))
