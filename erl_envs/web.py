"""Addresses of servers, as people type them."""

from __future__ import annotations

import httpx

from erl_envs import secrets


def read_url(url: str) -> httpx.URL | None:
    """An http(s) URL that a socket can open; None if it is none."""
    try:
        parts = httpx.URL(url)
        parts.host.encode("idna")  # what the socket will do
    except (httpx.InvalidURL, ValueError, TypeError):
        return None
    port = 80 if parts.port is None else parts.port
    sound = parts.scheme in ("http", "https") and parts.host and 0 < port < 1 << 16
    return parts if sound else None


def check_server(url: str, what: str, example: str) -> str:
    """A server's URL that can be asked; what it carries is a secret of this process from here on.

    Args:
        url: As it was given.
        what: It is, in words.
        example: Of such a URL.

    Raises:
        ValueError: It is no http(s) URL; one line, without a password.
    """
    if secrets.HIDDEN in url:
        raise ValueError(
            f"the {what} {url} was written down without its secrets: give it in full again"
        )
    if read_url(url) is None:
        shown = "" if "@" in url else f" {url!r}"
        raise ValueError(f"bad {what}{shown}; it looks like {example}")
    secrets.learn_url(url)
    return url


def join(url: str, path: str) -> str:
    """The URL of a path below another; a query stays behind the path."""
    base, mark, query = url.partition("#")[0].partition("?")
    return f"{base.rstrip('/')}/{path.lstrip('/')}{mark}{query}"
