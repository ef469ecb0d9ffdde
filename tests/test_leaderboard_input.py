"""Whatever a submission holds, it is taken as it is or refused in one bounded line, cheaply."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from submissions import ALONE, change, make_run, make_submission, read, write

from erl_envs.arguments import complain, one_line
from erl_envs.leaderboard import __main__ as cli
from erl_envs.leaderboard import archive
from erl_envs.leaderboard.archive import MAX_REASON, MAX_REASONS, Refused, read_json
from erl_envs.leaderboard.build import REPLAYED, Board, Row, read_boards, write_site
from erl_envs.leaderboard.submission import ABOUT, EPISODES
from erl_envs.leaderboard.submit import submit
from erl_envs.leaderboard.tracks import TRACKS, Track
from erl_envs.leaderboard.verify import check_place, measure, verify
from erl_envs.records import Episode

NAMED = ["--name", "n", "--model", "m", "--revision", "1"]

Edit = Callable[[dict[str, Any], list[Any]], None]

HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 10**39, -1.5, 1e300, [], {}, [[]], {"x": {"y": 1}},
    "", " ", "x ", " x", "x  y", "\n", "x\n", "x\x00", "\x1b[2J", "x" * 501, "x" * 5000,
    "\ud800", "\u200b", "\u3164", "\u202ex", "e\u0301" * 480, "r\u0430ndom", "ｘ", "é",
    "<script>", "`|@x", "$(x)", "../..", "0", "1e999", "null",
)  # fmt: skip
"""Of every kind that a field might hold."""


class CostlyError(Exception):
    """What costs time was begun."""


def small(folder: Path, two: bool) -> None:
    """Keep the shortest episode of a submission."""

    def cut(about: dict[str, Any], lines: list[Any]) -> None:
        short = [line for line in lines if (len(line["attempts"]) == 2) == two]
        lines[:] = [min(short, key=lambda line: len(json.dumps(line)))]
        played = [Episode.from_json(line) for line in lines]
        about["metrics"] = measure(TRACKS[about["track"]["id"]], played)

    change(folder, cut)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A submission of one attempt and one of two, each of a single episode."""
    home = tmp_path_factory.mktemp("made")
    one, _ = submit(make_run(home / "run"), "frozenlake", ALONE, home / "one")
    two = make_submission(home / "two")
    small(one, False)
    small(two, True)
    return {1: one, 2: two}


@pytest.fixture
def one(made: dict[int, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "one" / made[1].parent.name / made[1].name))


@pytest.fixture
def two(made: dict[int, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[2], tmp_path / "two" / made[2].parent.name / made[2].name))


@pytest.fixture
def nothing_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    def tasks(track: Track, salt: str = "") -> None:
        raise CostlyError

    monkeypatch.setattr(Track, "tasks", tasks)


def bounded(text: str) -> bool:
    return len(text) < 400 and text.isprintable() and text.replace("…", "").isascii()


def refusal(folder: Path) -> str:
    with pytest.raises(Refused) as refused:
        verify(folder)
    told = str(refused.value)
    assert bounded(told), told
    return told


def test_the_small_ones_are_taken(one: Path, two: Path) -> None:
    assert verify(one).missing == verify(two).missing == 399


# --- submission.json ---------------------------------------------------------------------------


ODD = ["<script>", "`|@x", "$(x)", "../..", "0", "1e999", "null"]
"""Odd, but nothing else than what it looks like."""

