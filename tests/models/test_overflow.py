"""Refusals for length, in the words of the servers that are in use, and others that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentflow.errors import BackendRejected, ContextOverflow
from agentflow.executor.models import failures

URL = "http://somewhere/v1"

TOO_LONG: list[tuple[str, int | None]] = [
    (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (2952 in the messages, 2048 in the completion).",
        4096,
    ),
    (
        "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 2048 tokens and your request has 100 input tokens (4096 > 2048 - 100).",
        2048,
    ),
    (
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.",
        4096,
    ),
    (
        "You passed 9000 input tokens and requested 500 output tokens. However, the model's context length is only 8192 tokens, resulting in a maximum input length of 7692 tokens.",
        8192,
    ),
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 4096),
    (
        "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 tokens: 4000 tokens from the input messages and 1000 tokens for the completion.",
        4096,
    ),
    (
        "request (12534 tokens) exceeds the available context size (8192 tokens), try increasing it",
        8192,
    ),
    ("the request exceeds the available context size, try increasing it", None),
    ("prompt too long; exceeded max context length by 100918 tokens", None),
    ("prompt is too long: 213462 tokens > 200000 maximum", 200000),
    (
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again",
        200000,
    ),
    (
        "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
        1048575,
    ),
    (
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        131072,
    ),
    ("Please reduce the length of the messages or completion. [context_length_exceeded]", None),
    ("Please reduce the length of the messages or completion.", None),
    (
        "Prompt contains 300000 tokens and 0 draft tokens, too large for model with 262144 maximum context length",
        262144,
    ),
    (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 512 `max_new_tokens`",
        4096,
    ),
    ("Input validation error: `inputs` must have less than 1024 tokens. Given: 5000", None),
    ("Range of input length should be [1, 129024]", 129024),
    ("Prompt has 5,958,968 tokens, but the configured context size is 256,000 tokens", 256000),
    ("prompt token count of 240000 exceeds the limit of 200000", 200000),
    ("Input length 131393 exceeds the maximum allowed input length of 131040 tokens.", 131040),
    ("Input length (265330) exceeds model's maximum context length (262144).", 262144),
    (
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        None,
    ),
    (
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough.",
        4096,
    ),
    (
        "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: OpenAIException - too long",
        None,
    ),
    ("Your request exceeded model token limit: 262144 (requested: 300000)", 262144),
    ("The prompt is too long: 9000, model maximum context length: 8191", 8191),
    ("Input is too long for requested model.", None),
    ("The input token count exceeds the maximum number of tokens allowed 1048576.", 1048576),
]

OTHERS = [
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.",
    "Input validation error: `max_new_tokens` must be strictly positive",
    "Tool call id has to be defined in the context of a tool message",
    "Unknown parameter: 'context_window'.",
    "Invalid schema for function 'get_context_length': In context=('properties'), ...",
    "Unsupported parameter: 'context_length' is not supported with this model",
    "'n_ctx' is not a request parameter; the context size is set when the server starts",
    "zai does not support parameters: ['context_management']",
    "Throttling error: Too many tokens, please wait before trying again.",
]

IN_STREAMS: list[tuple[dict[str, Any], int | None]] = [
    ({"code": "context_length_exceeded", "message": "Please ask for less"}, None),
    ({"code": 400, "message": "request exceeds the context size", "n_ctx": 4096}, 4096),
    ({"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}, None),
]


def refusal(said: str) -> Exception:
    return failures.from_status(400, json.dumps({"error": {"message": said}}), {}, URL)


@pytest.mark.parametrize(("said", "window"), TOO_LONG)
def test_a_refusal_for_length_is_known_in_everybodys_words(said: str, window: int | None) -> None:
    error = refusal(said)
    assert isinstance(error, ContextOverflow)
    assert error.window == window


@pytest.mark.parametrize("said", OTHERS)
def test_another_refusal_is_none(said: str) -> None:
    assert type(refusal(said)) is BackendRejected


@pytest.mark.parametrize(("event", "window"), IN_STREAMS)
def test_it_may_come_within_a_stream(event: dict[str, Any], window: int | None) -> None:
    error = failures.from_event(event, URL)
    assert isinstance(error, ContextOverflow)
    assert (error.window, error.retryable) == (window, False)
