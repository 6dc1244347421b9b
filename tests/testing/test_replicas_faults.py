"""Replicas that die, hang, answer nonsense or tell lies, in memory and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agentflow.clock import now
from agentflow.testing import Fault, ModelledReplica, Serving

SERVING = Serving(prefill=1000, step=0.1, capacity=2000)
URL = "http://replica/v1/chat/completions"
BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "word " * 100}],
    "max_tokens": 20,
}
STREAM: dict[str, Any] = {**BODY, "stream": True}

pytestmark = pytest.mark.virtual


@pytest.fixture
def replica() -> ModelledReplica:
    return ModelledReplica(SERVING, server="vllm")


@pytest.fixture
async def client(replica: ModelledReplica) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=replica.transport(), timeout=None) as client:
        yield client


async def cached(client: httpx.AsyncClient, url: str = URL) -> Any:
    details = (await client.post(url, json=BODY)).json()["usage"].get("prompt_tokens_details")
    return details and details["cached_tokens"]


async def read(client: httpx.AsyncClient, heard: list[float], url: str = URL) -> None:
    """Stream an answer, noting when something came."""
    async with client.stream("POST", url, json=STREAM) as response:
        async for line in response.aiter_lines():
            if "content" in line:
                heard.append(now())


async def test_a_killed_replica_breaks_its_streams_and_refuses_what_comes(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    heard: list[float] = []
    asyncio.get_running_loop().call_later(1.0, replica.kill)
    with pytest.raises(httpx.ReadError):
        await read(client, heard)
    assert now() == 1.0
    assert 5 < len(heard) < 20
    with pytest.raises(httpx.ConnectError):
        await read(client, heard)
    with pytest.raises(httpx.ConnectError):
        await client.get("http://replica/health")
    assert not replica.requests[0].disconnected
    assert replica.engine.running == 0


async def test_a_replica_that_restarts_has_forgotten_everything(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    assert [await cached(client), await cached(client)] == [0, 96]
    await replica.restart()
    assert replica.engine.queries == 0
    assert [await cached(client), await cached(client)] == [0, 96]


async def test_a_restart_breaks_what_is_being_answered(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    heard: list[float] = []
    reading = asyncio.create_task(read(client, heard))
    await asyncio.sleep(1.0)
    await replica.restart()
    with pytest.raises(httpx.ReadError):
        await reading
    with pytest.raises(httpx.ReadTimeout):
        await client.post(URL, json=BODY, timeout=1)
    assert [exchange.disconnected for exchange in replica.requests] == [False, True]


async def test_a_replica_that_hangs_takes_requests_and_says_nothing(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    replica.hang()
    with pytest.raises(httpx.ReadTimeout):
        await client.get("http://replica/health", timeout=5)
    with pytest.raises(httpx.ReadTimeout):
        await client.post(URL, json=STREAM, timeout=5)
    assert replica.requests[0].disconnected
    replica.recover()
    assert (await client.get("http://replica/health")).status_code == 200


async def test_a_replica_that_hangs_goes_silent_in_the_middle_of_a_stream(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    heard: list[float] = []
    loop = asyncio.get_running_loop()
    loop.call_later(1.05, replica.hang)
    loop.call_later(10.0, replica.recover)
    await read(client, heard)
    assert max(time for time in heard if time < 10) < 1.05
    assert len(heard) == 21
    assert now() == 10.0  # by then all of it was made


@pytest.mark.parametrize(
    ("fault", "status"), [(Fault.status(429, retry_after=2), 429), (Fault.html(502), 502)]
)
async def test_a_replica_fails_as_often_as_it_is_told(
    replica: ModelledReplica, client: httpx.AsyncClient, fault: Any, status: int
) -> None:
    replica.fail(fault, times=2)
    statuses = [(await client.post(URL, json=BODY)).status_code for _ in range(3)]
    assert statuses == [status, status, 200]
    assert replica.engine.queries == 104  # what failed never reached the engine


async def test_a_replica_fails_until_it_recovers(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    replica.fail(Fault.status(500))
    assert [(await client.post(URL, json=BODY)).status_code for _ in range(3)] == [500] * 3
    replica.recover()
    assert (await client.post(URL, json=BODY)).status_code == 200


async def test_a_fault_in_mid_stream_strikes_the_answer_that_would_have_been_given(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    heard: list[float] = []
    replica.fail(Fault.cut(after=7), times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await read(client, heard)
    assert len(heard) == 1 + 7
    assert now() == pytest.approx(heard[1] + 7 * 0.1)
    assert replica.engine.running == 0
    await read(client, heard)
    assert len(heard) == 8 + 21


async def test_a_fault_leaves_the_words_of_an_answer_as_they_are() -> None:
    replica = ModelledReplica(SERVING, ["the answer"])
    replica.fail(Fault.unfinished(after=2))
    async with httpx.AsyncClient(transport=replica.transport()) as client:
        message = (await client.post(URL, json=BODY)).json()["choices"][0]["message"]
    assert message["content"] == "the answer"


async def test_a_stalled_answer_keeps_its_room_only_while_somebody_waits(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    replica.fail(Fault.stall(after=3))
    with pytest.raises(httpx.ReadTimeout):
        await client.post(URL, json=STREAM, timeout=30)
    assert replica.engine.used == 0


async def test_a_script_is_not_used_up_by_requests_that_fail() -> None:
    replica = ModelledReplica(SERVING, ["the only answer"])
    replica.fail(Fault.status(500), times=1)
    async with httpx.AsyncClient(transport=replica.transport()) as client:
        assert (await client.post(URL, json=BODY)).status_code == 500
        assert "the only answer" in (await client.post(URL, json=BODY)).text


async def test_a_replica_tells_of_its_cache_what_it_is_told_to(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    await cached(client)
    replica.report(lambda tokens: 10 * tokens + 1)
    assert await cached(client) == 961
    replica.report(lambda tokens: None)
    assert await cached(client) is None
    assert replica.engine.hits == 2 * 96


async def test_over_http_a_killed_replica_breaks_and_refuses_and_comes_up_where_it_was() -> None:
    async with (
        ModelledReplica(SERVING, server="vllm") as replica,
        httpx.AsyncClient(timeout=None) as client,
    ):
        base = replica.base_url
        url = f"{base}/chat/completions"
        assert [await cached(client, url), await cached(client, url)] == [0, 96]
        asyncio.get_running_loop().call_later(1.0, replica.kill)
        heard: list[float] = []
        with pytest.raises(httpx.RemoteProtocolError):
            await read(client, heard, url)
        assert 0 < len(heard) < 21
        with pytest.raises(httpx.ConnectError):
            await cached(client, url)
        await replica.restart()
        assert replica.base_url == base
        assert [await cached(client, url), await cached(client, url)] == [0, 96]


async def test_over_http_a_client_that_leaves_frees_its_room() -> None:
    async with ModelledReplica(SERVING) as replica, httpx.AsyncClient(timeout=None) as client:
        reading = asyncio.create_task(read(client, [], f"{replica.base_url}/chat/completions"))
        await asyncio.sleep(1.0)
        assert replica.engine.running == 1
        reading.cancel()
        await asyncio.wait([reading])
        await asyncio.sleep(0.05)
        assert replica.engine.running == 0
        assert replica.requests[0].disconnected
