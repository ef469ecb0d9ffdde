"""Text environments for language models, with one feedback and reward interface."""

from erl_envs.core import (
    Attempt,
    EnvError,
    Episode,
    Feedback,
    Message,
    Task,
    TextEnv,
    Turn,
)
from erl_envs.registry import list_envs, make, register

__version__ = "0.2.0"

__all__ = [
    "Attempt",
    "EnvError",
    "Episode",
    "Feedback",
    "Message",
    "Task",
    "TextEnv",
    "Turn",
    "__version__",
    "list_envs",
    "make",
    "register",
]
