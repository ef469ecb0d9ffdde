"""Models behind a server: what is asked, what is tried again, and what ends in a `PolicyError`."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import DRIPS, Reply, Request, says, serving, talking

from erl_envs import policies
from erl_envs.calls import FinalError
from erl_envs.core import Episode, Message, Task
from erl_envs.policies.answers import completion
from erl_envs.policies.base import (
    MAX_MESSAGE,
    Completion,
    Conversation,
    PolicyError,
    Sampling,
)
from erl_envs.policies.openai import WITH_TOOLS, OpenAI, check_url
from erl_envs.rollout import EnvPool, Job, Player, Role, rollout
from erl_envs.web import MAX_ANSWER

KEY = "sk-no-one-may-see-this"
SAMPLING = Sampling(temperature=0.7, top_p=0.8, top_k=20, max_tokens=64)
MESSAGES: list[Message] = [
    {"role": "system", "content": "Rules"},
    {"role": "user", "content": "√ Play"},
]


class Stub:
    """A server on a free loopback port that records what it is asked.

    Attributes:
        url: Its base URL.
        answer: Gives the reply to a request.
        bodies: Of the requests, decoded.
        headers: Of the requests.
        most: Greatest number of requests that were there at the same time.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answer: Callable[[Request], Reply] = lambda _: says("```Up```")
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def serve(self, request: Request) -> Reply:
        if request.path != "/v1/chat/completions":
            return Reply({"error": f"no such path: {request.path}"}, 404)
        with self._lock:
            self.bodies.append(request.body)
            self.headers.append(request.headers)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            return self.answer(request)
        finally:
            with self._lock:
                self._now -= 1

    def replies(self, *replies: Reply) -> None:
        """Answer with these, then with the last one for ever."""
        left = list(replies)
        self.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]

    def meets(self, parties: int) -> None:
        """Answer once so many requests are there; fail them if that many never come."""
        barrier = threading.Barrier(parties)

        def answer(_: Request) -> Reply:
            try:
                barrier.wait(timeout=5)
            except threading.BrokenBarrierError:
                return Reply("too few requests at a time", 400)
            time.sleep(0.05)  # time for one too many to come
            return says("together")

        self.answer = answer


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    with serving(stub.serve) as url:
        stub.url = f"{url}/v1"
        yield stub


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, none of them slept."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("erl_envs.calls.sleep", sleep)
    return pauses


def with_jitter(pauses: list[float], expected: list[float]) -> bool:
    """Whether each pause is the expected one, up to a quarter longer."""
    pairs = zip(pauses, expected, strict=True)
    return all(pause <= found <= 1.25 * pause for found, pause in pairs)


def talk(seed: int = 7, messages: list[Message] = MESSAGES) -> Conversation:
    return Conversation(list(messages), ("frozenlake", "task", 0, "attempt_1"), seed)


def ask(policy: OpenAI, sampling: Sampling = SAMPLING) -> Completion | PolicyError:
    [answer] = policy.complete([talk()], sampling)
    return answer


def failure(policy: OpenAI) -> str:
    """The error in the place of an answer: one line."""
    answer = ask(policy)
    assert isinstance(answer, PolicyError)
    assert len(str(answer).splitlines()) == 1
    return str(answer)


def dead_url() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


# What is asked, and what comes back


def test_a_completion_with_its_usage(stub: Stub) -> None:
    stub.replies(says("```Up```", usage={"prompt_tokens": 11, "completion_tokens": 3}))
    answer = ask(OpenAI("small", stub.url))
    assert isinstance(answer, Completion)
    assert (answer.text, answer.stop_reason) == ("```Up```", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 3)
    assert answer.usage.seconds > 0
    assert not answer.token_ids and not answer.logprobs


def test_the_request_carries_messages_and_sampling(stub: Stub) -> None:
    ask(OpenAI("small", stub.url))
    [body] = stub.bodies
    seed = body.pop("seed")
    assert 0 <= seed < 1 << 31
    assert body == {
        "model": "small",
        "messages": MESSAGES,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "max_tokens": 64,
    }


def test_no_top_k_is_not_sent(stub: Stub) -> None:
    ask(OpenAI("small", stub.url), Sampling(top_k=0))
    assert "top_k" not in stub.bodies[0]


