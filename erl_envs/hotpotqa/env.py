"""HotpotQA with retrieval: search, read, search again, box the answer (PAPER: Environments)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from erl_envs import options as opt
from erl_envs import parsing, prompting, retrieval, task_files
from erl_envs.core import OUT_OF_TURNS, Reference, Step, Task, TextEnv, digest
from erl_envs.hotpotqa import data, rows
from erl_envs.hotpotqa.grading import Mode, grade
from erl_envs.hotpotqa.judge import load_judge
from erl_envs.hotpotqa.markup import unwrap
from erl_envs.hotpotqa.options import MAX_PASSAGE, HotpotQAOptions
from erl_envs.hotpotqa.task import check_task
from erl_envs.hotpotqa.tools import LAST_TURN, MAX_TOP_K, TOOLS, as_message
from erl_envs.retrieval import Corpus, Passage, Retriever

MAX_QUERY, MAX_ANSWER = 500, 200
"""Characters of a query and of an answer: HotpotQA's own are shorter, and a longer one is a passage
dumped in the hope that it holds the answer."""


class HotpotQA(TextEnv):
    """Answer a question that rests on several passages, which have to be found first.

    A task is `{question, answer}`, with `aliases` (other answers that are as right),
    `supporting_facts`, and `context` (its own little corpus) or `corpus` (a part of the data) if it
    has them.
    """

    name = "hotpotqa"
    prompts = "hotpotqa"
    default_max_turns = 5
    max_file = data.MAX_FILE
    Options = HotpotQAOptions
    options: HotpotQAOptions
    outcomes: ClassVar[Mapping[str, str]] = {
        "exact": "The answer is right.",
        "partial": "The answer is partly right.",
        "wrong": "The answer is wrong.",
        "no_box": "The attempt ended with a message that boxed no answer.",
        OUT_OF_TURNS: "All {max_turns} turns were used and no answer was taken.",
    }
    tools: ClassVar[Sequence[Mapping[str, Any]]] = TOOLS
    _is_choice = False  # whether the task is one between two things

    def sample_task(self, rng: np.random.Generator) -> Mapping[str, Any]:
        """A question of the data's first part."""
        source = data.open_source(self.options.data)
        part = source.parts()[0]
        questions = source.questions(part)
        return data.task_params(questions[int(rng.integers(len(questions)))], part)

    def begin(self, params: Mapping[str, Any]) -> None:
        """Take the question, and its corpus's retriever."""
        check_task(params)
        self._retriever = self._searcher(params)
        self._question, self._answer = params["question"], params["answer"]
        self._answers = (self._answer, *params.get("aliases", ()))
        of_a_world = self.options.data == "world" and "corpus" in params
        self._is_choice = of_a_world and params.get("type") == "comparison"
        self._gold = data.titles(params)
        self._seen: dict[Passage, None] = {}
        self._boxed = ""
        self._said_nothing = False
        self._page, self._page_turn = f"Question: {self._question}", 0

    @property
    def _grading(self) -> Mode:
        """What an answer earns: of a choice between two things in a world, the right one alone.

        A part of the reward would pay for naming both, unsearched. The paper's questions keep the
        paper's metric.
        """
        return "em" if self._is_choice else self.options.reward

    def _searcher(self, params: Mapping[str, Any]) -> Retriever:
        options = self.options
        return retrieval.load(
            options.retriever,
            Corpus(()) if self._searches_elsewhere(options) else self._corpus(params),
            options.retriever_url,
            options.retriever_model,
            options.retriever_prefixes,
            keep="context" not in params,
            disk="@" not in str(params.get("corpus")),  # a salt is used once
        )

    @staticmethod
    def _searches_elsewhere(options: HotpotQAOptions) -> bool:
        return options.retriever in ("wikipedia", "http")

    def _corpus(self, params: Mapping[str, Any]) -> Corpus:
        if "context" in params:
            return Corpus.of_questions([params])
        source = data.open_source(self.options.data)
        part: str = params.get("corpus", source.parts()[0])
        source.require(part)
        return source.corpus(part)

    def observe(self) -> str:
        """What the last turn brought, or the question; and that the last turn is the last."""
        fresh = self.turn == self._page_turn
        page = self._page if fresh else f"Question: {self._question}"
        if self.max_turns - self.turn == 1 and not self._outcome:
            return f"{page}\n\n{LAST_TURN}"
        return page

    def parse(self, text: str) -> tuple[str | None, str]:
        """`answer: …` or `search K: …`; a search beside an answer gives way."""
        answer = read_answer(text)
        self._said_nothing = False
        if answer is not None and len(answer) > MAX_ANSWER:
            return None, f"its box holds more than {MAX_ANSWER} characters"
        if answer is not None:
            return f"answer: {answer}", ""
        search = parsing.search_tag(text)
        self._said_nothing = search is None
        if search is None:
            return None, "it holds neither a search between search tags nor a boxed answer"
        query, top_k = search
        return f"search {min(top_k or self.options.top_k, MAX_TOP_K)}: {query}", ""

    def act(self, action: str) -> Step:
        """Search, or take the answer."""
        verb, _, content = action.partition(": ")
        if verb == "answer":
            return self._take(content)
        return self._search(content[:MAX_QUERY], int(verb.removeprefix("search ")))

    def _take(self, answer: str) -> Step:
        self._boxed = answer
        paid, outcome = grade(answer, self._answers, self._grading)
        self._page, self._page_turn = "The answer was taken.", self.turn + 1
        return Step(f"Answered “{answer}”.", True, paid, outcome)

    def _search(self, query: str, top_k: int) -> Step:
        found = self._retriever.search(query, top_k)
        new = [passage for passage in found if passage not in self._seen]
        self._seen.update(dict.fromkeys(found))
        shown = "\n\n".join(
            f"[{number}] {passage.title}\n{self._cut(passage.text)}"
            for number, passage in enumerate(found, 1)
        )
        self._page = (
            f"Found for “{query}”:\n\n{shown}" if found else f"Nothing found for “{query}”."
        )
        self._page_turn = self.turn + 1
        details = {
            "query": query,
            "passages": [
                {"title": p.title, "gold": p.title in self._gold, "new": p in new} for p in found
            ],
        }
        return Step(self._search_note(query, found, new), details=details)

    def _search_note(self, query: str, found: list[Passage], new: list[Passage]) -> str:
        note = f"Searched “{query}”: {len(found)} passages, {len(new)} of them new"
        if not self._gold:
            return f"{note}."
        needed = sum(passage.title in self._gold for passage in new)
        seen = len({passage.title for passage in self._seen} & set(self._gold))
        return (
            f"{note}, {needed} of the new ones needed for the answer; "
            f"{seen} of the {len(self._gold)} needed ones seen so far."
        )

    def _cut(self, text: str) -> str:
        limit = self.options.snippet_chars or MAX_PASSAGE
        return text if len(text) <= limit else f"{text[:limit]}…"

    def say(self, action: str) -> str:
        """The message of an action."""
        verb, _, content = action.partition(": ")
        return f"\\boxed{{{content}}}" if verb == "answer" else f"<search>{content}</search>"

    def tool_message(self, name: str, arguments: Mapping[str, Any]) -> str:
        """`local_search(query, top_k)` as a search tag."""
        return as_message(name, arguments)

    def random_message(self, rng: np.random.Generator) -> str:
        """A search for a word of the question, or a boxed one, with equal chance."""
        words = self._question.split()
        word = words[int(rng.integers(len(words)))]
        return self.say(f"{'search' if rng.random() < 0.5 else 'answer'}: {word}")

    def reference(self) -> Reference:
        """The oracle's searches, and the exact value of random messages."""
        boxes = [
            read_answer(self.say(f"{verb}: {word}"))
            for verb in ("search", "answer")
            for word in self._question.split()
        ]
        taken = [box for box in boxes if box is not None and len(box) <= MAX_ANSWER]
        earned = sum(grade(box, self._answers, self._grading)[0] for box in taken)
        # a message that is not taken for an answer leaves the next turn the same chances
        ever = 1 - (1 - len(taken) / len(boxes)) ** self.max_turns
        return replace(super().reference(), random=earned / max(1, len(taken)) * ever)

    def rules_text(self) -> str:
        """How searching and the reward work; the template stays, its phrases are nano's tokens."""
        told = prompting.render("hotpotqa_rules", reward=self._grading)
        by_words = self.options.retriever in ("bm25", "rank_bm25")
        return told if by_words else told.replace("share the most words with", "best fit")

    def end_of_turns(self) -> str:
        """Whether the last message boxed nothing and searched nothing, or turns ran out."""
        return "no_box" if self._said_nothing else OUT_OF_TURNS

    def tell_outcome(self, outcome: str) -> str:
        """How it ended, and the answer that was read; or what the judge makes of the attempt."""
        told = super().tell_outcome(outcome)
        if self._boxed:
            told += f" It was read from the last box: “{self._boxed}”."
        if self.options.judge is not None:
            judge = load_judge(self.options.judge)
            told += f"\n{judge.write(self._question, self._notes, told, self._reward)}"
        return told

    def tell_solution(self) -> str:
        """The gold answer and the passages it rests on."""
        rests = f" It rests on: {'; '.join(self._gold)}." if self._gold else ""
        aliases = "".join(f", or “{alias}”" for alias in self._answers[1:])
        return f"The right answer is “{self._answer}”{aliases}.{rests}"

    def solve(self) -> list[str] | None:
        """Search the gold titles not yet seen, then box the answer; None if one cannot be found."""
        missing = [t for t in self._gold if t not in {p.title for p in self._seen}]
        plan: list[str] = []
        while missing:
            query = missing[0][:MAX_QUERY]
            titles = {p.title for p in self._retriever.search(query, self.options.top_k)}
            if missing[0] not in titles:
                query = f"{missing[0]} {self._question}"[:MAX_QUERY]
                titles = {p.title for p in self._retriever.search(query, self.options.top_k)}
            if missing[0] not in titles:
                return None
            plan.append(f"search: {query}")
            missing = [title for title in missing if title not in titles]
        return [*plan, f"answer: {self._answer}"]

    def corpus_hash(self, tasks: Sequence[Task]) -> str | None:
        """Of the data's corpora that the tasks search; None with a retriever of its own corpus."""
        if self._searches_elsewhere(self.options):
            return None
        parts = {t.params.get("corpus"): t.params for t in tasks if "context" not in t.params}
        hashes = [self._corpus(params).hash for params in parts.values()]
        return hashes[0] if len(hashes) == 1 else digest(hashes) if hashes else None

    def more_facts(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """Kinds, hops, and how far one search for the plain question gets."""
        recalls: list[float] = []
        for task in tasks:
            self.reset(options={"task": task})
            if self._gold:
                query = self._question[:MAX_QUERY]
                titles = {p.title for p in self._retriever.search(query, self.options.top_k)}
                recalls.append(len(titles & set(self._gold)) / len(self._gold))
        hops = Counter(task.params.get("hops", len(data.titles(task.params))) for task in tasks)
        return {
            "kinds": dict(sorted(Counter(t.params.get("type", "?") for t in tasks).items())),
            "passages needed": dict(sorted(hops.items())),
            "one search": f"of the question finds {_share(recalls)} of the needed passages, and "
            f"all of them for {_share([float(r == 1) for r in recalls])} of the questions",
        }

    @classmethod
    def splits(
        cls, options: opt.Options
    ) -> Mapping[str, Callable[[str], Iterator[dict[str, Any]]]]:
        """The task sets of the data."""
        assert isinstance(options, HotpotQAOptions)
        return data.split_params(data.open_source(options.data))

    @classmethod
    def read_tasks(cls, text: str, options: opt.Options) -> Iterator[task_files.Entry]:
        """Questions in the usual layouts (`rows`), or tasks as they were exported."""
        assert isinstance(options, HotpotQAOptions)
        own = cls._searches_elsewhere(options)
        return rows.tasks(text, cls.name, None if own else data.open_source(options.data).require)


def read_answer(text: str) -> str | None:
    """The answer that a message boxes, without markup; None if it boxes none."""
    return unwrap(parsing.boxed(text) or "") or None


def _share(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else "an unknown share"
