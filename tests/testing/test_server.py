"""ScriptedServer, met through the openai client over real sockets."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai import AsyncOpenAI

from agentflow._http import module
from agentflow.clock import now
from agentflow.testing import (
    Call,
    ChatCall,
    Exchange,
    Fault,
    Gate,
    Pace,
    Raw,
    Reply,
    ScriptedServer,
    Usage,
)

HEAD = '"id":"c1","object":"chat.completion.chunk","created":1,"model":"tiny"'
TRANSCRIPT = f"""\
data: {{{HEAD},"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}}}}]}}

: ping

data: {{{HEAD},"choices":[{{"index":0,"delta":{{"content":"naïve – 你好"}}}}]}}

data: {{{HEAD},"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}

data: [DONE]

""".encode()
BASIC: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi there."}]}
STREAM: dict[str, Any] = {**BASIC, "stream": True, "stream_options": {"include_usage": True}}


def connect(server: ScriptedServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.base_url, api_key="unused", max_retries=0)


@asynccontextmanager
async def serving(*args: Any, **kwargs: Any) -> AsyncIterator[tuple[ScriptedServer, AsyncOpenAI]]:
    async with ScriptedServer(*args, **kwargs) as server, connect(server) as client:
        yield server, client


async def chunks(client: AsyncOpenAI, **request: Any) -> list[Any]:
    async with await client.chat.completions.create(**{**STREAM, **request}) as stream:
        return [chunk async for chunk in stream]


def text(received: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in received if c.choices)


async def ended(exchange: Exchange) -> Exchange:
    """The exchange, once the server has noticed its end."""
    async with asyncio.timeout(10):
        while exchange.ended is None:
            await asyncio.sleep(0)
    return exchange


async def test_a_whole_answer_has_text_finish_reason_and_usage() -> None:
    async with serving(["Good morning."]) as (_, client):
        answer = await client.chat.completions.create(**BASIC)
    assert answer.choices[0].message.content == "Good morning."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4  # Good| mor|ning|.
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4


async def test_a_stream_is_role_then_content_then_finish_then_usage() -> None:
    async with serving(["Good morning."]) as (server, client):
        received = await chunks(client)
        raw = b"".join(data for _, data in server.requests[0].sent)
    assert received[0].choices[0].delta.role == "assistant"
    assert text(received) == "Good morning."
    assert received[-2].choices[0].finish_reason == "stop"
    assert received[-1].choices == []
    assert received[-1].usage.completion_tokens == 4
    assert raw.endswith(b"data: [DONE]\n\n")


async def test_usage_is_streamed_only_when_asked_for() -> None:
    async with serving(["Hello."]) as (_, client):
        received = await chunks(client, stream_options=openai.omit)
    assert all(chunk.usage is None for chunk in received)


async def test_tool_calls_come_as_indexed_fragments() -> None:
    calls = Call("search", {"query": "Spain"}), Call("fetch", '{"broken": ', id="mine")
    async with serving([Reply("Let me look.", *calls)]) as (_, client):
        received = await chunks(client)
    deltas = [d for c in received if c.choices for d in c.choices[0].delta.tool_calls or ()]
    assert [(d.index, d.id, d.function.name) for d in deltas if d.id] == [
        (0, "call_0_0", "search"),
        (1, "mine", "fetch"),
    ]
    fragments = [[d.function.arguments for d in deltas if d.index == i] for i in (0, 1)]
    assert len(fragments[0]) > 3
    assert json.loads("".join(fragments[0])) == {"query": "Spain"}
    assert "".join(fragments[1]) == '{"broken": '
    assert text(received) == "Let me look."
    assert received[-2].choices[0].finish_reason == "tool_calls"


async def test_tool_calls_of_a_whole_answer_are_complete() -> None:
    async with serving([Call("search", {"query": "Spain"})]) as (_, client):
        answer = await client.chat.completions.create(**BASIC)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    call = calls[0]
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"query": "Spain"}
    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_arrives_as_such(stream: bool) -> None:
    async with serving([Reply(refusal="I will not.")]) as (_, client):
        if stream:
            received = await chunks(client)
            refusal = "".join(c.choices[0].delta.refusal or "" for c in received if c.choices)
        else:
            answer = await client.chat.completions.create(**BASIC)
            refusal = answer.choices[0].message.refusal or ""
    assert refusal == "I will not."


async def test_max_tokens_cuts_the_reply_and_says_length() -> None:
    async with serving(["one two three four"]) as (_, client):
        received = await chunks(client, max_tokens=2)
    assert text(received) == "one two"
    assert received[-2].choices[0].finish_reason == "length"
    assert received[-1].usage.completion_tokens == 2


async def test_finish_reason_and_usage_can_be_scripted() -> None:
    reply = Reply("x", finish_reason="content_filter", usage=Usage(7, 8, cached_tokens=6))
    async with serving([reply]) as (_, client):
        answer = await client.chat.completions.create(**BASIC)
    assert answer.choices[0].finish_reason == "content_filter"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 8)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 6


async def test_cached_tokens_count_the_prefix_shared_with_earlier_prompts() -> None:
    system = {"role": "system", "content": "A long and stable prefix of many words."}

    def ask(content: str) -> dict[str, Any]:
        return {**BASIC, "messages": [system, {"role": "user", "content": content}]}

    async with serving(["a", "b", "c"]) as (_, client):
        usages = [
            (await client.chat.completions.create(**ask(content))).usage
            for content in ("first", "second", "second")
        ]
    details = [u.prompt_tokens_details for u in usages if u is not None]
    cached = [d.cached_tokens or 0 for d in details if d is not None]
    assert cached[0] == 0
    assert 10 < cached[1] < cached[2]
    assert usages[2] is not None
    assert cached[2] == usages[2].prompt_tokens - 1


async def test_a_function_sees_the_request_and_may_be_async() -> None:
    async def model(call: ChatCall) -> str:
        return f"{call.number}: {call.said_by('user')} ({call.headers['x-session']})"

    async with serving(model) as (_, client):
        answer = await client.chat.completions.create(**BASIC, extra_headers={"x-session": "s1"})
    assert answer.choices[0].message.content == "0: Hi there. (s1)"


async def test_a_generator_streams_its_pieces_as_they_come() -> None:
    gate = Gate()

    async def model(_call: ChatCall) -> AsyncIterator[str | Call]:
        yield "Thinking."
        await gate.wait()
        yield Call("search", {"query": "x"})

    async with (
        serving(model) as (_, client),
        await client.chat.completions.create(**STREAM) as stream,
    ):
        received = []
        async for chunk in stream:
            received.append(chunk)
            if text(received) == "Thinking.":
                gate.release.set()
    assert received[-2].choices[0].finish_reason == "tool_calls"


async def test_a_model_that_raises_is_a_500_and_is_recorded() -> None:
    def model(_call: ChatCall) -> str:
        raise ValueError("no such thing")

    async with serving(model) as (server, client):
        with pytest.raises(openai.InternalServerError, match="no such thing"):
            await client.chat.completions.create(**BASIC)
        assert isinstance(server.requests[0].error, ValueError)


async def test_a_generator_that_raises_breaks_the_connection() -> None:
    async def model(_call: ChatCall) -> AsyncIterator[str]:
        yield "so far"
        raise ValueError("lost the thread")

    async with serving(model) as (server, client):
        with pytest.raises((openai.APIConnectionError, module().RemoteProtocolError)):
            await chunks(client)
        assert isinstance(server.requests[0].error, ValueError)


async def test_a_script_that_is_used_up_says_so() -> None:
    async with serving([]) as (_, client):
        with pytest.raises(openai.InternalServerError, match="no answer for request number 1"):
            await client.chat.completions.create(**BASIC)


async def test_requests_on_one_connection_are_answered_one_after_another() -> None:
    async with serving(["a", "b", "c"]) as (server, client):
        answers = [await client.chat.completions.create(**BASIC) for _ in range(3)]
    assert [a.choices[0].message.content for a in answers] == ["a", "b", "c"]
    assert server.peak == 1


async def test_concurrent_requests_are_answered_at_once() -> None:
    gates = [Gate() for _ in range(5)]

    async def model(call: ChatCall) -> str:
        gates[call.number].entered.set()
        await asyncio.gather(*(gate.entered.wait() for gate in gates))
        return "all here"

    async with serving(model) as (server, client):
        await asyncio.gather(*(client.chat.completions.create(**BASIC) for _ in gates))
    assert server.peak == 5
    assert server.active == 0


async def test_a_client_that_leaves_stops_the_reply_at_once() -> None:
    gate = Gate()

    async def model(_call: ChatCall) -> AsyncIterator[str]:
        yield "one"
        await gate.wait()
        yield "never said"

    async with serving(model) as (server, client):
        async with await client.chat.completions.create(**STREAM) as stream:
            async for _ in stream:
                if gate.entered.is_set():
                    break
        exchange = await ended(server.requests[0])
    assert exchange.disconnected
    assert b"never" not in b"".join(data for _, data in exchange.sent)


async def test_a_generator_is_closed_when_the_client_leaves() -> None:
    closed = asyncio.Event()

    async def model(_call: ChatCall) -> AsyncIterator[str]:
        try:
            for number in range(1000):
                yield f"{number} "
        finally:
            closed.set()

    async with serving(model, pace=Pace(per_token=0.001)) as (_, client):
        async with await client.chat.completions.create(**STREAM) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
        async with asyncio.timeout(10):
            await closed.wait()


async def test_a_cancelled_call_is_seen_as_a_disconnect() -> None:
    gate = Gate()

    async def model(_call: ChatCall) -> str:
        await gate.wait()
        return "late"

    async with serving(model) as (server, client):
        task = asyncio.create_task(client.chat.completions.create(**BASIC))
        await gate.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        exchange = await ended(server.requests[0])
    assert exchange.disconnected
    assert exchange.status is None


async def test_closing_the_server_ends_a_stalled_reply_and_is_no_disconnect() -> None:
    async with ScriptedServer([Fault.stall(after=1)]) as server:
        client = connect(server)
        stream = await client.chat.completions.create(**STREAM)
        await server.aclose()
        with pytest.raises((openai.APIConnectionError, module().RemoteProtocolError)):
            [chunk async for chunk in stream]
        await client.close()
    assert not server.requests[0].disconnected
    assert server.active == 0


@pytest.mark.parametrize("steps", range(8))
async def test_connections_that_come_as_the_server_closes_are_closed_too(steps: int) -> None:
    async def connected(port: int) -> None:
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()

    async with ScriptedServer(["late"]) as server:
        port = urlsplit(server.base_url).port or 0
        clients = asyncio.gather(*(connected(port) for _ in range(12)))
        for _ in range(steps):
            await asyncio.sleep(0)
        await server.aclose()
        await clients
    gc.collect()  # a socket that was left open would be told of here


@pytest.mark.virtual
async def test_tokens_come_at_the_pace_that_was_set() -> None:
    pace = Pace(first_token=0.3, per_token=0.02)
    async with serving(["one two six four five"], pace=pace) as (server, client):
        await chunks(client)
        sent = [at - server.requests[0].started for at, _ in server.requests[0].sent]
    role, *content = sent[:6]
    assert role == pytest.approx(0.3)
    assert content == pytest.approx([0.3, 0.32, 0.34, 0.36, 0.38])


@pytest.mark.virtual
async def test_tokens_of_one_chunk_are_sent_when_the_last_is_due() -> None:
    pace = Pace(first_token=1.0, per_token=0.1, tokens_per_chunk=3)
    async with serving(["one two six four five"], pace=pace) as (server, client):
        received = await chunks(client)
        sent = [at - server.requests[0].started for at, _ in server.requests[0].sent]
    assert [c.choices[0].delta.content for c in received[1:3]] == ["one two six", " four five"]
    assert sent[1:3] == pytest.approx([1.2, 1.4])


@pytest.mark.virtual
async def test_a_whole_answer_takes_as_long_as_its_tokens() -> None:
    async with serving(["one two six"], pace=Pace(0.5, 0.25)) as (_, client):
        began = now()
        await client.chat.completions.create(**BASIC)
        assert now() - began == pytest.approx(1.0)


async def test_429_carries_retry_after() -> None:
    async with serving([Fault.status(429, "slow down", retry_after=2)]) as (_, client):
        with pytest.raises(openai.RateLimitError, match="slow down") as caught:
            await client.chat.completions.create(**BASIC)
    assert caught.value.response.headers["retry-after"] == "2"


async def test_html_arrives_as_html() -> None:
    async with serving([Fault.html(502)]) as (_, client):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**BASIC)
    assert caught.value.response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("fault", [Fault.cut(after=3), Fault.hang_up()])
async def test_a_cut_breaks_the_connection(fault: Fault) -> None:
    async with serving([fault]) as (server, client):
        with pytest.raises((openai.APIConnectionError, module().RemoteProtocolError)):
            await chunks(client)
        exchange = await ended(server.requests[0])
    assert len(exchange.sent) == (4 if fault.after else 0)  # the role and three
    assert not exchange.disconnected


@pytest.mark.parametrize("fault", [Fault.stall(after=2), Fault.silence()])
async def test_a_stall_lasts_until_the_client_leaves(fault: Fault) -> None:
    async with serving([fault]) as (server, client):
        task = asyncio.create_task(chunks(client))
        async with asyncio.timeout(10):
            while not server.requests or len(server.requests[0].sent) < (3 if fault.after else 0):
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        exchange = await ended(server.requests[0])
    assert exchange.disconnected


async def test_garbage_is_no_json() -> None:
    async with serving([Fault.garbage("a b c", after=1)]) as (_, client):
        with pytest.raises(json.JSONDecodeError):
            await chunks(client)


async def test_an_unfinished_stream_ends_without_finish_reason() -> None:
    async with serving([Fault.unfinished("a b c", after=2)]) as (_, client):
        received = await chunks(client)
    assert text(received) == "a b"
    assert all(chunk.choices[0].finish_reason is None for chunk in received)


@pytest.mark.parametrize("after", [3, 99])
async def test_a_fault_after_all_content_comes_before_the_finish(after: int) -> None:
    async with serving([Fault.unfinished("a b c", after=after)]) as (_, client):
        received = await chunks(client)
    assert text(received) == "a b c"
    assert received[-1].choices[0].finish_reason is None


async def test_an_error_event_ends_the_stream() -> None:
    async with serving([Fault.error("out of memory", "a b c", after=1)]) as (_, client):
        with pytest.raises(openai.APIError, match="out of memory"):
            await chunks(client)


async def test_faults_of_whole_answers() -> None:
    script = [
        Fault.error("out of memory", after=1),
        Fault.unfinished("a"),
        Fault.cut(after=1),
        Fault.garbage(after=1),
    ]
    async with serving(script) as (_, client):
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            await client.chat.completions.create(**BASIC)
        answer = await client.chat.completions.create(**BASIC)
        assert answer.choices[0].finish_reason is None
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(**BASIC)
        with pytest.raises(json.JSONDecodeError):
            await client.chat.completions.create(**BASIC)


@pytest.mark.parametrize("split", [None, 1, 7, 4096])
async def test_a_transcript_is_replayed_byte_for_byte(tmp_path: Path, split: int | None) -> None:
    (tmp_path / "recorded.sse").write_bytes(TRANSCRIPT)
    raw = Raw.transcript(tmp_path / "recorded.sse", split=split)
    async with serving([raw]) as (server, client):
        received = await chunks(client)
        assert b"".join(data for _, data in server.requests[0].sent) == TRANSCRIPT
        assert len(server.requests[0].sent) == (
            5 if split is None else -(-len(TRANSCRIPT) // split)
        )
    assert text(received) == "naïve – 你好"


async def test_models_and_health_are_served() -> None:
    async with serving([], models=("small", "large")) as (server, client):
        assert [model.id async for model in client.models.list()] == ["small", "large"]
        async with module().AsyncClient() as http:
            answer = await http.get(server.base_url.removesuffix("/v1") + "/health")
    assert answer.json() == {"status": "ok"}


async def post(server: ScriptedServer, path: str, body: bytes) -> Any:
    async with module().AsyncClient() as http:
        return await http.post(server.base_url + path, content=body)


async def test_wrong_requests_are_refused_with_a_reason() -> None:
    async with ScriptedServer([]) as server:
        broken = await post(server, "/chat/completions", b"{")
        empty = await post(server, "/chat/completions", b"{}")
        lost = await post(server, "/completions", b"{}")
    assert (broken.status_code, empty.status_code, lost.status_code) == (400, 400, 404)
    assert "not JSON" in broken.json()["error"]["message"]
    assert "messages" in empty.json()["error"]["message"]
    assert "/v1/completions" in lost.json()["error"]["message"]
    assert server.requests == []


async def test_a_request_sent_while_another_is_answered_waits_its_turn() -> None:
    gate = Gate()

    async def model(call: ChatCall) -> str:
        if call.number == 0:
            await gate.wait()
        return f"answer {call.number}"

    body = json.dumps(BASIC).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    async with ScriptedServer(model) as server, asyncio.timeout(10):
        host, port = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode() + body)
        await gate.entered.wait()
        writer.write(head.encode() + body)
        await writer.drain()
        gate.release.set()
        await reader.readuntil(b"answer 0")
        await reader.readuntil(b"answer 1")
        writer.close()
        await writer.wait_closed()
    assert server.peak == 1


async def test_what_is_not_http_is_answered_with_400() -> None:
    async with ScriptedServer([]) as server:
        host, port = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"hello?\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on() -> None:
    async with ScriptedServer([]) as server:
        host, port = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"
        writer.write(f"{head}expect: 100-continue\r\n\r\n".encode())
        assert await reader.readline() == b"HTTP/1.1 100 \r\n"
        writer.close()
        await writer.wait_closed()


async def test_a_client_may_leave_in_the_middle_of_its_request() -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with ScriptedServer([]) as server:
        host, port = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        for _ in range(100):  # the server notices
            await asyncio.sleep(0)
    gc.collect()  # a fault that nobody looked at is told of when it goes

    assert not faults


def test_base_url_asks_for_a_running_server() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = ScriptedServer([]).base_url
