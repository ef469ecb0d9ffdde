"""What an OpenEnv client and server say to each other, in text."""

from __future__ import annotations

from typing import Any

from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field, ValidationError


class TextAction(Action):
    """A policy's message."""

    text: str = Field(description="The policy's raw text.")

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> TextAction:
        """The action of a JSON object.

        Raises:
            ValueError: It is none. OpenEnv tells clients the text of this error; of pydantic's own
                it would tell that there was one.
        """
        try:
            action: TextAction = super().model_validate(obj, **kwargs)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))[:60]
            raise ValueError(
                f'an action looks like {{"text": "…"}}; {where!r}: {first["msg"]}'
            ) from error
        action.text.encode()  # half a surrogate pair could not be sent back in an observation
        return action


class TextObservation(Observation):
    """What a step brought; `done` and `reward` are OpenEnv's own."""

    text: str = Field(description="The observation.")
    terminated: bool = Field(default=False, description="Solved or lost.")
    truncated: bool = Field(default=False, description="Out of turns.")
    feedback: str | None = Field(default=None, description="The attempt's, with its last step.")
    outcome: str | None = Field(default=None, description="How it ended, with its last step.")
    system_prompt: str | None = Field(
        default=None, description="What a policy is told before the first observation; at reset."
    )


class TextState(State):
    """Which attempt a session is at; nothing of the world that the policy is not told."""

    env: str = Field(description="The environment's id.")
    task_id: str | None = Field(default=None, description="Content hash of the task.")
    done: bool = Field(default=False, description="Whether the attempt has ended.")