def test_the_seed_is_the_conversations_own(stub: Stub) -> None:
    policy = OpenAI("small", stub.url)
    policy.complete([talk(seed=1), talk(seed=2), talk(seed=3)], SAMPLING)
    policy.complete([talk(seed=2)], SAMPLING)
    together, alone = {body["seed"] for body in stub.bodies[:3]}, stub.bodies[3]["seed"]
    assert len(together) == 3 and alone in together


def test_each_turn_of_a_conversation_has_another_seed(stub: Stub) -> None:
    policy, conversation = OpenAI("small", stub.url), talk()
    for _ in range(2):
        policy.complete([conversation], SAMPLING)
    assert stub.bodies[0]["seed"] != stub.bodies[1]["seed"]


def test_answers_come_in_the_order_of_the_conversations(stub: Stub) -> None:
    asked: list[list[Message]] = [[{"role": "user", "content": str(i)}] for i in range(20)]
    stub.answer = lambda request: says(request.body["messages"][0]["content"])
    answers = OpenAI("small", stub.url, concurrency=4).complete(
        [talk(messages=messages) for messages in asked], SAMPLING
    )
    assert [a.text for a in answers if isinstance(a, Completion)] == [str(i) for i in range(20)]


def test_one_failure_leaves_the_other_answers(stub: Stub) -> None:
    stub.replies(says("first"), Reply("no", 400), says("third"))
    answers = OpenAI("small", stub.url, concurrency=1).complete([talk(), talk(), talk()], SAMPLING)
    assert [isinstance(answer, PolicyError) for answer in answers] == [False, True, False]


def test_a_trailing_slash_of_the_base_url_does_not_matter(stub: Stub) -> None:
    assert isinstance(ask(OpenAI("small", f"{stub.url}/")), Completion)


def test_lone_surrogates_can_be_sent_and_received(stub: Stub) -> None:
    stub.replies(says("\udc00 and √"))
    messages: list[Message] = [{"role": "user", "content": "half a pair: \ud83d"}]
    [answer] = OpenAI("small", stub.url).complete([talk(messages=messages)], SAMPLING)
    assert stub.bodies[0]["messages"] == messages
    assert isinstance(answer, Completion) and answer.text == "\udc00 and √"


def test_an_answer_without_text_is_an_empty_message(stub: Stub) -> None:
    stub.replies(says(None, finish="length"))
    answer = ask(OpenAI("small", stub.url))
    assert isinstance(answer, Completion)
    assert (answer.text, answer.stop_reason) == ("", "length")


def test_it_plays_episodes_through_rollout(stub: Stub) -> None:
    stub.replies(says("I go down. ```Down```"))
    task = Task("frozenlake", {"desc": ["SF", "GF"]})
    policy = policies.load("openai:small", base_url=stub.url)
    played = list(
        rollout(
            [Job(task, sample, seed=0) for sample in range(5)],
            EnvPool({"frozenlake": {}}),
            {"actor": Player(policy, SAMPLING)},
        )
    )
    assert [episode.attempts[0].reward for episode in played] == [1.0] * 5
    assert all(episode.valid and not episode.attempts[0].tokens for episode in played)
    assert len({body["seed"] for body in stub.bodies}) == 5


def test_an_episode_whose_server_fails_is_invalid(stub: Stub) -> None:
    stub.replies(Reply("no such model", 404))
    task = Task("frozenlake", {"desc": ["SF", "GF"]})
    players: dict[Role, Player] = {"actor": Player(OpenAI("small", stub.url), SAMPLING)}
    [episode] = rollout([Job(task, 0, 0)], EnvPool({"frozenlake": {}}), players)
    assert not episode.valid
    assert "status 404" in str(episode.attempts[0].error)


# What is tried again, and what is not


def test_failures_that_pass_are_tried_again_with_growing_pauses(
    stub: Stub, sleeps: list[float]
) -> None:
    stub.replies(Reply("busy", 500), Reply("busy", 503), says("at last"))
    answer = ask(OpenAI("small", stub.url, backoff=0.5))
    assert isinstance(answer, Completion) and answer.text == "at last"
    assert with_jitter(sleeps, [0.5, 1.0])
    assert stub.bodies[0] == stub.bodies[1] == stub.bodies[2]  # the same seed too


