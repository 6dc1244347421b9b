"""The model client against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentflow.budgets.prices import Prices
from agentflow.errors import DefinitionError
from agentflow.executor.models.base import CallRequest, ChatRequest, TextPiece, Usage
from agentflow.executor.models.client import OpenAIBackend

pytestmark = pytest.mark.virtual


def ask(content: str = "hello", **fields: Any) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": content}], **fields)


async def test_pieces_come_in_order_and_the_usage_last(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)

    async with backend().stream(ask()) as stream:
        pieces = [piece async for piece in stream]

    assert pieces == [TextPiece("Hel"), TextPiece("lo"), Usage(10, 2, 4)]


async def test_a_reply_carries_text_usage_and_price(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    prices = Prices({"tiny": {"input": 2, "cached_input": 1, "output": 10}})

    reply = await backend(prices=prices).complete(ask())

    assert (reply.text, reply.finish_reason, reply.attempts) == ("Hello", "stop", 1)
    assert reply.usage == Usage(10, 2, 4)
    assert reply.usd == Decimal("0.000036")  # 6 at 2, 4 at 1 and 2 at 10 USD per million


async def test_a_request_for_another_model_pays_that_models_price(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    client = backend(prices=Prices({"tiny": (1, 1), "large": (100, 100)}))

    reply = await client.complete(ask(model="large"))

    assert wire.seen[0].body["model"] == "large"
    assert reply.usd == Decimal("0.0012")


async def test_a_local_endpoint_costs_nothing_unless_a_price_is_given(
    wire: Any, backend: Any
) -> None:
    wire.reply(*wire.HELLO)

    assert (await backend().complete(ask())).usd == 0


async def test_on_delta_sees_each_piece_before_the_reply_is_whole(wire: Any, backend: Any) -> None:
    gate = asyncio.Event()
    wire.reply(wire.text("Hel"), gate, wire.text("lo"), wire.FINISH, wire.USAGE, wire.DONE)
    seen: list[Any] = []

    def on_delta(piece: Any) -> None:
        seen.append(piece)
        gate.set()  # the server goes on only when the first piece has been seen

    reply = await backend().complete(ask(), on_delta)

    assert [piece.text for piece in seen[:-1]] == ["Hel", "lo"]
    assert reply.text == "Hello"


async def test_times_are_on_the_loop_clock(wire: Any, backend: Any) -> None:
    first, rest = asyncio.Event(), asyncio.Event()
    wire.reply(first, wire.text("a"), rest, wire.FINISH, wire.DONE)
    loop = asyncio.get_running_loop()
    client = backend()
    await client.connect()
    loop.call_later(3, first.set)
    loop.call_later(10, rest.set)

    reply = await client.complete(ask())

    assert (reply.first_token_seconds, reply.seconds) == (pytest.approx(3), pytest.approx(10))


async def test_what_is_sent(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    request = ask(
        max_tokens=7,
        tools=[tool],
        tool_choice="auto",
        temperature=0.0,
        stop=["END"],
        seed=3,
        response_format={"type": "json_object"},
        extra_body={"cache_prompt": True},
        extra_headers={"x-session-id": "s1"},
    )

    await backend(api_key="secret-key", headers={"x-app": "a"}).complete(request)

    [seen] = wire.seen
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.headers["authorization"] == "Bearer secret-key"
    assert (seen.headers["x-session-id"], seen.headers["x-app"]) == ("s1", "a")
    assert seen.body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "tools": [tool],
        "tool_choice": "auto",
        "temperature": 0.0,
        "stop": ["END"],
        "seed": 3,
        "response_format": {"type": "json_object"},
        "cache_prompt": True,
    }


async def test_max_tokens_is_always_sent_and_nothing_that_was_not_asked(
    wire: Any, backend: Any
) -> None:
    wire.reply(*wire.HELLO)

    await backend().complete(ask())

    assert set(wire.seen[0].body) == {
        "model", "messages", "stream", "stream_options", "max_tokens",
    }  # fmt: skip


def test_openais_own_endpoint_gets_the_field_it_wants() -> None:
    backend = OpenAIBackend("https://api.openai.com/v1/", "gpt-5")

    assert backend._max_tokens_field == "max_completion_tokens"


async def test_another_endpoint_gets_the_field_that_is_said(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)

    await backend(max_tokens_field="max_completion_tokens").complete(ask(max_tokens=7))

    assert wire.seen[0].body["max_completion_tokens"] == 7
    assert "max_tokens" not in wire.seen[0].body


@pytest.mark.parametrize("url", ["localhost:8000/v1", "", "ftp://127.0.0.1/v1", "http://"])
def test_a_base_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(DefinitionError, match="not a base URL"):
        OpenAIBackend(url, "tiny")


async def test_the_connection_is_used_again_after_a_whole_reply(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    client = backend()

    for _ in range(3):
        await client.complete(ask())

    assert [seen.connection for seen in wire.seen] == [1, 1, 1]


async def test_a_server_that_keeps_the_stream_open_after_done_does_not_hold_the_reply(
    wire: Any, backend: Any
) -> None:
    wire.reply(*wire.HELLO, asyncio.Event())
    loop = asyncio.get_running_loop()
    client = backend()
    await client.connect()
    begun = loop.time()

    reply = await client.complete(ask())

    assert reply.text == "Hello"
    assert loop.time() - begun <= 0.06
    await wire.seen[0].gone.wait()


async def test_what_follows_done_is_not_read(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO[:-1], wire.DONE + wire.text(" again") + b"data: garbage\n\n")

    async with backend().stream(ask()) as stream:
        pieces = [piece async for piece in stream]

    assert pieces == [TextPiece("Hel"), TextPiece("lo"), Usage(10, 2, 4)]


async def test_llama_cpps_timings_tell_what_was_cached_if_the_usage_does_not(
    wire: Any, backend: Any
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1}
    last = wire.event({"choices": [], "usage": usage, "timings": {"cache_n": 7}})
    wire.reply(wire.text("a"), wire.FINISH, last, wire.DONE)

    assert (await backend().complete(ask())).usage == Usage(9, 1, 7)


async def test_usage_that_is_missing_is_estimated_and_says_so(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("eight by" * 4), wire.FINISH, wire.DONE)

    usage = (await backend().complete(ask("x" * 400))).usage

    assert usage.estimated
    assert usage.completion_tokens == 8
    assert 100 <= usage.prompt_tokens <= 150


async def test_usage_of_a_stream_that_was_left_early_is_an_estimate(
    wire: Any, backend: Any
) -> None:
    wire.reply(wire.text("abcd" * 5), asyncio.Event())

    async with backend().stream(ask()) as stream:
        await anext(aiter(stream))

    assert (stream.usage.completion_tokens, stream.usage.estimated) == (5, True)
    with pytest.raises(RuntimeError, match="to its end"):
        _ = stream.reply


async def test_reasoning_and_refusal_are_kept_apart_from_the_text(wire: Any, backend: Any) -> None:
    for delta in ({"reasoning_content": "hm"}, {"reasoning": "m"}, {"refusal": "No."}):
        wire.answers or wire.reply()
        wire.answers[0].steps += (wire.event({"choices": [{"delta": delta}]}),)
    wire.answers[0].steps += (wire.FINISH, wire.DONE)

    reply = await backend().complete(ask())

    assert (reply.reasoning, reply.refusal, reply.text) == ("hmm", "No.", "")


async def test_calls_become_the_message_of_the_next_request(wire: Any, backend: Any) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    wire.reply(wire.event({"choices": [{"delta": {"tool_calls": [call]}}]}), wire.FINISH, wire.DONE)

    reply = await backend().complete(ask())

    assert reply.calls == (CallRequest("c1", "f", '{"a": 1}'),)
    assert reply.as_message() == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "f", "arguments": '{"a": 1}'},
            }
        ],
    }


async def test_no_more_calls_are_in_flight_than_allowed(wire: Any, backend: Any) -> None:
    gate = asyncio.Event()
    wire.reply(gate, *wire.HELLO)
    client = backend(max_concurrent=2)

    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(client.complete(ask())) for _ in range(5)]
        await asyncio.sleep(1)
        in_flight = len(wire.seen)
        gate.set()

    assert in_flight == 2
    assert [call.result().text for call in calls] == ["Hello"] * 5
    assert [call.result().held > 0 for call in calls] == [False, False, True, True, True]


async def test_a_hundred_and_fifty_streams_at_once_do_not_wait_for_connections(
    wire: Any, backend: Any
) -> None:
    gate = asyncio.Event()
    wire.reply(gate, *wire.HELLO)
    client = backend()

    async with asyncio.TaskGroup() as group:
        for _ in range(150):
            group.create_task(client.complete(ask()))
        await asyncio.sleep(1)
        in_flight = len(wire.seen)
        gate.set()

    assert in_flight == 150


async def test_closing_a_backend_leaves_a_shared_client_open(wire: Any, backend: Any) -> None:
    from agentflow import _http

    wire.reply(*wire.HELLO)
    async with _http.client() as shared:
        one, other = backend(http=shared), backend(http=shared)
        await one.complete(ask())
        await one.aclose()

        assert (await other.complete(ask())).text == "Hello"
