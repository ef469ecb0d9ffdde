import base64
import gzip
import html
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest

import erl_envs
from erl_envs.eval.report import render_report
from erl_envs.records import Attempt, Episode, Message, Reflection, Task, Turn, Usage

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = (
    "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> \x00\x1b \ud800 \u202e"
)
LONG = "I think once more. " * 2632 + "```Right```"


def play(seed: int, texts: Sequence[str], valid: bool = True, **options: Any) -> Attempt:
    """A FrozenLake attempt with these messages; the oracle goes on where they end."""
    env = erl_envs.make("frozenlake", **options)
    observation, _ = env.reset(seed=seed)
    assert env.task is not None
    messages = [
        Message(role="system", content=env.system_prompt),
        Message(role="user", content=observation),
    ]
    turns: list[Turn] = []
    texts, ended, info = list(texts), False, {"feedback": "", "outcome": ""}
    while not ended:
        text = texts.pop(0) if texts else (env.oracle() or [""])[0]
        messages.append(Message(role="assistant", content=text))
        if not valid:
            return Attempt(
                env.task, seed, messages, turns, 0.0, "", "", False, "EnvError: it broke"
            )
        observation, reward, terminated, truncated, info = env.step(text)
        messages.append(Message(role="user", content=observation))
        turns.append(Turn(info["action"], reward, info["note"], Usage(10, 5, 0.1)))
        ended = terminated or truncated
    total = sum(turn.reward for turn in turns)
    return Attempt(env.task, seed, messages, turns, total, info["feedback"], info["outcome"])


def episode(*attempts: Attempt, sample: int = 0, reflection: Reflection | None = None) -> Episode:
    return Episode(attempts[0].task, sample, attempts, reflection)


def run_of(episodes: Sequence[Episode], **changes: Any) -> dict[str, Any]:
    """What run.json says of such a run; the numbers are made up."""
    interval = {"mean": 0.15, "low": 0.1, "high": 0.2}
    metrics = {
        "tasks": 2,
        "episodes": len(episodes),
        "invalid": 0,
        "reward": interval,
        "success": interval,
        "reward_after": interval,
        "success_after": interval,
        "pass_at": {"1": 0.15, "16": 0.5, "4": 0.4},
        "turns": 6.1,
        "invalid_action_rate": 0.0,
        "tokens": {"prompt": 10, "completion": 5},
        "seconds": 1.2,
        "reference": {"random": 0.152, "oracle": 1.0},
        "by_difficulty": [
            {"difficulty": 1, "tasks": 29, "success": 0.4, "success_after": 0.5},
            {"difficulty": None, "tasks": 1, "success": 0.0, "success_after": None},
        ],
    }
    return {
        "schema": 1,
        "package": {"version": "0.1.0", "commit": None},
        "policy": {"spec": "random", "revision": "1"},
        "reflector": None,
        "sampling": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "max_tokens": 1024},
        "reflection_sampling": None,
        "seed": 0,
        "samples": 1,
        "attempts": 2,
        "limit": None,
        "envs": {
            "frozenlake": {
                "options": {"rules": "hidden", "max_turns": None},
                "split": "test",
                "split_hash": "0123456789abcdef",
                "tasks": 200,
            }
        },
        "hardware": {"machine": "x86_64", "cpus": 2, "python": "3.11.7", "gpu": None},
        "counts": {"episodes": len(episodes), "invalid": 0},
        "metrics": {"frozenlake": {**metrics, **changes}},
    }