ALLOWED: dict[str, list[Any]] = {
    "salt": ["", " ", "x ", " x", "x  y", *ODD],
    "name": ["0", "1e999", "null"],
    "model": ODD,
    "revision": ODD,
    "reflector": [None, *ODD],
    "license": ["", *ODD],
    "notes": ["", " ", "x ", " x", "x  y", *ODD],
    "outside_help": ["", " ", "x ", " x", "x  y", *ODD],
    "url": [""],
    "seed": [0],
    "metrics": [{}, {"x": {"y": 1}}],
    "options": [{}],
    "package, commit": [None],
    "sampling, temperature": [0],
    "sampling, top_k": [0],
    "reflection_sampling, temperature": [0],
    "reflection_sampling, top_k": [0],
    "options, coordinates": [True],
    "package, version": ["0", "1e999", "null"],
}
"""Of the hostile values, those that a field may hold; what follows from some is refused later."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a JSON value has parts."""
    if path:
        yield path
    keys = list(value) if isinstance(value, dict) else []
    for key in keys or range(len(value) if isinstance(value, list) else 0):
        yield from places(value[key], (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another part there; what was there."""
    for key in path[:-1]:
        value = value[key]
    before, value[path[-1]] = value[path[-1]], new
    return before


@pytest.mark.usefixtures("nothing_costly")
def test_every_field_has_a_kind_bounds_and_an_alphabet(two: Path) -> None:
    about = json.loads((two / ABOUT).read_text(encoding="utf-8"))
    for path in places({k: v for k, v in about.items() if k != "metrics"}):
        taken = []
        before = put(about, path, None)
        for value in HOSTILE:
            put(about, path, value)
            if type(value) is type(before) and value == before:
                continue
            (two / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            try:
                refusal(two)
            except CostlyError:
                taken.append(value)
        put(about, path, before)
        name = ", ".join(map(str, path))
        usual = [v for v in ALLOWED.get(name, []) if type(v) is not type(before) or v != before]
        assert list(map(repr, taken)) == list(map(repr, usual)), name


def test_every_number_is_what_follows(two: Path) -> None:
    about = json.loads((two / ABOUT).read_text(encoding="utf-8"))
    odd = (None, True, 0.5, 10**39, "x" * 5000, {"x": 1})
    for path in (
        ("reward", "low"),
        ("tokens", "prompt"),
        ("pass_at", "4"),
    ):
        before = put(about["metrics"], path, None)
        for value in odd:
            put(about["metrics"], path, value)
            (two / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            assert "transcripts give" in refusal(two)
        put(about["metrics"], path, before)
    del about["metrics"]["reward"]["high"]
    (two / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    assert "reward, high: nothing is stated" in refusal(two)


def test_an_interval_may_be_resampled_otherwise(one: Path) -> None:
    def a_little(about: dict[str, Any], lines: list[Any]) -> None:
        about["metrics"]["reward"]["high"] += 0.001

    change(one, a_little)
    verify(one)


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "long ago": ({"date": "0001-01-01"}, "date '0001-01-01' is none from 2020-01-01"),
    "far off": ({"date": "9999-12-31"}, "date '9999-12-31' is none"),
    "no day": ({"date": "2026-02-30"}, "date '2026-02-30' is none"),
    "compact": ({"date": "20260131"}, "date '20260131' is none"),
    "other digits": ({"date": "２０２６-01-31"}, "date must be one line"),
    "password": ({"url": "https://me:secret@example.org"}, "url carries a name or a password"),
    "user": ({"url": "https://me@example.org/x"}, "url carries a name or a password"),
    "no host": ({"url": "https://"}, "url 'https://' is none"),
    "port": ({"url": "https://example.org:99999/"}, "is none"),
    "data": ({"url": "data:text/html,x"}, "is none"),
    "blank": ({"url": "https://example.org/a b"}, "is none"),
    "homoglyph": ({"model": "gpt-\u043e"}, "printable ASCII"),
    "invisible": ({"model": "gpt\u200b"}, "printable ASCII"),
    "composed": ({"model": "caf\u00e9"}, "printable ASCII"),
    "decomposed": ({"model": "cafe\u0301"}, "printable ASCII"),
    "two blanks": ({"model": "gpt  5"}, "two in a row"),
    "long model": ({"model": "x" * 121}, "at most 120"),
    "long notes": ({"notes": "x" * 501}, "at most 500"),
    "dots": ({"name": "a..b"}, "a name is"),
    "at an end": ({"name": "a-"}, "a name is"),
    "long name": ({"name": "a" * 61}, "a name is"),
    "capital": ({"name": "Dice"}, "a name is"),
    "line end": ({"name": "dice\n"}, "name must be one line"),
    "negative seed": ({"seed": -1}, "seed -1 is none"),
    "huge seed": ({"seed": 1 << 63}, "is none from 0"),
    "no number": ({"schema": True}, "schema cannot be True"),
    "old": ({"schema": 0}, "schema 0 is not the one"),
    "other reflector": ({"reflector": "x"}, "nobody reflects on frozenlake-small-test-hidden-out"),
    "reflects": (
        {"reflection_sampling": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 9}},
        "nobody reflects on",
    ),
    "tools": ({"tools": True}, "frozenlake has no tools"),
    "other files": ({"files": {EPISODES: "0" * 64, "setup.py": "0" * 64}}, "and nothing else"),
    "no digest": ({"files": {EPISODES: "0"}}, "and its digest"),
    "branch": ({"package": {"version": "1", "commit": "main"}}, "a version and a commit"),
    "search": ({"options": {"top_k": 5}}, "has no option 'top_k'"),
    "field": ({"more": 1}, "has a field that is none: 'more'"),
    "odd field": ({"\u202e\n" + "x" * 999: 1}, "has a field that is none: '\\u202e\\n"),
}


@pytest.mark.parametrize("case", FIELDS)
@pytest.mark.usefixtures("nothing_costly")
def test_a_field_is_refused(one: Path, case: str) -> None:
    fields, told = FIELDS[case]
    about = json.loads((one / ABOUT).read_text(encoding="utf-8"))
    (one / ABOUT).write_text(json.dumps({**about, **fields}), encoding="utf-8")
    assert told in refusal(one) and "secret" not in refusal(one)


def test_a_reflector_says_how_it_sampled(two: Path) -> None:
    about = json.loads((two / ABOUT).read_text(encoding="utf-8"))
    (two / ABOUT).write_text(json.dumps({**about, "reflection_sampling": None}), encoding="utf-8")
    assert "has reflections" in refusal(two)


JSON: dict[str, tuple[bytes, str]] = {
    "twice": (b'{"name": 1, "name": 2}', "'name' is there twice"),
    "twice within": (b'{"a": [{"b": {"c": 1, "c": 1}}]}', "'c' is there twice"),
    "twice escaped": (b'{"name": 1, "n\\u0061me": 2}', "'name' is there twice"),
    "4,300 digits": (b'{"schema": %b}' % (b"9" * 4300), "number of 4,300 characters"),
    "4,301 digits": (b"9" * 4301, "number of 4,301 characters"),
    "negative": (b"-" + b"9" * 10**6, "number of 1,000,001 characters"),
    "digits behind": (b"0." + b"1" * 5000, "number of 5,002 characters"),
    "NaN": (b"NaN", "NaN is no number"),
    "infinite": (b"-Infinity", "-Infinity is no number"),
    "too great": (b"[1e999]", "1e999 is no number"),
    "long power": (b"1e" + b"0" * 99, "number of 101 characters"),
    "deep": (b"[" * 13 + b"]" * 13, "nested too deeply"),
    "very deep": (b"[" * 10**5, "nested too deeply"),
    "BOM": (b"\xef\xbb\xbf{}", "is no JSON"),
    "UTF-16": ("{}".encode("utf-16"), "is not UTF-8"),
    "half a character": (b'"\xed\xa0\x80"', "is not UTF-8"),
    "two values": (b"{} {}", "is no JSON"),
    "garbage": (b'{"a": 1}\x00', "is no JSON"),
    "comment": (b"{} // x", "is no JSON"),
    "nothing": (b"", "is no JSON"),
    "control": (b'"\x01"', "is no JSON"),
}


@pytest.mark.parametrize("case", JSON)
def test_json_is_read_as_from_a_stranger(case: str) -> None:
    content, told = JSON[case]
    with pytest.raises(Refused) as refused:
        read_json(content, ABOUT)
    assert told in str(refused.value) and bounded(str(refused.value))


# --- episodes.jsonl.gz -------------------------------------------------------------------------


def packed(content: bytes, flags: int = 0, fields: bytes = b"") -> bytes:
    """A gzip member whose header has more in it."""
    body = zlib.compressobj(wbits=-15)
    head = struct.pack("<BBBBLBB", 0x1F, 0x8B, 8, flags, 0, 0, 255) + fields
    end = struct.pack("<LL", zlib.crc32(content), len(content))
    return head + body.compress(content) + body.flush() + end


EMPTY = gzip.compress(b"", mtime=0)

ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty members": (lambda old: EMPTY * (18 * 2**20 // len(EMPTY)), "goes on after its end"),
    "empty members before": (lambda old: EMPTY * 1000 + old, "goes on after its end"),
    "second member": (lambda old: old + old, "goes on after its end"),
    "empty behind": (lambda old: old + EMPTY, "goes on after its end"),
    "garbage": (lambda old: old + b"garbage", "goes on after its end"),
    "zeros": (lambda old: old + bytes(2**21), "goes on after its end"),
    "nothing": (lambda old: b"", "is no gzip file"),
    "half a head": (lambda old: old[:3], "is no gzip file"),
    "head": (lambda old: old[:10], "breaks off"),
    "no end": (lambda old: old[:-8], "breaks off"),
    "half an end": (lambda old: old[:-1], "breaks off"),
    "other sum": (lambda old: old[:-8] + b"sumx" + old[-4:], "incorrect data check"),
    "other length": (lambda old: old[:-4] + b"leng", "incorrect length check"),
    "name": (lambda old: packed(old, 8, b"x" * 10**6 + b"\0"), "as `submit` writes"),
    "comment": (lambda old: packed(old, 16, b"me\0"), "as `submit` writes"),
    "other kind": (lambda old: b"BZh9" + old, "is no gzip file"),
    "large": (lambda old: old + bytes(archive.MAX_PACKED), "more than 20,971,520 bytes"),
    "bomb": (lambda old: packed(b" " * (archive.MAX_LINE + 2**21)), "line of more than 4,194,304"),
    "no episode": (lambda old: EMPTY, "its digest is another"),
    "blank line": (lambda old: packed(gzip.decompress(old) + b"\n"), "line 2 is no JSON"),
    "twice": (
        lambda old: packed(gzip.decompress(old).replace(b'"env":', b'"split": "x", "env":', 1)),
        "line 1 is no JSON: 'split' is there twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
@pytest.mark.usefixtures("nothing_costly")
def test_an_archive_is_refused(one: Path, case: str) -> None:
    edit, told = ARCHIVES[case]
    path = one / EPISODES
    path.write_bytes(edit(path.read_bytes()))
    assert told in refusal(one)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_an_archive_may_be_compressed_otherwise(one: Path, level: int) -> None:
    content = gzip.decompress((one / EPISODES).read_bytes())
    (one / EPISODES).write_bytes(gzip.compress(content, level, mtime=0))
    verify(one)


def test_an_archive_is_read_to_its_last_byte(tmp_path: Path) -> None:
    """Whatever the pieces that it is read in."""
    for size in (2**20 - 3, 2**20 - 2, 2**20 - 1, 2**20, 2 * 2**20 + 7):
        line = json.dumps("x" * (size - 3)).encode() + b"\n"
        for level in (0, 9):
            (tmp_path / "x").write_bytes(gzip.compress(line, level, mtime=0))
            (found,) = archive.read_lines(tmp_path / "x")
            assert len(found) == size - 3


@pytest.mark.parametrize("chunk", [1, 2, 7, 30])
def test_what_follows_an_archive_is_seen(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a piece of it ends."""
    monkeypatch.setattr(archive, "_CHUNK", chunk)
    path = tmp_path / "x"
    packed = gzip.compress(b"[1]\n", mtime=0)
    for content in (packed, packed + bytes(1), packed + packed):
        path.write_bytes(content)
        if content == packed:
            assert list(archive.read_lines(path)) == [[1]]
            continue
        for size in (chunk, len(packed)):
            monkeypatch.setattr(archive, "_CHUNK", size)
            with pytest.raises(Refused, match="goes on after its end"):
                list(archive.read_lines(path))


def test_every_part_of_an_episode_is_what_was_played(two: Path) -> None:
    """But for the texts that policies wrote and what they cost."""
    submission, lines = read(two)
    about = json.loads(json.dumps(submission.to_json()))
    values: tuple[Any, ...] = (
        None,
        True,
        10**39,
        -1,
        0.25,
        "\ud800",
        "x\n\u202e" * 999,
        [],
        {},
        {"x": 1},
    )
    for path in places(lines[0]):
        before = put(lines[0], path, None)
        for value in values:
            put(lines[0], path, value)
            write(two, about, lines)
            unknown = path[-1] == "stop" and value is None  # which a server may leave open
            if json.dumps(value) != json.dumps(before) and not unknown:
                refusal(two)
        put(lines[0], path, before)


def stop(value: Any) -> Edit:
    def edit(about: dict[str, Any], lines: list[Any]) -> None:
        lines[0]["attempts"][0]["turns"][0]["stop"] = value

    return edit


def spend(*tokens: int, reflection: bool = False, **fields: Any) -> Edit:
    """Let every message, or the reflection alone, have cost so many tokens."""

    def edit(about: dict[str, Any], lines: list[Any]) -> None:
        about.update(fields)
        spent = dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))
        for line in lines:
            turns = [turn for attempt in line["attempts"] for turn in attempt["turns"]]
            for part in [line["reflection"]] if reflection else [*turns, line["reflection"]]:
                if part:
                    part["usage"].update(spent)
        played = [Episode.from_json(line) for line in lines]
        about["metrics"] = measure(TRACKS[about["track"]["id"]], played)

    return edit


