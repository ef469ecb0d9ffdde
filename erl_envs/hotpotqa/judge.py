"""A critic that writes feedback from question, attempt and score (the review's LLM judge)."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from erl_envs import policies, prompting
from erl_envs.core import EnvError, digest
from erl_envs.policies import Conversation, Policy, PolicyError, Sampling
from erl_envs.policies.openai import DEFAULT_URL
from erl_envs.thoughts import strip_thoughts

MAX_JUDGEMENT = 4_000
"""Characters of a judgement; what is longer is cut off."""


class Judge:
    """Asks a policy for a few sentences about an attempt. It never sees the gold answer."""

    def __init__(self, policy: Policy, sampling: Sampling | None = None) -> None:
        """A judge by `policy`, greedy unless told otherwise."""
        self.policy, self.sampling = policy, sampling or Sampling(temperature=0.0, max_tokens=512)

    def write(self, question: str, notes: Sequence[str], outcome: str, reward: float) -> str:
        """The judgement.

        Raises:
            EnvError: The policy failed or wrote nothing.
        """
        asked = prompting.render(
            "hotpotqa_judge",
            question=question,
            notes=tuple(notes),
            outcome=outcome,
            reward=f"{reward:g}",
        )
        conversation = Conversation(
            [
                {"role": "system", "content": "You are a fair critic."},
                {"role": "user", "content": asked},
            ],
            ("hotpotqa", "", 0, "judge"),
            int(digest(asked)[:12], 16),
        )
        (answer,) = self.policy.complete([conversation], self.sampling)
        if isinstance(answer, PolicyError):
            raise EnvError(f"the judge failed: {answer}") from answer
        judgement = strip_thoughts(answer.text).strip()
        if not judgement:
            raise EnvError("the judge failed: it wrote nothing")
        return judgement[:MAX_JUDGEMENT]


@functools.cache
def load_judge(spec: str) -> Judge:
    """The judge of a policy string, loaded once a process; `OPENAI_BASE_URL` names its server.

    Raises:
        EnvError: It cannot be loaded.
    """
    url = os.environ.get("OPENAI_BASE_URL", DEFAULT_URL)
    try:
        return Judge(policies.load(spec, base_url=url))
    except ValueError as error:
        raise EnvError(f"the judge cannot be loaded: {error}") from error
