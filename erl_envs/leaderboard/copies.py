"""Whether entries are what others entered before them: their names, and their transcripts.

Honest entries share transcripts too. Two policies that solve a task by its one shortest path in
bare words write the same; a model and the one it was trained from may answer alike to the letter.
So what is refused is only this:

- *The same transcripts*, nearly all of them, whatever blanks, punctuation or case they have and
  whatever sample they stand in. (Of the committed entries `nano` and `nano-grpo` come closest: on
  HotpotQA's small-test they share 97 %.) Where both policies are certain of every word this is no
  proof of who copied from whom, but the later one has nothing to tell that the first has not.
- *More agreement than two independent entries can have.* With probabilities p and q of a
  transcript, a sample of one entry equals one of the other with probability Σpq, and two samples of
  the same entry are equal with Σp² or Σq²; and 2pq ≤ p² + q². So samples of two entries agree, on
  average over tasks, at most as often as samples of one, however alike the policies are. Copies
  agree more often. As it is asked of the actions as well, other words do not hide a copy.

A track with one sample a task knows no agreement within an entry, so there, as among policies that
never vary, some changed transcripts are enough to pass.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erl_envs.core import Episode, digest
from erl_envs.leaderboard.archive import Refused
from erl_envs.leaderboard.submission import Submission, read_about, read_episodes
from erl_envs.leaderboard.tracks import TRACKS, Track
from erl_envs.leaderboard.transcripts import transcript

SAME = 0.98
"""Share of an entry's transcripts that another one has, from which on they are the same."""

BEYOND = 5.0
"""By how many of its standard deviations the agreement between two entries may exceed that within
them. Of 1,000 pairs drawn from one policy one reaches 3.8 at most, whatever the policy; committed
ones reach 2.6, as both were sampled from the same random streams."""

Samples = Mapping[tuple[str, str], Sequence[Hashable]]
"""(task id, stage) → a value for each sample."""


@dataclass(frozen=True)
class Content:
    """What is compared of an entry.

    Attributes:
        submission: What it says of itself.
        track: Where it stands.
        texts: Digests of what was written.
        actions: Digests of what was done.
    """

    submission: Submission
    track: Track
    texts: Samples
    actions: Samples


def content(submission: Submission, track: Track, episodes: Iterable[Episode]) -> Content:
    """What is compared of an entry; of an attempt without a word there is nothing to compare."""
    texts: dict[tuple[str, str], list[Hashable]] = defaultdict(list)
    actions: dict[tuple[str, str], list[Hashable]] = defaultdict(list)
    for episode in episodes:
        one = transcript(episode)
        for stages, found in ((one.texts, texts), (one.actions, actions)):
            for stage, parts in stages.items():
                if stage != "reflection" and any(parts):
                    found[episode.task.id, stage].append(digest(parts))
    return Content(submission, track, texts, actions)


def check_names(new: Submission, other: Submission) -> None:
    """Check that a name stands for one entry of a track, and for one model on all of them.

    Raises:
        Refused: It does not.
    """
    if new.name == other.name:
        if new.track["id"] == other.track["id"]:
            raise Refused(f"{_where(other)} has its name: an entry of a track needs its own")
        if new.model != other.model:
            raise Refused(f"{_where(other)} has its name, and another model")


def check_transcripts(new: Content, other: Content) -> None:
    """Check that an entry does not have another one's transcripts.

    Raises:
        Refused: It does, or they agree too well.
    """
    mine, theirs, where = new.submission, other.submission, _where(other.submission)
    if not _comparable(mine, new.track, theirs, other.track):
        return
    remedy = "if it is another policy, play it with another seed"
    shared = share(new.texts, other.texts)
    if shared >= SAME:
        raise Refused(f"{shared:.0%} of its transcripts are those of {where}; {remedy}")
    for what in ("texts", "actions"):
        if excess(getattr(new, what), getattr(other, what)) > BEYOND:
            raise Refused(
                f"its {what} agree with those of {where} more than independent ones can; {remedy}"
            )


def _comparable(new: Submission, track: Track, other: Submission, place: Track) -> bool:
    """Whether two entries should differ; one model's first attempts on two tracks need not."""
    same_tasks = (track.env, track.split) == (place.env, place.split)
    return same_tasks and (track == place or new.model != other.model)


def _where(submission: Submission) -> str:
    return f"{submission.track['id']}/{submission.folder}"


def share(new: Samples, other: Samples) -> float:
    """The share of an entry's transcripts that another has, each once, at stages that it plays.

    Of the new one's, and not of the other's: to leave out failures would cost a copy nothing.
    """
    stages = {stage for _, stage in other}
    asked = {key: samples for key, samples in new.items() if key[1] in stages}
    there = sum((Counter(asked[key]) & Counter(other.get(key, ()))).total() for key in asked)
    return there / max(1, sum(map(len, asked.values())))


def excess(one: Samples, other: Samples) -> float:
    """By how many standard deviations entries agree more with each other than with themselves."""
    found = [
        _between(one[key], other[key]) - (_within(one[key]) + _within(other[key])) / 2
        for key in one.keys() & other.keys()
        if len(one[key]) > 1 and len(other[key]) > 1
    ]
    spread = math.sqrt(sum(value**2 for value in found))
    return math.fsum(found) / spread if spread else 0.0


def _between(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    mine, theirs = Counter(one), Counter(other)
    return sum(number * theirs[what] for what, number in mine.items()) / (len(one) * len(other))


def _within(one: Sequence[Hashable]) -> float:
    size = len(one)
    return sum(number * (number - 1) for number in Counter(one).values()) / (size * (size - 1))


class Shelf:
    """The entries that lie in a folder of submissions, each read when it is needed, and once."""

    def __init__(self, submissions: Path) -> None:
        """Args: submissions: Has `TRACK/DATE_NAME/` folders."""
        self._entries: list[tuple[Path, Submission, Track]] = []
        self._contents: dict[Path, Content | None] = {}
        for folder in sorted(submissions.glob("*/[!.]*")):
            with contextlib.suppress(Refused, OSError):  # it is told where it is verified itself
                submission = read_about(folder)
                track = TRACKS.get(str(submission.track.get("id")))
                if track is not None and not submission.salt:
                    self._entries.append((folder, submission, track))

    def put(self, new: Content) -> None:
        """Take in an entry, which those that are checked later may not repeat."""
        if all(_where(other) != _where(new.submission) for _, other, _ in self._entries):
            place = Path(_where(new.submission))
            self._entries.append((place, new.submission, new.track))
            self._contents[place] = new

    def check(self, new: Content) -> None:
        """Check that an entry of a public task set is none that lies there elsewhere.

        Raises:
            Refused: It has the name or the transcripts of another.
        """
        own = new.submission
        if own.salt:
            return
        for folder, other, track in self._entries:
            if _where(other) != _where(own):
                check_names(own, other)
                if _comparable(own, new.track, other, track):
                    if folder not in self._contents:
                        self._contents[folder] = _read(folder, other, track)
                    if found := self._contents[folder]:
                        check_transcripts(new, found)


def _read(folder: Path, submission: Submission, track: Track) -> Content | None:
    """A folder's content as it says, without replay; None if it holds no episodes."""
    try:
        lines = read_episodes(folder, submission, track.samples * len(track.tasks()))
        return content(submission, track, map(Episode.from_json, lines))
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        return None  # it is told where it is verified itself