def task(**fields: Any) -> Edit:
    return lambda about, lines: lines[0]["task"].update(fields)


EPISODE: dict[str, tuple[Edit, str]] = {
    "stop": (stop("x" * 800_000), "nobody stops for 'xxx"),
    "stop of lines": (stop("stop\n"), "nobody stops for 'stop\\n'"),
    "no stop": (stop(""), "nobody stops for ''"),
    "number": (stop(1), "nobody stops for 1"),
    "id": (task(id="x" * 10**6), "has no task 'xxx"),
    "id of lines": (task(id="0" * 11 + "\n"), "has no task '00000000000\\n'"),
    "no id": (task(id=["x"]), "names no task"),
    "free": (spend(0, 0), "'dice' is said to have spent no tokens"),
    "unasked": (spend(0, 5), "'dice' is said to have spent no tokens"),
    "unsaid": (spend(5, 0), "'dice' is said to have spent no tokens"),
    "free reflector": (spend(0, 0, reflection=True), "'the rules' is said to have spent no tokens"),
    "half free": (spend(0, 0, model="random", reflector="x"), "'x' is said to have spent no"),
    "itself": (spend(0, 0, reflector=None), "'dice' is said to have spent no tokens"),
    "none": (lambda about, lines: lines.clear(), "has no episode"),
    "beyond": (lambda about, lines: lines.extend(lines * 400), "is there twice"),
}


