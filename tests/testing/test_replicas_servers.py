"""What each make of server accepts in a request and tells about itself."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from agentflow.testing import ModelledReplica, Serving
from agentflow.testing.replicas import Make

SERVING = Serving(prefill=1000, step=0.1, capacity=2000, block=16, slots=1)
BASE = "http://replica"

pytestmark = pytest.mark.virtual


def connect(replica: ModelledReplica) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=replica.transport(), base_url=BASE, timeout=None)


async def ask(replica: ModelledReplica, **fields: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "word " * 100}]
    body = {"model": "m", "messages": messages, "max_tokens": 2, **fields}
    async with connect(replica) as client:
        return await client.post("/v1/chat/completions", json=body)


async def cached(replica: ModelledReplica, **fields: Any) -> int:
    usage = (await ask(replica, **fields)).json()["usage"]
    count: int = usage["prompt_tokens_details"]["cached_tokens"]
    return count


KNOWN: dict[Make, dict[str, Any]] = {
    "vllm": {"cache_salt": "tenant", "session_id": "s", "request_id": "r"},
    "sglang": {
        "rid": "s_t1",
        "session_id": "s",
        "session_params": {"id": "s"},
        "cache_salt": "tenant",
    },
    "llama.cpp": {"id_slot": 0, "cache_prompt": True},
    "openai": {"prompt_cache_key": "s"},
}


@pytest.mark.parametrize("server", KNOWN)
async def test_a_strict_server_takes_its_own_fields(server: Make) -> None:
    replica = ModelledReplica(SERVING, server=server, strict=True)
    assert (await ask(replica, **KNOWN[server])).status_code == 200


@pytest.mark.parametrize("server", [None, *KNOWN])
async def test_a_strict_server_takes_the_fields_of_the_api_and_no_others(
    server: Make | None,
) -> None:
    replica = ModelledReplica(SERVING, server=server, strict=True)
    common = {"stream": False, "temperature": 0, "seed": 1, "tools": [], "tool_choice": "auto"}
    assert (await ask(replica, **common)).status_code == 200
    theirs = KNOWN.get(server, {}) if server else {}
    for fields in KNOWN.values():
        unknown = fields.keys() - theirs.keys()
        if unknown:
            refusal = await ask(replica, **fields)
            assert refusal.status_code == 400
            assert ", ".join(sorted(unknown)) in refusal.json()["error"]["message"]


async def test_other_servers_ignore_what_they_do_not_know() -> None:
    replica = ModelledReplica(SERVING)
    assert await cached(replica, cache_salt="a", priority=5, id_slot=3) == 0
    assert await cached(replica, cache_salt="b", priority=9, id_slot=9) == 96


@pytest.mark.parametrize(
    ("server", "field"),
    [("vllm", "cache_salt"), ("sglang", "cache_salt"), ("sglang", "extra_key")],
)
async def test_salts_share_nothing(server: Make, field: str) -> None:
    replica = ModelledReplica(SERVING, server=server)
    found = [await cached(replica, **{field: salt}) for salt in ("a", "b", "a", "b")]
    assert found == [0, 0, 96, 96]


@pytest.mark.parametrize(
    ("server", "fields", "complaint"),
    [
        ("vllm", {"priority": 1}, "priority scheduling is not enabled"),
        ("vllm", {"priority": -1}, "priority scheduling is not enabled"),
        ("vllm", {"cache_salt": ""}, "must be a non-empty string"),
        ("sglang", {"priority": 1}, "Using priority is disabled"),
    ],
)
async def test_fields_that_a_server_does_not_allow_are_refused(
    server: Make, fields: dict[str, Any], complaint: str
) -> None:
    refusal = await ask(ModelledReplica(SERVING, server=server), **fields)
    assert refusal.status_code == 400
    assert complaint in refusal.json()["error"]["message"]


async def test_a_priority_of_zero_is_none_for_vllm() -> None:
    replica = ModelledReplica(SERVING, server="vllm")
    assert (await ask(replica, priority=0)).status_code == 200


@pytest.mark.parametrize(("server", "order"), [("vllm", [0, 2, 1]), ("sglang", [0, 1, 2])])
async def test_priorities_order_who_waits(server: Make, order: list[int]) -> None:
    replica = ModelledReplica(SERVING, server=server, priorities=True)
    done: list[int] = []

    async def one(number: int, priority: int) -> None:
        await ask(replica, priority=priority)
        done.append(number)

    async with asyncio.TaskGroup() as group:
        for number, priority in enumerate([0, 5, -5]):
            group.create_task(one(number, priority))
            await asyncio.sleep(0.001)
    assert done == order


async def test_vllm_tells_its_counters_and_its_size() -> None:
    replica = ModelledReplica(SERVING, server="vllm", name="tiny")
    await ask(replica)
    await ask(replica)
    busy = [asyncio.create_task(ask(replica, max_tokens=50)) for _ in range(3)]
    await asyncio.sleep(1.0)
    async with connect(replica) as client:
        page = (await client.get("/metrics")).text
        assert (await client.get("/version")).json()["version"]
    labels = 'engine="0",model_name="tiny"'
    lines = page.splitlines()
    assert f"vllm:num_requests_running{{{labels}}} 1" in lines
    assert f"vllm:num_requests_waiting{{{labels}}} 2" in lines
    assert f"vllm:kv_cache_usage_perc{{{labels}}} {8 * 16 / 2000}" in lines
    assert f"vllm:prefix_cache_queries_total{{{labels}}} {3 * 104}" in lines
    assert f"vllm:prefix_cache_hits_total{{{labels}}} {2 * 96}" in lines
    assert f"vllm:generation_tokens_total{{{labels}}} 4" in lines
    assert "# TYPE vllm:prefix_cache_hits_total counter" in lines
    sizes = 'block_size="16",num_gpu_blocks="125"'
    assert f"vllm:cache_config_info{{{sizes},{labels}}} 1" in lines
    await asyncio.gather(*busy)


async def test_sglang_tells_its_size_and_its_load() -> None:
    replica = ModelledReplica(SERVING, server="sglang")
    await ask(replica)
    await ask(replica)
    async with connect(replica) as client:
        info = (await client.get("/get_server_info")).json()
        page = (await client.get("/metrics")).text
    assert info["max_total_num_tokens"] == 2000
    assert f'sglang:cache_hit_rate{{model_name="modelled"}} {96 / 208}' in page
    assert 'sglang:num_queue_reqs{model_name="modelled"} 0' in page


@pytest.mark.parametrize("server", [None, "openai"])
async def test_an_unknown_server_has_no_pages_of_its_own(server: Make | None) -> None:
    async with connect(ModelledReplica(SERVING, server=server)) as client:
        for page in ("/metrics", "/get_server_info", "/slots", "/props", "/version"):
            assert (await client.get(page)).status_code == 404