@pytest.mark.parametrize(
    ("header", "pause"), [("7", 7.0), ("3600", 30.0), ("0", 0.5), ("soon", 0.5), ("nan", 0.5)]
)
def test_retry_after_is_honoured_up_to_half_a_minute(
    stub: Stub, sleeps: list[float], header: str, pause: float
) -> None:
    stub.replies(Reply("slow down", 429, Retry_After=header), says("ok"))
    assert isinstance(ask(OpenAI("small", stub.url, backoff=0.5)), Completion)
    assert with_jitter(sleeps, [pause])


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 529])
@pytest.mark.usefixtures("sleeps")
def test_every_status_that_may_pass_is_tried_again(stub: Stub, status: int) -> None:
    stub.replies(Reply("overloaded", status), says("at last"))
    assert isinstance(ask(OpenAI("small", stub.url)), Completion)
    assert len(stub.bodies) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 307])
def test_a_refusal_is_told_at_once(stub: Stub, sleeps: list[float], status: int) -> None:
    stub.replies(Reply(b"the model\nis unknown", status))
    text = failure(OpenAI("small", stub.url))
    assert f"refused: status {status}: the model is unknown" in text
    assert len(stub.bodies) == 1 and not sleeps


def test_the_tries_are_bounded(stub: Stub, sleeps: list[float]) -> None:
    stub.replies(Reply("overloaded", 503))
    text = failure(OpenAI("small", stub.url, retries=3))
    assert "failed 4 times" in text and "status 503" in text and "overloaded" in text
    assert len(stub.bodies) == 4 and len(sleeps) == 3


def test_a_dead_port_is_told_after_bounded_tries(sleeps: list[float]) -> None:
    url = dead_url()
    text = failure(OpenAI("small", url, retries=2))
    assert text.startswith(f"the server at {url}/chat/completions failed 3 times")
    assert "ConnectError" in text
    assert len(sleeps) == 2


def test_a_server_that_does_not_answer_in_time_is_given_up(stub: Stub, sleeps: list[float]) -> None:
    free = threading.Event()

    def late(_: Request) -> Reply:
        free.wait(10)
        return says("too late")

    stub.answer = late
    text = failure(OpenAI("small", stub.url, timeout=0.2, retries=1))
    free.set()
    assert "failed 2 times" in text and "no answer within 0.2 s" in text
    assert len(sleeps) == 1


# Answers that are none

GARBAGE = [
    Reply(b""),
    Reply(b"<html>\nnot here</html>"),
    Reply(b"\xff\xfe\x00"),
    Reply(b'{"choices": [{"mess'),
    Reply(b"[" * 100_000),
    Reply(b"not compressed", Content_Encoding="gzip"),
    Reply(None),
    Reply(3),
    Reply("two\nlines \ud800"),
    Reply([]),
    Reply({}),
    Reply({"error": {"message": "two\nlines"}}),
    Reply({"choices": []}),
    Reply({"choices": {}}),
    Reply({"choices": [None]}),
    Reply({"choices": [{}]}),
    Reply({"choices": [{"message": None}]}),
    Reply({"choices": [{"message": "text"}]}),
    says(["a", "list"]),
    says({"a": "mapping"}),
    says(17),
    says("text", usage=[1]),
    says("text", usage={"prompt_tokens": "many"}),
    says("text", usage={"prompt_tokens": float("inf")}),
    says("text", usage={"completion_tokens": float("nan")}),
]


@pytest.mark.parametrize("reply", GARBAGE, ids=lambda reply: repr(reply.raw[:40]))
@pytest.mark.usefixtures("sleeps")
def test_an_answer_that_is_no_completion_is_an_error(stub: Stub, reply: Reply) -> None:
    stub.replies(reply)
    text = failure(OpenAI("small", stub.url, retries=0))
    assert "server" in text
    text.encode()  # it can be printed


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    content=ANYTHING,
    stop=ANYTHING,
    usage=ANYTHING | st.builds(lambda count: {"prompt_tokens": count}, ANYTHING),
)
def test_a_completion_of_any_values_is_text_or_an_error(
    content: object, stop: object, usage: object
) -> None:
    choice = {"message": {"content": content}, "finish_reason": stop}
    try:
        answer = completion({"choices": [choice], "usage": usage}, 1.0)
    except FinalError as error:
        assert "answered with no chat completion" in str(error)
    else:
        assert answer.text == (content or "")
        assert answer.stop_reason == stop and isinstance(stop, str | None)


