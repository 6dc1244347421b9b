"""llama.cpp's slots: who gets which, what stays in one, saving and restoring it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agentflow.clock import now
from agentflow.testing import ModelledReplica, Serving
from agentflow.testing.replicas_slots import SWAP, Slot, Slots

SERVING = Serving(prefill=1000, step=0.1, capacity=2000, block=10, slots=2)

pytestmark = pytest.mark.virtual


@pytest.fixture
def replica() -> ModelledReplica:
    return ModelledReplica(SERVING, server="llama.cpp")


@pytest.fixture
async def client(replica: ModelledReplica) -> AsyncIterator[httpx.AsyncClient]:
    transport = replica.transport()
    async with httpx.AsyncClient(transport=transport, base_url="http://r", timeout=None) as client:
        yield client


async def ask(client: httpx.AsyncClient, words: str, **fields: Any) -> int:
    """The tokens of the prompt that were cached."""
    messages = [{"role": "user", "content": words}]
    body = {"messages": messages, "max_tokens": 1, **fields}
    response = await client.post("/v1/chat/completions", json=body)
    count: int = response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return count


ONE, TWO, THREE = ("one " * 100, "two " * 100, "six " * 100)


async def test_a_prompt_goes_to_the_slot_that_holds_most_of_it(client: httpx.AsyncClient) -> None:
    assert [await ask(client, words) for words in (ONE, TWO, ONE, TWO)] == [0, 0, 100, 100]
    slots = (await client.get("/slots")).json()
    assert [slot["n_prompt_tokens"] for slot in slots] == [100, 100]


async def test_a_new_prompt_takes_the_slot_unused_longest_and_what_was_there_is_gone(
    client: httpx.AsyncClient,
) -> None:
    for words in (ONE, TWO, ONE, THREE):
        await ask(client, words)
    assert await ask(client, ONE) == 100
    assert await ask(client, TWO) == 0


async def test_a_slot_is_cut_back_to_what_the_next_prompt_shares_with_it(
    client: httpx.AsyncClient,
) -> None:
    long, short = "one " * 100, "one " * 50 + "two " * 50
    await ask(client, long, id_slot=0)
    assert await ask(client, short, id_slot=0) == 50
    assert await ask(client, long, id_slot=0) == 50


async def test_slots_share_nothing(client: httpx.AsyncClient) -> None:
    assert await ask(client, ONE, id_slot=0) == 0
    assert await ask(client, ONE, id_slot=1) == 0
    assert await ask(client, ONE, id_slot=0) == 100


async def test_cache_prompt_false_computes_all_of_it(client: httpx.AsyncClient) -> None:
    await ask(client, ONE)
    assert await ask(client, ONE, cache_prompt=False) == 0


async def test_who_finds_no_slot_free_waits_in_order(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    tasks = []
    for words in (ONE, TWO, THREE, ONE):
        tasks.append(asyncio.create_task(ask(client, words, max_tokens=20)))
        await asyncio.sleep(0.001)
    page = (await client.get("/metrics")).text
    assert "llamacpp:requests_processing 2\n" in page
    assert "llamacpp:requests_deferred 2\n" in page
    assert await asyncio.gather(*tasks) == [0, 0, 0, 0]
    ended = [exchange.ended or 0.0 for exchange in replica.requests]
    assert ended == sorted(ended)
    assert replica.engine.running == 0


async def test_who_wants_a_slot_waits_for_that_one(client: httpx.AsyncClient) -> None:
    first = asyncio.create_task(ask(client, ONE, id_slot=0, max_tokens=50))
    await asyncio.sleep(0.01)
    assert await ask(client, ONE + TWO, id_slot=0) == 100
    assert first.done()
    assert now() > 5


async def test_a_slot_given_to_a_client_that_left_is_given_on() -> None:
    slots = Slots(1)
    slot = await slots.take([])
    first, second = (asyncio.create_task(slots.take([])) for _ in range(2))
    await asyncio.sleep(0)
    slots.release(slot)
    first.cancel()  # in the moment it was given the slot
    assert await second is slot
    assert slots.deferred == 0


async def test_a_client_that_leaves_while_it_waits_gives_up_its_place() -> None:
    slots = Slots(1)
    slot = await slots.take([])
    waiting = asyncio.create_task(slots.take([]))
    await asyncio.sleep(0)
    assert slots.deferred == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert slots.deferred == 0
    slots.release(slot)
    assert slots.busy == 0


async def test_a_saved_slot_is_found_again_in_any_slot(client: httpx.AsyncClient) -> None:
    await ask(client, ONE, id_slot=0)
    saved = (await client.post("/slots/0?action=save", json={"filename": "one"})).json()
    assert (saved["id_slot"], saved["filename"], saved["n_saved"]) == (0, "one", 100)
    assert saved["timings"]["save_ms"] == pytest.approx(1000 * 100 / SWAP)
    for slot in (0, 1):
        await ask(client, TWO, id_slot=slot)
    restored = (await client.post("/slots/1?action=restore", json={"filename": "one"})).json()
    assert restored["n_restored"] == 100
    assert await ask(client, ONE) == 100
    assert await ask(client, TWO) == 100


async def test_saving_and_restoring_take_their_time(client: httpx.AsyncClient) -> None:
    await ask(client, ONE, id_slot=0)
    began = now()
    await client.post("/slots/0?action=save", json={"filename": "one"})
    await client.post("/slots/1?action=restore", json={"filename": "one"})
    assert now() - began == pytest.approx(2 * 100 / SWAP)


async def test_an_erased_slot_is_empty(client: httpx.AsyncClient) -> None:
    await ask(client, ONE, id_slot=1)
    assert (await client.post("/slots/1?action=erase")).json() == {"id_slot": 1, "n_erased": 100}
    assert await ask(client, ONE) == 0


async def test_a_busy_slot_is_saved_when_it_is_free(client: httpx.AsyncClient) -> None:
    busy = asyncio.create_task(ask(client, ONE, id_slot=0, max_tokens=20))
    await asyncio.sleep(0.01)
    saved = (await client.post("/slots/0?action=save", json={"filename": "one"})).json()
    assert busy.done()
    assert saved["n_saved"] == 120


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("/slots/0?action=restore", "invalid slot save file"), ("/slots/7?action=erase", "Invalid")],
)
async def test_what_cannot_be_done_to_a_slot_is_refused(
    client: httpx.AsyncClient, path: str, complaint: str
) -> None:
    refusal = await client.post(path, json={"filename": "missing"})
    assert refusal.status_code == 400
    assert complaint in refusal.json()["error"]["message"]
    assert (await client.get("/slots")).json()[0]["is_processing"] is False


async def test_what_was_saved_outlives_a_restart(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    await ask(client, ONE, id_slot=0)
    await client.post("/slots/0?action=save", json={"filename": "one"})
    await replica.restart()
    await client.post("/slots/0?action=restore", json={"filename": "one"})
    assert await ask(client, ONE) == 100


async def test_props_tell_how_many_slots_there_are_and_how_long(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    props = (await client.get("/props")).json()
    assert props["total_slots"] == 2
    assert props["default_generation_settings"]["n_ctx"] == 1000
    messages = [{"role": "user", "content": "word " * 1000}]
    refusal = await client.post("/v1/chat/completions", json={"messages": messages})
    assert refusal.status_code == 400


async def test_a_client_that_leaves_frees_its_slot(
    replica: ModelledReplica, client: httpx.AsyncClient
) -> None:
    tasks = [asyncio.create_task(ask(client, ONE, max_tokens=90)) for _ in range(3)]
    await asyncio.sleep(1.0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not any(slot["is_processing"] for slot in (await client.get("/slots")).json())
    assert "llamacpp:requests_deferred 0\n" in (await client.get("/metrics")).text
    assert replica.engine.running == 0


def test_a_slot_shares_what_comes_before_the_first_difference() -> None:
    slot = Slot(0, keys=[b"a", b"ab", b"abc"])
    assert slot.shared([b"a", b"ab", b"abd", b"abde"]) == 2
    assert slot.shared([]) == 0