def embedded(page: str) -> list[dict[str, Any]]:
    match = re.search(r'<script type="application/octet-stream" id="data">([^<]*)</script>', page)
    assert match is not None
    data = json.loads(gzip.decompress(base64.b64decode(match[1])))
    assert isinstance(data, list)
    return data


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    reflection = Reflection(
        [
            Message(role="user", content="What went wrong?"),
            Message(role="assistant", content=f"<prompt>B wins. {HOSTILE}</prompt>"),
        ],
        rulebook=f"B wins. {HOSTILE}",
        prompt="B wins.",
    )
    return [
        episode(play(0, [HOSTILE] * 8), play(0, []), reflection=reflection),
        episode(play(1, [LONG])),
        episode(play(2, [""], valid=False)),
        episode(play(3, [], coordinates=True)),
        episode(play(4, [f"<think>{HOSTILE}</think>said aloud", f"<think>{HOSTILE}"])),
    ]


def test_thoughts_are_told_apart_from_what_is_said() -> None:
    texts = ["<think>```Down```?</think>\n\n```Right```", "<think>cut off", "```Up```"]
    attempt = play(0, texts)
    reflection = Reflection(
        [
            Message(role="user", content="<think> is no thought of the policy's"),
            Message(role="assistant", content="Hm</think><prompt>B wins.</prompt>"),
        ],
        rulebook="B wins.",
        prompt="B wins.",
    )
    [shown] = embedded(render_report(run_of([]), [episode(attempt, reflection=reflection)]))
    said = [m for m in shown["attempts"][0]["messages"] if m["role"] == "assistant"][:3]
    assert said == [
        {"role": "assistant", "content": "```Right```", "thoughts": "<think>```Down```?</think>"},
        {"role": "assistant", "content": "", "thoughts": "<think>cut off"},
        {"role": "assistant", "content": "```Up```"},
    ]
    assert shown["reflection"]["messages"] == [
        {"role": "user", "content": "<think> is no thought of the policy's"},
        {
            "role": "assistant",
            "content": "<prompt>B wins.</prompt>",
            "thoughts": "Hm</think>",
        },
    ]


def test_what_becomes_of_thoughts_stands_in_the_facts() -> None:
    run = run_of([])
    assert "Earlier thoughts" not in render_report(run, [])
    run["policy"] |= {"thoughts": "strip", "template": {"enable_thinking": True}}
    page = render_report(run, [])
    assert "<dt>Earlier thoughts</dt><dd>stripped</dd>" in page
    assert "enable_thinking=true" in page


@pytest.fixture(scope="module")
def page(episodes: list[Episode]) -> str:
    return render_report(run_of(episodes), episodes)


def test_unknown_tokens_are_no_zero(episodes: list[Episode]) -> None:
    unknown = run_of(episodes, tokens={"prompt": None, "completion": None})
    assert "<dt>completion tokens</dt><dd>–</dd>" in render_report(unknown, episodes)
    none = run_of(episodes, tokens={"prompt": 0, "completion": 0})
    assert "completion tokens" not in render_report(none, [])


def test_the_page_asks_nothing_of_the_network(page: str) -> None:
    assert "http://" not in page
    assert "https://" not in page
    assert set(re.findall(r"\b(?:src|href|action|srcset)=[\"']?([^\"'\s>=]+)", page)) == {"data:,"}
    assert not re.search(
        r"url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", page
    )
    assert "default-src 'none'" in page


def test_no_data_is_ever_parsed_as_html(page: str) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", page)


def test_hostile_text_round_trips_and_never_appears_raw(page: str, episodes: list[Episode]) -> None:
    assert "alert(1)" not in page
    assert page.count("</script>") == 2
    shown = embedded(page)
    told = [e.to_json() for e in sorted(episodes[:4], key=lambda e: e.key)]
    assert [e for e in shown if e["task"]["id"] != episodes[4].task.id] == told
    assert any(e["attempts"][0]["messages"][2]["content"] == HOSTILE for e in shown)


def test_hostile_names_in_the_run_are_escaped() -> None:
    run = run_of([])
    run["policy"]["spec"] = run["envs"]["frozenlake"]["options"]["rules"] = HOSTILE
    page = render_report(run, [])
    page.encode()  # the lone surrogate is gone
    assert "<script>alert" not in page
    assert "<img" not in page