# How many at a time


def test_a_batch_keeps_to_the_concurrency(stub: Stub) -> None:
    stub.meets(3)
    answers = OpenAI("small", stub.url, concurrency=3).complete(
        [talk() for _ in range(12)], SAMPLING
    )
    assert all(isinstance(answer, Completion) for answer in answers)
    assert stub.most == 3


def test_many_callers_keep_to_the_concurrency(stub: Stub) -> None:
    stub.meets(2)
    policy = OpenAI("small", stub.url, concurrency=2)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ask(policy), range(16)))
    assert all(isinstance(answer, Completion) for answer in answers)
    assert stub.most == 2


# The key


def test_the_key_goes_into_the_header(stub: Stub) -> None:
    ask(OpenAI("small", stub.url))
    assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(stub.bodies)


@pytest.mark.parametrize("value", [None, "", "\n"])
def test_without_a_key_there_is_no_header(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    assert isinstance(ask(OpenAI("small", stub.url)), Completion)
    assert "Authorization" not in stub.headers[0]


def test_white_space_around_the_key_is_none_of_it(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    ask(OpenAI("small", stub.url))
    assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("bad", [f"{KEY}\nX: y", f"{KEY} too", f"{KEY}\u20ac"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    with pytest.raises(ValueError, match=r"^OPENAI_API_KEY") as refused:
        OpenAI("small", "http://localhost:8000/v1")
    assert KEY not in repr(refused.value) and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"error": f"Incorrect API key provided: {KEY}"}, 401),
        Reply({"error": f"{KEY} is over its limit"}, 429),
        Reply({"error": "x" * 280 + KEY}, 400),
        Reply(f"not json: {KEY}".encode()),
        Reply({"echo": {"Authorization": f"Bearer {KEY}"}}),
        Reply({"echo": "x" * 130 + KEY}),
        says("text", usage={"prompt_tokens": KEY}),
    ],
)
@pytest.mark.usefixtures("sleeps")
def test_a_server_that_repeats_the_key_does_not_get_it_into_an_error(
    stub: Stub, reply: Reply
) -> None:
    stub.replies(reply)
    assert KEY[:12] not in failure(OpenAI("small", stub.url, retries=1))


def test_a_word_that_happens_to_be_the_key_stays_in_a_message(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")  # what local servers are commonly sent
    stub.replies(says("The cell is EMPTY."))
    answer = ask(OpenAI("small", stub.url))
    assert isinstance(answer, Completion) and answer.text == "The cell is EMPTY."


@pytest.mark.usefixtures("sleeps")
def test_the_key_is_in_nothing_that_is_shown(stub: Stub) -> None:
    policy = OpenAI("small", dead_url(), retries=0)
    assert KEY not in f"{policy.spec} {policy.revision} {policy!r} {failure(policy)}"
    assert KEY not in repr(ask(OpenAI("small", stub.url)))
    assert (policy.spec, policy.revision, policy.remote) == ("openai:small", "small", True)


# Base URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "localhost:8000/v1",
        "ftp://x",
        "http://",
        "http:///v1",
        "http://[::1",
        "http://localhost:99999/v1",
        "http://localhost:port/v1",
        "http://local\nhost/v1",
        "http://localhost/v1\x00",
        "http://..x/v1",
        f"http://{'x' * 64}/v1",
        "http://localhost:0/v1",
        "http://\ud800/v1",
        "http://user:pw@host:99999/v1",
        "ftp://user:pw@host/v1",
    ],
)
def test_a_bad_base_url_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ValueError, match="base URL") as refused:
        OpenAI("small", url)
    assert len(str(refused.value).splitlines()) == 1
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "https://api.example.org/v1",
        "http://[::1]:8000/v1",
        "http://user:pw@host/v1",
    ],
)
def test_a_good_base_url_stays_as_it_is(url: str) -> None:
    assert check_url(url) == check_url(f"{url}/") == url


@settings(max_examples=200, deadline=None)
@given(rest=st.text(max_size=12))
def test_any_base_url_is_taken_or_refused(rest: str) -> None:
    try:
        url = check_url(f"http://{rest}")
    except ValueError as refused:
        assert len(str(refused).splitlines()) == 1
    else:
        assert httpx.Request("POST", f"{url}/chat/completions").url.host


