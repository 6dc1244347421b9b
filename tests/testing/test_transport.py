"""The same server without sockets: faults and timeouts on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI

from agentflow._http import module
from agentflow.clock import now
from agentflow.testing import ChatCall, Fault, Gate, Pace, Raw, ScriptedServer

pytestmark = pytest.mark.virtual

URL = "http://scripted/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "?"}]}


@pytest.fixture(params=["httpx", "httpx2"])
def http(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def connect(http: Any, server: ScriptedServer, read: float | None = None) -> Any:
    return http.AsyncClient(transport=server.transport(), timeout=http.Timeout(5, read=read))


async def test_tokens_stream_at_their_pace(http: Any) -> None:
    pace = Pace(first_token=0.5, per_token=0.25)
    server = ScriptedServer(["one two six"], pace=pace)
    arrivals = []
    async with connect(http, server) as client, client.stream("POST", URL, json=ASK) as answer:
        assert answer.status_code == 200
        assert isinstance(answer, http.Response)
        async for line in answer.aiter_lines():
            if "content" in line:
                arrivals.append(now())
    assert arrivals == [0.5, 0.5, 0.75, 1.0]  # the role comes with the first token


async def test_a_server_goes_on_sending_while_the_client_does_not_read(http: Any) -> None:
    server = ScriptedServer(["one two six"], pace=Pace(1.0, 1.0))
    async with connect(http, server) as client, client.stream("POST", URL, json=ASK) as answer:
        await asyncio.sleep(60)
        await answer.aread()
    assert server.requests[0].ended == 3.0
    assert now() == 60.0


@pytest.mark.parametrize("fault", [Fault.silence(), Fault.stall(after=2)])
async def test_the_read_timeout_is_obeyed_and_ends_the_reply(http: Any, fault: Fault) -> None:
    server = ScriptedServer([fault])
    async with connect(http, server, read=7) as client:
        with pytest.raises(http.ReadTimeout) as caught:
            await client.post(URL, json=ASK)
    assert now() == 7.0
    assert caught.value.request.url == URL
    assert server.requests[0].disconnected
    assert server.active == 0


@pytest.mark.parametrize("fault", [Fault.hang_up(), Fault.cut(after=2)])
async def test_a_cut_is_a_protocol_error(http: Any, fault: Fault) -> None:
    server = ScriptedServer([fault])
    async with connect(http, server) as client:
        with pytest.raises(http.RemoteProtocolError):
            await client.post(URL, json=ASK)
    assert not server.requests[0].disconnected


async def test_leaving_a_stream_stops_the_reply(http: Any) -> None:
    server = ScriptedServer([Fault.stall("a b c", after=2)])
    async with connect(http, server) as client, client.stream("POST", URL, json=ASK) as answer:
        async for line in answer.aiter_lines():
            if " b" in line:
                break
    assert server.requests[0].disconnected


async def test_a_cancelled_request_stops_the_model(http: Any) -> None:
    gate = Gate()

    async def model(_call: ChatCall) -> str:
        await gate.wait()
        return "late"

    server = ScriptedServer(model)
    async with connect(http, server) as client:
        task = asyncio.create_task(client.post(URL, json=ASK))
        await gate.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert server.requests[0].disconnected


async def test_a_client_reading_when_the_server_closes_gets_a_read_error(http: Any) -> None:
    async with ScriptedServer([Fault.stall(after=1)]) as server, connect(http, server) as client:
        task = asyncio.create_task(client.post(URL, json=ASK))
        await asyncio.sleep(1)
        await server.aclose()
        with pytest.raises(http.ReadError, match="closed"):
            await task


async def test_other_answers_arrive_as_they_are(http: Any) -> None:
    server = ScriptedServer([Fault.status(503, retry_after=1.5), Raw(b"\xff\x00", split=1)])
    async with connect(http, server) as client:
        busy = await client.post(URL, json=ASK)
        raw = await client.post(URL, json=ASK)
        health = await client.get("http://scripted/health")
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1.5")
    assert raw.content == b"\xff\x00"
    assert health.json() == {"status": "ok"}


async def test_the_openai_client_works_over_it() -> None:
    server = ScriptedServer(["Hello."], pace=Pace(first_token=3600))
    http_client = connect(module(), server)
    async with AsyncOpenAI(
        base_url="http://scripted/v1", api_key="k", http_client=http_client, max_retries=0
    ) as client:
        answer = await client.chat.completions.create(model="m", messages=ASK["messages"])
    assert answer.choices[0].message.content == "Hello."
    assert now() == 3600