@pytest.mark.parametrize("case", EPISODE)
def test_an_episode_is_refused(two: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edit, told = EPISODE[case]
    change(two, edit)

    def tasks(track: Track, salt: str = "") -> None:
        raise CostlyError

    monkeypatch.setattr(Track, "tasks", tasks)
    assert told in refusal(two)


@pytest.mark.parametrize(("model", "reflector"), [("random", "oracle"), ("oracle", "human")])
def test_what_is_no_model_spends_no_tokens(two: Path, model: str, reflector: str) -> None:
    change(two, spend(0, 0, model=model, reflector=reflector))
    assert verify(two).metrics["tokens"] == {"prompt": 0, "completion": 0}


def test_a_model_s_own_text_may_be_anything(one: Path) -> None:
    """It is shown as it is, and nothing of it becomes anything else."""
    odd = "\ud800\x00\x1b[2J\u202e\ufeff" + "e\u0301" * 480 + "</script><b>|`"

    def write_oddly(about: dict[str, Any], lines: list[Any]) -> None:
        for message in lines[0]["attempts"][0]["messages"]:
            if message["role"] == "assistant":
                message["content"] = odd + message["content"]

    change(one, write_oddly)
    verified, site = verify(one), one.parents[1] / "site"
    board = Board(verified.track, [Row(verified, REPLAYED, "entries/x.html")], None, None)
    write_site([board], site, site)
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(pages) == 2 and not any("\x1b" in page or "\u202e" in page for page in pages)


# --- what is looked at first -------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_costly")
def test_what_costs_little_is_looked_at_first(
    tmp_path: Path, one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty entry of the set that takes longest, a salted one, one in a wrong place."""
    track = TRACKS["sokoban-hard-hidden-outcome-1"]
    about = json.loads((one / ABOUT).read_text(encoding="utf-8"))
    folder = tmp_path / track.id / one.name
    folder.mkdir(parents=True)
    about |= {"track": json.loads(json.dumps(track.specification()))}
    write(folder, about, [])
    assert "has no episode" in refusal(folder)
    write(folder, {**about, "salt": "mine"}, [{"task": {"id": "0" * 12}}])
    assert cli.main(["verify", str(folder)]) == 1
    assert "its tasks are salted" in capsys.readouterr().err
    moved = folder.rename(folder.with_name("2026-01-31_other"))
    assert cli.main(["verify", str(moved)]) == 1
    assert "belongs to sokoban-hard-hidden-outcome-1/2026-01-31_dice" in capsys.readouterr().err


def test_a_salted_entry_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when it is played, nor when it is taken, nor when it is refused."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("ERL_ENVS_CACHE", str(cache))
    salted = {"split": "hard@left behind", "samples": 1, "attempts": 1}
    folder = make_submission(tmp_path, "hotpotqa", ALONE, **salted)
    verify(folder)

    def lie(about: dict[str, Any], lines: list[Any]) -> None:
        lines[-1]["attempts"][0]["reward"] = 0.5

    change(folder, lie)
    assert "reward: the submission has 0.5" in refusal(folder)
    assert not cache.exists()


# --- one bounded line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\r\n\u2028 c\td", "a b c d"),
        ("x\x00\x1b[2J\u202e\u200b\ud800", "x\\x00\\x1b[2J\\u202e\\u200b\\ud800"),
        ("e\u0301é", "e\\u0301é"),
        ("…" * 9, "…" * 9),
        ("x" * 80, "x" * 40 + "…"),
        ("\u0301" * 9, "\\u0301" * 6 + "\\u03…"),
        (" \n", ""),
    ],
)
def test_a_line_hides_nothing(text: str, line: str) -> None:
    assert one_line(text, 40) == line


def test_a_refusal_is_a_line_and_many_are_many() -> None:
    assert str(Refused("a\nb" * 999)) == str(Refused(*[str(Refused("a\nb" * 999))]))
    assert len(str(Refused("x" * 10**6))) == MAX_REASON + 1
    lines = str(Refused(*["a\nb"] * 1000)).splitlines()
    assert lines == ["a b"] * MAX_REASONS + ["and 900 more"]


def test_a_name_of_lines_makes_no_line(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = one.with_name("x\nfrozenlake: I am first" + "\u0301" * 50)
    (one / "y\nz\u202e").write_text("", encoding="utf-8")
    one.rename(odd)
    assert cli.main(["verify", str(odd), str(odd / "no\nsuch")]) == 1
    assert cli.main(["submit", str(odd), *NAMED]) == 2
    assert complain("a\nb") == 2
    with pytest.raises(SystemExit):
        cli.main(["verify", "x", "--no\nsuch"])
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert len(lines) == 5 and all(line.isprintable() for line in lines)
    assert all(len(line) < 600 for line in lines[:2])
    assert "'y\\nz\\u202e' does not belong there" in lines[0]


def test_boards_are_refused_line_by_line(made: dict[int, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / "submissions" / made[1].parent.name / f"2026-01-31_{name}\n"
        shutil.copytree(made[1], folder)
    with pytest.raises(Refused) as refused:
        read_boards(tmp_path)
    lines = str(refused.value).splitlines()
    assert len(lines) == 2 and all("belongs to" in line and bounded(line) for line in lines)


def test_a_place_is_checked_before_anything_is_played(
    one: Path, nothing_costly: None, tmp_path: Path
) -> None:
    check_place(one)
    with pytest.raises(Refused, match="belongs to"):
        check_place(one.rename(one.with_name("2026-01-31_x")))


def test_an_entry_that_is_not_taken_is_not_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for entry in (
        replace(ALONE, model="gpt\u200b"),
        replace(ALONE, url="https://a:b@c.org"),
        replace(ALONE, name="x..y"),
    ):
        with pytest.raises(Refused) as refused:
            submit(run, "frozenlake", entry, tmp_path / "out")
        assert bounded(str(refused.value))
    assert not (tmp_path / "out").exists()
