"""What secrets look like: detect-secrets' rules, and those that it lacks, of the keys of models.

For what is about to be published. Of detect-secrets, rules that go by entropy, by an address or by
any word such as `password` are left out: transcripts are full of hashes and of prose. So are those
that take a time that grows with the square of a text, for anybody may have written it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, Protocol

from erl_envs.secrets.urls import HIDDEN, redact_urls


class Rule(NamedTuple):
    """What a kind of secret looks like.

    Attributes:
        kind: Of secret, in words.
        anchors: One of them, in small letters, is in every text that holds such a secret.
        pattern: Finds it.
    """

    kind: str
    anchors: tuple[str, ...]
    pattern: re.Pattern[str]


class _Detector(Protocol):
    """A rule of detect-secrets."""

    secret_type: str

    def analyze_string(self, string: str) -> Iterator[str]:
        """The secrets of a string."""


def _rule(kind: str, anchors: str, pattern: str) -> Rule:
    # a key may stand behind an underscore, which is part of a word to \b
    begun = pattern.replace(r"\b", "(?<![A-Za-z0-9])", 1)
    return Rule(kind, tuple(anchors.split()), re.compile(begun))


_MIXED = r"(?=[\w.~+/=-]{0,64}[0-9])(?=[\w.~+/=-]{0,64}[A-Za-z])"
"""What follows has a letter and a digit: no word, no number. Each look ahead is bounded, else many
beginnings of one long word would each be read to its end."""

_IS = r"[\"']?\s{0,4}[:=]\s{0,4}[\"']?"
"""What stands between a name and a value."""

RULES = (
    _rule("OpenAI or a like service", "sk-", r"\bsk-(?=[\w-]{0,64}\d)[\w-]{20,}"),
    _rule("Groq", "gsk_", r"\bgsk_\w{40,}"),
    _rule("Replicate", "r8_", r"\br8_[A-Za-z0-9]{30,}"),
    _rule("Hugging Face", "hf_ api_org_", r"\b(?:hf_|api_org_)[A-Za-z0-9]{30,}"),
    _rule("Google", "aiza ya29. gocspx-", r"\b(?:AIza|ya29\.|GOCSPX-)[\w-]{25,}"),
    _rule("xAI", "xai-", r"\bxai-[A-Za-z0-9]{40,}"),
    _rule("Perplexity", "pplx-", r"\bpplx-[A-Za-z0-9]{40,}"),
    _rule("Fireworks", "fw_", r"\bfw_(?=\w{0,40}\d)[A-Za-z0-9]{20,}"),
    _rule("NVIDIA", "nvapi-", r"\bnvapi-[\w-]{40,}"),
    _rule("Cerebras", "csk-", r"\bcsk-(?=\w{0,40}\d)[a-z0-9]{40,}"),
    _rule("Pinecone", "pcsk_", r"\bpcsk_\w{40,}"),
    _rule("Tavily", "tvly-", r"\btvly-(?=[\w-]{0,40}\d)[\w-]{20,}"),
    _rule("LangSmith", "lsv2_", r"\blsv2_(?:pt|sk)_[0-9a-f]{32}"),
    _rule("Databricks", "dapi", r"\bdapi[0-9a-f]{32}"),
    _rule("GitHub", "gh github_pat_", r"\b(?:gh[opsur]_[A-Za-z0-9]{30,}|github_pat_\w{40,})"),
    _rule("GitLab", "gl", r"\bgl(?:pat|oas|dt|rt|ptt|ft|imt|agent|soat|cbt)-[\w-]{20,}"),
    _rule("AWS", "aws", rf"(?i)\baws_?\w{{0,20}}secret\w{{0,20}}{_IS}{_MIXED}[\w+/]{{40}}"),
    _rule("Azure", "8q~", r"\b[\w~.-]{3}8Q~[\w~.-]{31,34}"),
    _rule("Slack", "xox xapp-", r"\b(?:xox[abceoprs]|xapp)-[\w-]{10,}"),
    _rule("Stripe", "k_live_ k_test_ whsec_", r"\b(?:[rsp]k_(?:live|test)|whsec)_\w{16,}"),
    _rule("Telegram", ":aa", r"\b\d{8,10}:AA[\w-]{33}"),
    _rule("DigitalOcean", "_v1_", r"\bdo[opr]_v1_[0-9a-f]{64}"),
    _rule("Docker", "dckr_", r"\bdckr_(?:pat|oat)_[\w-]{20,}"),
    _rule("Notion or Linear", "ntn_ secret_ lin_", r"\b(?:ntn|secret|lin_api)_[A-Za-z0-9]{40,}"),
    _rule("Shopify", "shp", r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    _rule("Twilio", "sk", r"\bSK[0-9a-f]{32}\b"),
    _rule("a JSON web token", "eyj", r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}"),
    _rule("npm", "npm_ _authtoken=", r"\bnpm_[A-Za-z0-9]{30,}|_authToken=[\w-]{30,}"),
    _rule("age", "age-secret-key-", r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}"),
    _rule(
        "a private key",
        "private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\w+/=\s\\]*(?:-----END [A-Z ]*-----)?",
    ),
    _rule(
        "an authorization header",
        "bearer basic authorization",
        rf"(?i:\bBearer) {_MIXED}[\w.~+/-]{{20,}}"
        rf"|(?i:Authorization{_IS}(?:Basic|Token|Bearer)) "
        r"\w(?=[\w.~+/=-]{0,64}[0-9A-Z])[\w.~+/=-]{7,}",
    ),
    _rule(
        "a value that is called a key or password",
        "key token secret password passwd",
        r"(?i)(?:(?:api|access|secret|auth|private|client|account)[_-]?(?:key|token|secret)"
        r"|\w_(?:key|token|secret|password)|password|passwd)"
        rf"{_IS}{_MIXED}[\w+/-]{{16,}}",
    ),
)


def find(text: str) -> Iterator[tuple[str, str]]:
    """What of a text looks like a secret: its kind, in words, and the secret."""
    small = text.lower()
    for rule in RULES:
        if any(anchor in small for anchor in rule.anchors):
            for found in rule.pattern.finditer(text):
                yield rule.kind, found[0]
    for detector in _detectors():
        for secret in detector.analyze_string(text):
            yield detector.secret_type, secret
    if redact_urls(text) != text:
        yield "credentials in a URL", text


def kind_of(text: str) -> str | None:
    """The kind of the first secret that a text seems to hold; None if it holds none."""
    return next((kind for kind, _ in find(text)), None)


def hide(text: str) -> str:
    """A text without what looks like a secret: for what is told of something foreign."""
    text = redact_urls(text)
    for _, secret in find(text):
        text = text.replace(secret, HIDDEN)
    return text


@cache
def _detectors() -> tuple[_Detector, ...]:
    from detect_secrets.plugins import (
        artifactory,
        aws,
        azure_storage_key,
        basic_auth,
        discord,
        github_token,
        gitlab_token,
        mailchimp,
        private_key,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        twilio,
    )

    return (
        artifactory.ArtifactoryDetector(),
        aws.AWSKeyDetector(),
        azure_storage_key.AzureStorageKeyDetector(),
        basic_auth.BasicAuthDetector(),
        discord.DiscordBotTokenDetector(),
        github_token.GitHubTokenDetector(),
        gitlab_token.GitLabTokenDetector(),
        mailchimp.MailchimpDetector(),
        private_key.PrivateKeyDetector(),
        pypi_token.PypiTokenDetector(),
        sendgrid.SendGridDetector(),
        slack.SlackDetector(),
        square_oauth.SquareOAuthDetector(),
        stripe.StripeDetector(),
        twilio.TwilioKeyDetector(),
    )
