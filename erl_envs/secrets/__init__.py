"""Secrets: those that this process knows are kept out of all it writes, likely ones are found."""

from erl_envs.secrets.known import (
    held,
    learn_key,
    learn_url,
    redact,
    redact_error,
    redact_json,
    redacted_errors,
)
from erl_envs.secrets.urls import HIDDEN

__all__ = [
    "HIDDEN",
    "held",
    "learn_key",
    "learn_url",
    "redact",
    "redact_error",
    "redact_json",
    "redacted_errors",
]
