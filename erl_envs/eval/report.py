"""The self-contained HTML page of an evaluation run: what was run, metrics, transcripts."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from erl_envs.records import Episode, Message
from erl_envs.rollout import THRESHOLD
from erl_envs.thoughts import split_thoughts

Key = tuple[str, str, int]


def render_report(
    run: Mapping[str, Any],
    episodes: Iterable[Episode],
    max_episodes: int = 2000,
    home: str = "",
) -> str:
    """The report of a run as one HTML page that asks nothing of the network.

    The page depends on the run alone: not on the clock, nor on the order in which episodes ended.
    The text can always be written as UTF-8.

    Args:
        run: Content of the run folder's `run.json`.
        episodes: Episodes of the run, in any order; read twice, and kept are those that are shown.
        max_episodes: Transcripts that the page carries at most; the first samples of every task
            come first, and the page says how many of how many it shows.
        home: Address of a page to go back to, if there is one.

    Returns:
        The page.

    Raises:
        jinja2.UndefinedError: `run` lacks a field.
        ValueError: An episode holds a number that JSON cannot (not a number, or infinite).
    """
    keys = [episode.key for episode in episodes]
    picked = set(_pick(keys, max_episodes))
    shown = sorted((e for e in episodes if e.key in picked), key=lambda episode: episode.key)
    page = template("report.html").render(
        run=run,
        shown=len(shown),
        total=len(keys),
        threshold=THRESHOLD,
        home=home,
        data=_pack([_read(episode) for episode in shown]),
    )
    # a lone surrogate in a policy's name or an option; the transcripts are base64 by now
    return page.lstrip().encode("utf-8", "replace").decode()


def _pick(keys: Sequence[Key], limit: int) -> Sequence[Key]:
    """At most `limit` of the episodes: first samples first, environments in equal shares."""
    if len(keys) <= limit:
        return keys
    ids: dict[str, set[str]] = {}
    for env, task, _ in keys:
        ids.setdefault(env, set()).add(task)
    # ids are content hashes, so the first tasks by id are as good as drawn by chance
    place = {(env, task): n for env in ids for n, task in enumerate(sorted(ids[env]))}
    return sorted(keys, key=lambda key: (key[2], place[key[:2]], key))[:limit]


def _read(episode: Episode) -> dict[str, Any]:
    """An episode as the page reads it: what a policy thinks apart from what it says."""
    data = episode.to_json()
    for told in (*data["attempts"], *([data["reflection"]] if data["reflection"] else [])):
        told["messages"] = [_without_thoughts(message) for message in told["messages"]]
    return data


def _without_thoughts(message: Message) -> dict[str, Any]:
    thoughts, said = split_thoughts(message["content"])
    if message["role"] != "assistant" or not thoughts:
        return {**message}
    return {**message, "content": said.lstrip("\n"), "thoughts": thoughts.strip()}


def _pack(value: object) -> str:
    """JSON, gzipped, in base64: small, the same bytes each time, and free of any `<`."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode("ascii")


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _settings(values: Mapping[str, Any] | None) -> str:
    """Options or sampling on one line; values as JSON, bare where they are words."""
    pairs = (values or {}).items()
    words = {key: v if isinstance(v, str) else json.dumps(v) for key, v in pairs}
    return "  ".join(f"{key}={word}" for key, word in words.items()) or "–"


def template(name: str, *folders: Path) -> jinja2.Template:
    """A page's template, of this folder or of others that share its look."""
    files = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files.filters.update(number=_number, settings=_settings)
    return files.get_template(name)
