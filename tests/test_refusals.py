"""What servers say when they refuse, each in its own words, and what that means here."""

from __future__ import annotations

import json

import pytest

from erl_envs.policies.refusals import context_length, filtered, full, unsupported


def quoted(message: str) -> str:
    """As most servers send it."""
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}})


FULL = {
    "OpenAI": (
        '{"error": {"code": "context_length_exceeded", "message": "Your input exceeds the context '
        'window of this model."}}',
        None,
    ),
    "OpenAI, chat": (
        quoted(
            "This model's maximum context length is 8192 tokens. However, your messages resulted "
            "in 9001 tokens."
        ),
        8192,
    ),
    "OpenAI, both": (
        quoted(
            "This model's maximum context length is 4097 tokens. However, you requested 5000 "
            "tokens (3976 in the messages, 1024 in the completion)."
        ),
        4097,
    ),
    "OpenAI, configured": (quoted("Input tokens exceed the configured limit of 272000."), None),
    "vLLM": (
        quoted(
            "'max_tokens' or 'max_completion_tokens' is too large: 1024. This model's maximum "
            "context length is 1000 tokens and your request has 500 input tokens"
        ),
        1000,
    ),
    "vLLM 0.15": (
        quoted(
            "This model's maximum context length is 32768 tokens. However, you requested 32000 "
            "output tokens and your prompt contains at least 769 input tokens"
        ),
        32768,
    ),
    "vLLM, old": (quoted("max_tokens must be at least 1, got -186."), None),
    "SGLang": (
        quoted("The input (33000 tokens) is longer than the model's context length (32768 tokens)"),
        32768,
    ),
    "SGLang, both": (
        quoted(
            "Requested token count exceeds the model's maximum context length of 32768 tokens. "
            "You requested a total of 33000 tokens: 32000 tokens from the input messages"
        ),
        32768,
    ),
    "llama.cpp": (
        '{"error": {"type": "exceed_context_size_error", "n_ctx": 4096, "message": "request (5000 '
        'tokens) exceeds the available context size (4096 tokens), try increasing it"}}',
        None,
    ),
    "llama.cpp, old": (quoted("the request exceeds the available context size."), None),
    "TGI": (
        '{"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. '
        'Given: 3900 `inputs` tokens and 1024 `max_new_tokens`"}',
        4096,
    ),
    "Ollama": (quoted("prompt too long; exceeded max context length by 35 tokens"), None),
    "LM Studio": (
        quoted(
            "The number of tokens to keep from the initial prompt is greater than the context "
            "length"
        ),
        None,
    ),
    "Anthropic": (quoted("prompt is too long: 213462 tokens > 200000 maximum"), None),
    "Anthropic, both": (
        quoted("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
        200000,
    ),
    "Gemini": (
        quoted("The input token count (1196265) exceeds the maximum number of tokens allowed"),
        None,
    ),
    "Mistral": (
        quoted(
            "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"
        ),
        32768,
    ),
    "xAI": (
        quoted("This model's maximum prompt length is 131072 but the request contains 537812"),
        None,
    ),
    "Groq": (quoted("Please reduce the length of the messages or completion."), None),
    "Bedrock": (quoted("Input is too long for requested model."), None),
    "Moonshot": (quoted("Your request exceeded model token limit: 262144"), None),
    "MiniMax": (quoted("invalid params, context window exceeds limit"), None),
    "OpenRouter": (
        json.dumps(
            {
                "error": {
                    "message": "Provider returned error",
                    "metadata": {
                        "raw": quoted("This endpoint's maximum context length is 8192 tokens.")
                    },
                }
            }
        ),
        8192,
    ),
}


@pytest.mark.parametrize("server", FULL)
def test_a_full_context_in_every_servers_words(server: str) -> None:
    text, length = FULL[server]
    assert full(400, text)
    assert context_length(text) == length
    assert not filtered(400, text)
    assert unsupported(400, text) == ()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, quoted("invalid api key")),
        (400, quoted("Invalid value for 'content'")),
        (400, quoted("max_tokens is too large: 200000. It supports at most 16384")),
        (404, quoted("the model's context length was never asked for")),
        (429, quoted("Request too large: tokens per minute (TPM): Limit 6000")),
        (400, quoted("Too many tokens, please wait before trying again.")),
        (413, quoted("Rate limit reached: too many tokens")),
    ],
)
def test_other_refusals_are_no_full_context(status: int, text: str) -> None:
    assert not full(status, text)


UNSUPPORTED = {
    "OpenAI": (
        quoted(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead."
        ),
        ("max_tokens",),
    ),
    "OpenAI, value": (
        quoted(
            "Unsupported value: 'temperature' does not support 0.7 with this model. Only the "
            "default (1) value is supported."
        ),
        ("temperature",),
    ),
    "OpenAI, argument": (quoted("Unrecognized request argument supplied: top_k"), ("top_k",)),
    "OpenAI, parameter": (quoted("Unknown parameter: 'top_k'."), ("top_k",)),
    "Azure": (
        '{"detail":[{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs are not '
        'permitted","input":123}]}',
        ("seed",),
    ),
    "pydantic's repr": (
        quoted(
            "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'input': 42}, {'type': "
            "'extra_forbidden', 'loc': ('body', 'top_k')}]"
        ),
        ("top_k", "seed"),
    ),
    "Fireworks": (quoted("Extra inputs are not permitted, field: 'top_k', value: 20"), ("top_k",)),
    "Gemini": (
        quoted(
            'Invalid JSON payload received. Unknown name "top_k": Cannot find field.\nInvalid JSON '
            'payload received. Unknown name "seed": Cannot find field.'
        ),
        ("top_k", "seed"),
    ),
    "Groq": (quoted("property 'top_k' is unsupported"), ("top_k",)),
    "Anthropic": (quoted("`temperature` is deprecated for this model."), ("temperature",)),
    "Anthropic, both": (
        quoted("temperature and top_p cannot both be specified for this model. Use only one."),
        ("top_p",),
    ),
    "LiteLLM": (quoted("ollama does not support parameters: {'seed': 1}, for model=x"), ("seed",)),
    "vLLM on a TPU": (quoted("Torch XLA does not support per-request seed."), ("seed",)),
    "Python's": (quoted("create() got an unexpected keyword argument 'seed'"), ("seed",)),
}


@pytest.mark.parametrize("server", UNSUPPORTED)
def test_unsupported_parameters_in_every_servers_words(server: str) -> None:
    text, names = UNSUPPORTED[server]
    assert unsupported(400, text) == names
    assert not full(400, text) and not filtered(400, text)


@pytest.mark.parametrize(
    "message",
    [
        "temperature must be between 0 and 2",
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2",
        "`top_p` must be > 0.0 and <= 1.0",
        "max_tokens is too large: 200000. This model supports at most 16384 completion tokens",
        "Invalid value: 'tool'. Supported values are: 'system' and 'user'",
        "registry/x does not support tools",
        "Unknown model 'seedling'",
    ],
)
def test_a_bad_value_is_no_unsupported_parameter(message: str) -> None:
    assert unsupported(400, quoted(message)) == ()


@pytest.mark.parametrize(
    "text",
    [
        '{"error": {"code": "content_filter", "message": "The response was filtered"}}',
        '{"error": {"code": "invalid_prompt", "message": "Invalid prompt: flagged"}}',
        '{"error": {"code": "DataInspectionFailed"}}',
    ],
)
def test_a_filter_is_told_from_other_refusals(text: str) -> None:
    assert filtered(400, text)
    assert not filtered(200, text) and not full(400, text)