def test_the_same_run_gives_the_same_bytes_in_any_order(page: str, episodes: list[Episode]) -> None:
    assert render_report(run_of(episodes), episodes[::-1]) == page


def test_the_bound_keeps_first_samples_and_says_so() -> None:
    def stub(env: str, n: int, sample: int) -> Episode:
        task = Task(env, {"n": n})
        return Episode(task, sample, [Attempt(task, 0, [], [], 0.0, "", "lost")])

    episodes = [stub(env, n, s) for env in ("a", "b") for n in range(5) for s in range(3)]
    run = run_of(episodes)

    page = render_report(run, episodes, max_episodes=12)
    shown = embedded(page)
    assert "12 of 30 episodes" in page
    assert [e["sample"] for e in shown].count(0) == 10  # every task's first, then two seconds
    assert [e["sample"] for e in shown].count(1) == 2

    few = embedded(render_report(run, episodes, max_episodes=4))
    assert [e["task"]["env"] for e in few] == ["a", "a", "b", "b"]
    assert {e["sample"] for e in few} == {0}
    assert "All 30 episodes" in render_report(run, episodes)


def test_a_run_without_any_valid_episode_still_renders() -> None:
    nothing = {"mean": None, "low": None, "high": None}
    changes: dict[str, Any] = {
        "reward": nothing,
        "success": nothing,
        "reward_after": None,
        "success_after": None,
        "reference": {"random": None, "oracle": None},
        "by_difficulty": [],
        "pass_at": {},
        "turns": None,
        "invalid_action_rate": None,
    }
    page = render_report(run_of([], **changes), [])
    assert "None" not in page
    assert "after reflection</th>" not in page


def test_the_metrics_stand_in_their_rows(page: str) -> None:
    rows = re.findall(r'<th scope="row">(.*?)</th>\s*<td>([\d.]+)', page)
    assert rows == [
        ("reference: random", "0.152"),
        ("random<small>attempt 1</small>", "0.150"),
        ("after reflection", "0.150"),
        ("reference: oracle", "1.000"),
    ]
    assert re.findall(r"pass@(\d+)", page) == ["1", "4", "16"]


def test_a_run_of_another_shape_is_refused() -> None:
    run = run_of([])
    del run["sampling"]
    with pytest.raises(jinja2.UndefinedError, match="sampling"):
        render_report(run, [])


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}")
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, ["solved after reflection", "Attempt 2", "B wins.", "no action read", "\\ud800"]),
        (1, ["Show all 50,019 characters", "● solved", 'class="board"', "as text"]),
        (2, ["! invalid", "EnvError: it broke"]),
        (3, ['class="board" aria-label="board, ', 'title="was ']),
        (
            4,
            [
                f"<details><summary>Thoughts: {len(HOSTILE) + 15} characters</summary><pre>",
                '<div class="said"><pre>said aloud</pre></div>',
                "Nothing is said after the thoughts.",
            ],
        ),
    ],
)
def test_a_browser_opens_the_episode_of_the_address(
    tmp_path: Path, page: str, episodes: list[Episode], number: int, expected: list[str]
) -> None:
    report = tmp_path / "report.html"
    report.write_text(page, encoding="utf-8")
    env, task, sample = episodes[number].key
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom "
        "--enable-logging=stderr"
    )
    done = subprocess.run(
        [
            str(CHROMIUM),
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"{report.as_uri()}#{env}/{task}/{sample}",
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b"CONSOLE" not in done.stderr
    dom = done.stdout.decode("utf-8", "replace")
    article = re.search(r'<article class="episode".*?</article>', dom, re.DOTALL)
    assert article is not None
    assert task in article[0]
    for text in expected:
        assert text in article[0]
    # what the model wrote is there as text, and nothing of it became an element
    if number == 0:
        visible = HOSTILE[: HOSTILE.index("\x00")]
        assert visible in html.unescape(re.sub(r"<[^>]*>", "", article[0]))
    assert "<img" not in dom
    assert "<script>alert" not in dom
