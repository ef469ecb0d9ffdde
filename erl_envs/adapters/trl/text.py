"""Plain text: TRL's `rollout_func` plays attempts on the tokens that the model sampled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from erl_envs.adapters.rows import one_sequence, open_row
from erl_envs.core import Attempt, Message, Task, TextEnv, Tokens, canonical_json, digest
from erl_envs.grid import GridEnv
from erl_envs.policies.base import Sampling
from erl_envs.policies.transformers import Transformers
from erl_envs.rollout import Job, Play, Player, Role, attempt, drive


class TextRollout:
    """TRL's `rollout_func`: attempts in plain text by the model that is trained.

    Beside TRL's own fields, reward functions are given `reward` (None where the environment
    failed), `feedback` and `outcome` of each attempt; `outcome` tells lost from out of turns.
    Temperature, top-p and top-k are the trainer's, and its seed decides every random stream. TRL
    takes one sequence an attempt, so a message's thoughts stay in what follows.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        max_tokens: int = 1024,
        concurrency: int = 64,
        template: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Know the tasks; TRL hands over nothing but their prompts.

        So tasks may share a prompt only where it does not matter which of them is played: boards
        of the games that are the same (the paper's FrozenLake sets have many), and questions whose
        answer is. In games whose symbols are drawn for each task, one text may be two boards.

        Args:
            rows: The dataset: `erl_envs.adapters.rows.rows`, or a Dataset of them.
            max_tokens: Most tokens of one message.
            concurrency: Most conversations sampled in a batch.
            template: What the chat template is told beside the messages.

        Raises:
            ValueError: Two tasks have one prompt, and may reward one answer differently.
        """
        self._max_tokens, self._concurrency, self._template = max_tokens, concurrency, template
        self._rows: dict[str, list[tuple[str, str, str]]] = {}
        self._policy: Transformers | None = None
        for given in rows:
            found = (given["env"], given["options"], given["task"])
            alike = self._rows.setdefault(canonical_json(given["prompt"]), [])
            if alike and found != alike[0] and _world(*found) != _world(*alike[0]):
                raise ValueError(f"two tasks have one prompt; one is {given['task']}")
            alike.append(found)

    def open(self, prompt: Sequence[Message], number: int = 0) -> tuple[TextEnv, Task]:
        """A fresh environment and a task that a prompt is for.

        Args:
            prompt: A row's.
            number: Which of its tasks; they are alike.

        Raises:
            ValueError: No row has this prompt.
        """
        try:
            alike = self._rows[canonical_json(prompt)]
        except KeyError:
            raise ValueError(f"no row has the prompt {str(prompt)[:80]}…") from None
        return open_row(*alike[number % len(alike)])

    def policy(self, trainer: Any) -> Transformers:
        """The model that is trained, as a policy.

        Raises:
            ValueError: The trainer samples with vLLM, whose engine is not asked here.
        """
        if trainer.args.use_vllm:
            raise ValueError("TextRollout samples with the trained model: set use_vllm=False")
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self._policy is None or self._policy.model is not model:
            name = model.config.name_or_path or "the trained model"
            # one sequence an attempt: what was sampled stays in it, thoughts and all
            self._policy = Transformers(
                name, model, trainer.processing_class, "keep", self._template
            )
        return self._policy

    def __call__(self, prompts: Sequence[Sequence[Message]], trainer: Any) -> dict[str, Any]:
        """Play each prompt's task once.

        Args:
            prompts: Of this process, each as often as it has samples.
            trainer: The GRPOTrainer.

        Returns:
            TRL's fields, and `reward`, `feedback` and `outcome`; a list of one item a prompt each.

        Raises:
            ValueError: A prompt is of no row.
        """
        args, policy = trainer.args, self.policy(trainer)
        sampling = Sampling(args.temperature, args.top_p, args.top_k, self._max_tokens)
        opened = [self.open(prompt) for prompt in prompts]
        seed = step_seed(trainer)

        def play(number: int) -> Play[tuple[int, Attempt]]:
            env, task = opened[number]
            job = Job(task, trainer.accelerator.process_index * len(prompts) + number, seed)
            played = yield from attempt(env, job, "attempt_1")
            return number, played

        training = policy.model.training
        policy.model.eval()  # dropout would part sampler and trainer
        try:
            players: dict[Role, Player] = {"actor": Player(policy, sampling)}
            found = dict(drive(map(play, range(len(opened))), players, self._concurrency))
        finally:
            policy.model.train(training)
        played = [found[number] for number in range(len(opened))]
        blank = policy.chat.stop_ids[0]
        return {
            **columns([one_sequence(a.tokens) if a.valid else None for a in played], blank),
            "reward": [a.reward if a.valid else None for a in played],
            "feedback": [a.feedback for a in played],
            "outcome": [a.outcome for a in played],
        }


def _world(name: str, options: str, task: str) -> tuple[object, ...]:
    """What decides a task's rewards: of two with the same, it does not matter which is played."""
    env, given = open_row(name, options, task)
    observation, _ = env.reset(options={"task": given})
    if isinstance(env, GridEnv):  # a board shows all, but what its symbols stand for
        hidden: object = dict(env.symbols)
    else:
        hidden = given.params.get("answer", given.params)
    return name, options, env.max_turns, observation, hidden


def env_reward(reward: list[float | None], **_: Any) -> list[float | None]:
    """The reward function that gives what the environments gave."""
    return reward


def step_seed(trainer: Any) -> int:
    """A seed for the trainer's present step: of its own seed, and apart in evaluation."""
    parts = [trainer.args.seed, trainer.state.global_step, trainer.model.training]
    return int(digest(parts)[:12], 16)


def columns(sequences: Iterable[Tokens | None], blank: int) -> dict[str, list[Any]]:
    """Token sequences as TRL takes them: cut before the first sampled id.

    Args:
        sequences: What was sampled; None, or nothing sampled, for a row that teaches nothing.
        blank: The id that such a row holds.
    """
    found: dict[str, list[Any]] = {
        "prompt_ids": [],
        "completion_ids": [],
        "logprobs": [],
        "env_mask": [],
    }
    for given in sequences:
        if given is not None and any(given.sampled):
            ids, mask, logprobs = given.ids, [int(s) for s in given.sampled], given.logprobs
            cut = mask.index(1)
        else:
            ids, mask, logprobs, cut = [blank, blank], [0, 0], [0.0, 0.0], 1
        found["prompt_ids"].append(list(ids[:cut]))
        found["completion_ids"].append(list(ids[cut:]))
        found["logprobs"].append(list(logprobs[cut:]))
        found["env_mask"].append(mask[cut:])
    return found