@pytest.mark.parametrize("what", ["headers", "1xx answers", "a chunk's size", "a body"])
def test_a_server_that_drips_its_answer_is_given_up(what: str) -> None:
    with talking(DRIPS[what]) as url:
        assert "no answer within 0.3 s" in failure(OpenAI("small", url, timeout=0.3, retries=0))


def test_a_long_answer_is_an_error_and_a_long_message_is_cut(stub: Stub) -> None:
    stub.replies(says("x" * MAX_ANSWER))
    assert "more than 8 MiB" in failure(OpenAI("small", stub.url, retries=0))
    thought = {"content": "x" * (MAX_MESSAGE + 1), "reasoning_content": "y" * (MAX_MESSAGE + 1)}
    stub.replies(Reply({"choices": [{"message": thought, "finish_reason": "stop"}]}))
    answer = ask(OpenAI("small", stub.url))
    assert isinstance(answer, Completion)
    assert (answer.text, answer.stop_reason) == ("x" * MAX_MESSAGE, "cut")
    assert answer.reasoning == "y" * MAX_MESSAGE


# A failure of the provider is no message; what the model or a filter will not say is


def message(fields: object, finish: str | None = "stop", **more: object) -> Reply:
    return Reply({"choices": [{"message": fields, "finish_reason": finish, **more}]})


FAILURES = [
    (message({"content": "half a mess"}, "error"), "finish_reason 'error'"),
    (message({"content": ""}, "abort"), "finish_reason 'abort'"),
    (message({"content": ""}, "error", error={"message": "upstream died"}), "upstream died"),
    (message({"content": "well"}, "stop", error={"code": 502}), "502"),
    (message({}), "without a message"),
    (message({}, None), "without a message"),
    (message({}, "length"), "without a message"),
    (message({"role": "assistant"}), "without a message"),
    (Reply({"error": {"message": "Provider returned error", "code": 429}}), "Provider returned"),
    (Reply({"choices": [], "error": "out of memory"}), "out of memory"),
]


@pytest.mark.parametrize(("reply", "why"), FAILURES)
@pytest.mark.usefixtures("sleeps")
def test_a_providers_failure_is_tried_again_and_then_told(
    stub: Stub, reply: Reply, why: str
) -> None:
    stub.replies(reply, says("better"))
    answer = ask(OpenAI("small", stub.url))
    assert isinstance(answer, Completion) and answer.text == "better"
    stub.replies(reply)
    assert why in failure(OpenAI("small", stub.url, retries=1))


@pytest.mark.parametrize(
    ("reply", "text", "stop"),
    [
        (message({"content": None, "refusal": "I won't."}), "I won't.", "refusal"),
        (message({"content": "", "refusal": "No."}, "content_filter"), "No.", "refusal"),
        (message({"content": "Up", "refusal": None}), "Up", "stop"),
        (message({"content": ""}, "content_filter"), "", "content_filter"),
        (message({"role": "assistant"}, "content_filter"), "", "content_filter"),
        (message({"role": "assistant"}, "length"), "", "length"),
        (message({"content": None}), "", "stop"),
        (message({"content": ""}, "model_context_window_exceeded"), "", None),
        (Reply({"error": {"code": "content_filter", "message": "no"}}, 400), "", "content_filter"),
    ],
)
def test_what_a_model_or_a_filter_does_not_say_is_its_answer(
    stub: Stub, reply: Reply, text: str, stop: str | None
) -> None:
    stub.replies(reply)
    answer = ask(OpenAI("small", stub.url))
    assert isinstance(answer, Completion)
    assert answer.text == text
    assert answer.stop_reason == (stop or "model_context_window_exceeded")


def test_a_refusal_is_played_and_recorded(stub: Stub) -> None:
    stub.replies(message({"content": None, "refusal": "I won't."}))
    attempt = played(OpenAI("small", stub.url)).attempts[0]
    assert attempt.valid and attempt.reward == 0.0
    assert {turn.stop for turn in attempt.turns} == {"refusal"}
    assert attempt.messages[2] == {"role": "assistant", "content": "I won't."}


