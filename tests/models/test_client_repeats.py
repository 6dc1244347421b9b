"""Requests after the first are made by hand: nothing of them may differ but the body."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.errors import BackendRejected
from agentflow.executor.models.base import ChatRequest

pytestmark = pytest.mark.virtual


def saying(text: str, **options: Any) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], **options)


async def test_every_request_has_the_same_line_and_headers(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    client = backend(api_key="secret", headers={"x-team": "blue"})

    for text in ("hello", "hello again, ünd more"):
        await client.complete(saying(text))

    first, second = wire.seen
    assert (first.method, first.path) == (second.method, second.path)
    length = {"content-length": second.headers["content-length"]}
    assert {**first.headers, **length} == second.headers
    assert second.headers["authorization"] == "Bearer secret"
    assert second.headers["x-team"] == "blue"
    assert first.connection == second.connection


async def test_every_request_has_a_body_of_its_own(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    client = backend()
    asked = {"max_tokens": 7, "temperature": 0.5, "stop": ["x"], "extra_body": {"top_k": 3}}

    await client.complete(saying("hello", **asked))
    await client.complete(saying("hello", **asked))
    await client.complete(saying("other"))

    first, second, third = (seen.body for seen in wire.seen)
    assert first == second
    assert third["messages"] == [{"role": "user", "content": "other"}]
    assert "stop" not in third and "top_k" not in third


async def test_headers_of_one_request_stay_with_it(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    client = backend()

    for extra in ({"x-once": "1"}, None, {"x-once": "2"}, None):
        await client.complete(saying("hello", extra_headers=extra))

    assert [seen.headers.get("x-once") for seen in wire.seen] == ["1", None, "2", None]


async def test_a_later_request_that_is_refused_says_why(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    wire.fail(400, '{"error": {"message": "too long"}}')
    client = backend()
    await client.complete(saying("hello"))

    with pytest.raises(BackendRejected, match=r"rejected the request \(400\): too long"):
        await client.complete(saying("hello"))
