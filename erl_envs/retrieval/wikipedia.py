"""Live search on Wikipedia, for looking around: its pages change, so its results never repeat."""

from __future__ import annotations

import importlib
import os
import re
from functools import partial
from typing import Any

import httpx

from erl_envs.calls import Bounds, Caller, FinalError, PassingError
from erl_envs.extras import missing_extra
from erl_envs.retrieval.base import Passage
from erl_envs.retrieval.http import Remote
from erl_envs.web import MAX_ANSWER, Response, bound, reason_of, wait_of

CONTACT_VARIABLE = "ERL_ENVS_CONTACT"
_CONTACT = re.compile(r"[^\s()@]+@[^\s()@]+\.[^\s()@]+|https?://[^\s()]+", re.ASCII)
_MAX_QUERY = 300
"""Characters; Wikipedia's search refuses longer queries."""


class Wikipedia(Remote):
    """Wikipedia's full-text search; a passage is a page's introduction.

    One request at a time unless told otherwise, as Wikimedia asks.
    """

    name = "wikipedia"

    def __init__(
        self,
        contact: str | None = None,
        language: str = "en",
        max_chars: int = 2000,
        timeout: float = 20.0,
        retries: int = 2,
        backoff: float = 1.0,
        concurrency: int = 1,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """A client; no request is made yet.

        Args:
            contact: Operator's e-mail address or URL, told to Wikipedia in the User-Agent; None
                takes the environment variable ERL_ENVS_CONTACT.
            language: Of the Wikipedia, as in its host's name.
            max_chars: Where introductions are cut.
            timeout: Seconds for one try of a search: its request and those for its pages.
            retries: Tries after the first, for failures that may pass.
            backoff: Seconds before the first retry; doubled for each further one.
            concurrency: Most searches at a time.
            transport: What carries the requests (a caching one, say); None takes the network.

        Raises:
            ValueError: There is no contact, wikipedia-api is missing, or an argument makes no
                sense; one line that says what to do.
        """
        self.contact = contact or os.environ.get(CONTACT_VARIABLE, "").strip()
        if not (self.contact.isascii() and _CONTACT.fullmatch(self.contact)):
            raise ValueError(
                f"Wikipedia asks who its visitors are: set {CONTACT_VARIABLE} to your e-mail "
                f"address or a URL that tells how to reach you (now {self.contact!r})"
            )
        if not re.fullmatch(r"[a-z]+(-[a-z]+)*", language):
            raise ValueError(f"no language of Wikipedia: {language!r}; it looks like 'en'")
        try:
            api = importlib.import_module("wikipediaapi")  # untyped
        except ImportError as error:
            raise missing_extra("wikipedia retrievers", "data", error) from error
        bounds = Bounds(timeout, retries, backoff, concurrency)
        super().__init__(Caller(f"the {language} Wikipedia", bounds, self._open, self._shut))
        self.language, self.max_chars = language, max_chars
        self._api: Any = api
        self._given = transport

    def search(self, query: str, top_k: int) -> list[Passage]:
        """The introductions of the best pages; none for an empty query.

        Raises:
            RetrievalError: Wikipedia refused, or still failed after the last retry.
        """
        # lone surrogates, which a model's text may hold, fit in no URL
        clean = query.encode("utf-8", "replace").decode()[:_MAX_QUERY].strip()
        return super().search(clean, top_k) if clean else []

    def _open(self) -> None:
        from erl_envs import __version__

        self._transport = self._given or httpx.AsyncHTTPTransport()
        self._wiki = self._api.AsyncWikipedia(
            user_agent=f"erl-envs/{__version__} ({self.contact})",
            language=self.language,
            headers={"Accept-Encoding": "gzip"},
            max_retries=0,  # its own retries sleep as long as the server says
            timeout=None,  # the whole try has a deadline
            transport=self._transport,
            event_hooks={"response": [partial(bound, MAX_ANSWER), _check]},
        )

    async def _shut(self) -> None:
        await self._transport.aclose()

    async def _ask(self, query: str, top_k: int) -> list[Passage]:
        api = self._api
        try:
            found = await self._wiki.search(query, limit=min(top_k, 50))
            passages = []
            for page in found.pages.values():
                text = await self._wiki.extracts(page, exintro=1)
                if text:  # else the page went away since it was indexed
                    passages.append(Passage(page.title, text[: self.max_chars]))
            return passages[:top_k]
        except (PassingError, FinalError):
            raise
        except (api.WikiConnectionError, api.WikiHttpTimeoutError, httpx.HTTPError) as error:
            raise PassingError(reason_of(error.__cause__ or error)) from error
        except Exception as error:  # an odd answer makes the package raise anything
            raise FinalError(f"answered in another form: {error!r}") from error


async def _check(response: httpx.Response) -> None:
    """Find the errors: MediaWiki's own come with status 200, and the package overlooks them."""
    raw = await response.aread()
    reply: Any = Response(response.status_code, raw, wait_of(response)).json()
    if not isinstance(reply, dict) or "error" in reply or "query" not in reply:
        problem = reply.get("error") if isinstance(reply, dict) else None
        code = problem.get("code") if isinstance(problem, dict) else None
        reason = f"answered without a result: {code or 'unknown error'}"
        if code in ("ratelimited", "maxlag", "readonly"):
            raise PassingError(reason)
        raise FinalError(reason)