def played(policy: OpenAI) -> Episode:
    players: dict[Role, Player] = {"actor": Player(policy, SAMPLING)}
    task = Task("frozenlake", {"desc": ["SFG", "FHF"]})
    [episode] = rollout([Job(task, 0, 0)], EnvPool({"frozenlake": {"max_turns": 4}}), players)
    return episode


# A full context


class Small:
    """A model of a context of so many words, as vLLM serves it."""

    def __init__(self, context: int, counts: bool = True) -> None:
        self.context, self.counts = context, counts

    def __call__(self, request: Request) -> Reply:
        asked = request.body["max_tokens"]
        prompt = sum(len(m["content"].split()) for m in request.body["messages"])
        if prompt + asked > self.context:
            least = self.context - asked + 1  # it stops counting there
            told = f"""This model's maximum context length is {self.context} tokens. However, you
                requested {asked} output tokens and your prompt contains at least {least} input
                tokens, for a total of at least {self.context + 1} tokens."""
            return Reply({"error": {"message": told, "code": 400}}, 400)
        usage = {"prompt_tokens": prompt, "completion_tokens": asked} if self.counts else {}
        return says("up " * asked, finish="length", usage=usage)


def test_what_is_left_of_a_context_is_used_as_a_local_model_uses_it(stub: Stub) -> None:
    prompt = sum(len(m["content"].split()) for m in MESSAGES)
    stub.answer = Small(prompt + 20)
    answer = ask(OpenAI("small", stub.url))
    assert isinstance(answer, Completion)
    assert [body["max_tokens"] for body in stub.bodies] == [64, 1, 20]
    assert len({body["seed"] for body in stub.bodies}) == 1
    assert (answer.text, answer.stop_reason) == ("up " * 20, "length")
    assert answer.usage.completion_tokens == 20


@pytest.mark.parametrize("counts", [True, False])
def test_a_full_context_leaves_empty_messages_and_a_valid_episode(stub: Stub, counts: bool) -> None:
    first = played(OpenAI("small", stub.url)).attempts[0].messages[:2]
    prompt = sum(len(m["content"].split()) for m in first)
    stub.answer = Small(prompt + 80, counts)
    attempt = played(OpenAI("small", stub.url)).attempts[0]
    assert attempt.valid and attempt.outcome == "out_of_turns" and len(attempt.turns) == 4
    said = [m["content"] for m in attempt.messages if m["role"] == "assistant"]
    assert said[0] == "up " * 64 and said[2:] == ["", ""]
    # what `test_a_context_that_fills_up…` asks of a local model
    last = attempt.turns[-1]
    assert (last.action, last.stop, last.usage.completion_tokens) == (None, "length", 0)


def test_a_context_whose_length_nobody_tells_is_full(stub: Stub) -> None:
    stub.replies(Reply({"error": {"code": "context_length_exceeded"}}, 400))
    answer = ask(OpenAI("small", stub.url))
    assert isinstance(answer, Completion)
    assert (answer.text, answer.stop_reason) == ("", "length") and len(stub.bodies) == 1


# What one server alone does not take, or takes


class Picky:
    """Refuses requests that hold one of these parameters, the first of them at a time."""

    def __init__(self, **refused: str) -> None:
        self.refused = refused

    def __call__(self, request: Request) -> Reply:
        for name, told in self.refused.items():
            if name in request.body:
                return Reply({"error": {"message": told}}, 400)
        return says("```Up```")


NEWER = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0.7 with this model.",
    "top_k": "Unrecognized request argument supplied: top_k",
    "seed": "Unknown parameter: 'seed'.",
}


def test_what_a_server_does_not_take_is_learnt_once_and_said_once(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = Picky(**NEWER)
    policy = OpenAI("small", stub.url)
    answers = policy.complete([talk() for _ in range(8)], SAMPLING)
    assert all(isinstance(answer, Completion) for answer in answers)
    before = len(stub.bodies)
    assert isinstance(ask(policy), Completion)
    assert len(stub.bodies) == before + 1
    assert stub.bodies[-1] == {
        "model": "small",
        "messages": MESSAGES,
        "top_p": 0.8,
        "max_completion_tokens": 64,
    }
    assert sorted(policy.refused) == ["seed", "temperature", "top_k"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and all(line.startswith("openai:small ") for line in told)


@pytest.mark.usefixtures("sleeps")
def test_a_value_that_is_refused_is_the_persons_to_mend(stub: Stub) -> None:
    stub.answer = Picky(temperature="temperature must be between 0 and 0.5")
    policy = OpenAI("small", stub.url)
    assert "must be between" in failure(policy)
    assert not policy.refused and len(stub.bodies) == 1


def test_a_refusal_that_does_not_end_is_told(stub: Stub) -> None:
    """It names what is sent no more."""
    stub.replies(Reply({"error": {"message": NEWER["seed"]}}, 400))
    assert "Unknown parameter" in failure(OpenAI("small", stub.url))
    assert len(stub.bodies) == 2


def test_an_extra_body_goes_along_and_into_the_revision(stub: Stub) -> None:
    extra = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    policy = OpenAI("small", stub.url, tools=True, extra_body=extra)
    assert isinstance(ask(policy), Completion)
    assert {name: stub.bodies[0][name] for name in extra} == extra
    assert policy.revision.startswith("small, with {") and "low" in policy.revision
    assert policy.revision.endswith(WITH_TOOLS)


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "messages", "stream", "seed"])
def test_an_extra_body_cannot_say_what_the_policy_says(name: str) -> None:
    with pytest.raises(ValueError, match=f"an extra body cannot say '{name}'"):
        OpenAI("small", "http://localhost:1/v1", extra_body={name: 1})


# Thoughts, and what nobody counts


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_thought_told_apart_is_kept_and_never_read_or_sent(stub: Stub, name: str) -> None:
    stub.replies(message({"content": "Well. ```Right```", name: "```Down``` is a hole."}))
    episode = played(OpenAI("small", stub.url))
    turns = episode.attempts[0].turns
    assert [turn.reasoning for turn in turns] == ["```Down``` is a hole."] * 2
    assert [turn.action for turn in turns] == ["Right", "Right"]
    assert "hole" not in json.dumps(stub.bodies[-1]["messages"])
    assert Episode.from_json(json.loads(json.dumps(episode.to_json()))) == episode


def test_no_thought_leaves_no_field(stub: Stub) -> None:
    stub.replies(message({"content": "```Right```", "reasoning": None}))
    episode = played(OpenAI("small", stub.url))
    assert '"reasoning":' not in json.dumps(episode.to_json())


def test_tokens_that_a_server_does_not_count_are_unknown(stub: Stub) -> None:
    stub.replies(message({"content": "```Right```"}))
    episode = played(OpenAI("small", stub.url))
    usage = episode.attempts[0].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (None, None)
    assert usage.seconds > 0
    assert Episode.from_json(json.loads(json.dumps(episode.to_json()))) == episode


def test_tool_calls_become_the_messages_that_mean_the_same(stub: Stub) -> None:
    from erl_envs.hotpotqa import HotpotQA

    def call(name: str, arguments: str) -> Reply:
        calls = [
            {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
        ]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return Reply({"choices": [{"message": message, "finish_reason": "tool_calls"}]})

    def says_now(policy: OpenAI, stage: str = "attempt_1") -> str:
        asked = Conversation(list(MESSAGES), ("hotpotqa", "x", 0, stage), 0, HotpotQA())
        (answer,) = policy.complete([asked], SAMPLING)
        assert isinstance(answer, Completion)
        return answer.text

    stub.answer = lambda _: call("local_search", '{"query": "Oskelt", "top_k": 2}')
    assert says_now(OpenAI("small", stub.url, tools=True)) == '<search top_k="2">Oskelt</search>'
    assert stub.bodies[-1]["tools"] == list(HotpotQA.tools)
    assert says_now(OpenAI("small", stub.url)) == "" and "tools" not in stub.bodies[-1]
    # who reflects is to write a rulebook, not to search
    assert says_now(OpenAI("small", stub.url, tools=True), "reflection") == ""
    assert "tools" not in stub.bodies[-1]
    hostile = ("{", "[]", "[" * 100_000, "null")
    for name, arguments in (("web", "{}"), *(("local_search", bad) for bad in hostile)):
        stub.answer = lambda _, name=name, arguments=arguments: call(name, arguments)  # type: ignore[misc]
        assert says_now(OpenAI("small", stub.url, tools=True)) == f"{name}({arguments})"
