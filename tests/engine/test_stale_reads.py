"""No read is served that a write has made stale, however the write ends and whenever it comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from agentflow import Engine, gather, tool, workflow
from agentflow.errors import RunError
from agentflow.testing import Gate, VirtualLoop
from agentflow.tools.tool import Tool


class Shop:
    """Orders, and tools that read and change them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.orders = {"1": "new", "2": "new"}
        self.reads = 0

        @tool(reads="orders/{number}", ttl="1h")
        async def look(number: str) -> str:
            self.reads += 1
            seen = self.orders[number]
            await asyncio.sleep(2)
            return seen

        @tool(reads="orders", ttl="1h")
        async def count(value: str) -> int:
            self.reads += 1
            seen = list(self.orders.values()).count(value)
            await asyncio.sleep(2)
            return seen

        @tool(writes="orders/{number}")
        async def put(number: str, value: str) -> None:
            await asyncio.sleep(2)
            self.orders[number] = value
            await asyncio.sleep(2)

        @tool(writes="orders")
        async def put_all(value: str) -> None:
            self.orders = dict.fromkeys(self.orders, value)

        self.look, self.count, self.put, self.put_all = look, count, put, put_all

    async def do(self, called: Tool[..., Any], *args: Any) -> Any:
        """Call a tool in a run of its own."""

        @workflow
        async def once() -> Any:
            return await called(*args)

        return await self.engine.run(once)

    def begin(self, called: Tool[..., Any], *args: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.do(called, *args))


@pytest.fixture
def shop(engine: Engine) -> Shop:
    return Shop(engine)


async def test_without_writes_a_read_is_made_once(shop: Shop) -> None:
    assert [await shop.do(shop.look, "1") for _ in range(3)] == ["new"] * 3
    assert shop.reads == 1


async def test_a_read_after_a_write_is_made_again(shop: Shop) -> None:
    assert await shop.do(shop.look, "1") == "new"
    await shop.do(shop.put, "1", "paid")
    assert [await shop.do(shop.look, "1") for _ in range(2)] == ["paid"] * 2
    assert shop.reads == 2


@pytest.mark.parametrize("delay", [0.001, 0.5, 1, 1.5, 1.999, 2, 2.001])
async def test_a_read_that_began_before_a_write_is_not_kept(shop: Shop, delay: float) -> None:
    @tool(writes="orders/{number}")
    async def quick(number: str, value: str) -> None:
        shop.orders[number] = value

    reading = shop.begin(shop.look, "1")
    await asyncio.sleep(delay)
    await shop.do(quick, "1", "paid")
    after = await shop.do(shop.look, "1")
    assert (await reading, after) == ("new", "paid")


@pytest.mark.parametrize("delay", [0, 0.5, 1, 1.5, 1.999, 2, 2.001, 3, 3.999, 4, 4.001])
async def test_a_read_that_began_during_a_write_is_not_used_after_it(
    shop: Shop, delay: float
) -> None:
    writing = shop.begin(shop.put, "1", "paid")
    await asyncio.sleep(delay)
    reading = shop.begin(shop.look, "1")
    await writing
    assert await shop.do(shop.look, "1") == "paid"
    await reading
    assert await shop.do(shop.look, "1") == "paid"


async def test_what_was_read_before_a_write_is_not_used_once_the_write_has_begun(
    shop: Shop,
) -> None:
    assert await shop.do(shop.look, "1") == "new"
    writing = shop.begin(shop.put, "1", "paid")
    await asyncio.sleep(3)
    assert await shop.do(shop.look, "1") == "paid"
    await writing


async def test_a_slow_read_of_before_a_write_does_not_take_the_place_of_one_after_it(
    shop: Shop,
) -> None:
    durations = [5, 1]

    @tool(reads="orders/{number}", ttl="1h")
    async def slow(number: str) -> str:
        seen = shop.orders[number]
        await asyncio.sleep(durations.pop(0))
        return seen

    reading = shop.begin(slow, "1")
    await asyncio.sleep(1)
    await shop.do(shop.put_all, "paid")
    assert await shop.do(slow, "1") == "paid"
    assert await reading == "new"
    assert await shop.do(slow, "1") == "paid"
    assert durations == []


async def test_the_first_read_of_all_may_begin_in_the_middle_of_a_write(shop: Shop) -> None:
    writing = shop.begin(shop.put, "1", "paid")
    await asyncio.sleep(1)
    cache = shop.engine.services.cache
    assert cache is not None
    assert not cache.listening, "nobody has read anything: writes need not be counted"
    short = shop.look.with_(ttl=60)
    assert await shop.do(short, "1") == "new"
    await writing
    assert await shop.do(short, "1") == "paid"


async def test_a_read_after_a_write_does_not_join_one_under_way_from_before(shop: Shop) -> None:
    first = shop.begin(shop.look, "1")
    await asyncio.sleep(1)
    joined = shop.begin(shop.look, "1")
    await asyncio.sleep(0.5)
    await shop.do(shop.put_all, "paid")
    assert await shop.do(shop.look, "1") == "paid"
    assert (await first, await joined, shop.reads) == ("new", "new", 2)


async def test_a_read_is_ordered_after_the_writes_before_it_in_its_run(shop: Shop) -> None:
    @workflow
    async def flow() -> list[Any]:
        before, pay = shop.look("1"), shop.put("1", "paid")
        after, send = shop.look("1"), shop.put("1", "sent")
        values = [await before, await after, await shop.look("1"), await shop.look("1")]
        await gather(pay, send)
        return values

    assert await shop.engine.run(flow) == ["new", "paid", "sent", "sent"]
    assert shop.reads == 3


async def test_elements_of_a_map_write(shop: Shop) -> None:
    @workflow
    async def flow() -> list[Any]:
        before = await shop.look.map(["1", "2"])
        await shop.put.map(["1", "2"], "paid")
        return [before, await shop.look.map(["1", "2"])]

    assert await shop.engine.run(flow) == [["new", "new"], ["paid", "paid"]]


# Writes that do not end well


class Refused(Exception):
    """Raised by writes."""


def half_done(shop: Shop, *, ends: bool = False, **options: Any) -> Tool[..., Any]:
    """A write that takes a second to write, and then fails or never ends."""

    @tool(name="half", writes="orders/{number}", **options)
    async def half(number: str, value: str) -> None:
        await asyncio.sleep(1)
        shop.orders[number] = value
        if ends:
            raise Refused
        await asyncio.sleep(1000)

    return half


async def check(shop: Shop, half: Tool[..., Any]) -> None:
    """Reads before, during and after a write that does not end well are as if there were no cache."""
    assert await shop.do(shop.look, "1") == "new"
    writing = shop.begin(half, "1", "paid")
    await asyncio.sleep(0.5)
    await shop.do(shop.look, "1")
    with suppress(RunError, asyncio.CancelledError):
        await writing
    assert await shop.do(shop.look, "1") == "paid"
    assert await shop.do(shop.look, "1") == "paid"


async def test_a_write_that_fails_counts(shop: Shop) -> None:
    await check(shop, half_done(shop, ends=True))


async def test_a_write_that_is_repeated_counts(shop: Shop) -> None:
    await check(shop, half_done(shop, ends=True, idempotent=True, retries=2))


async def test_a_write_that_takes_too_long_counts(shop: Shop) -> None:
    await check(shop, half_done(shop, timeout=3))


async def test_a_write_that_is_cancelled_counts(shop: Shop) -> None:
    half = half_done(shop)
    assert await shop.do(shop.look, "1") == "new"
    writing = shop.begin(half, "1", "paid")
    await asyncio.sleep(0.5)
    reading = shop.begin(shop.look, "1")
    await asyncio.sleep(1)
    writing.cancel()
    await asyncio.wait([writing])
    await reading
    assert await shop.do(shop.look, "1") == "paid"


async def test_a_write_that_will_not_be_cancelled_counts_when_it_ends_at_last(shop: Shop) -> None:
    gate = Gate()

    @tool(writes="orders/{number}", timeout=1)
    async def stubborn(number: str, value: str) -> None:
        while not gate.release.is_set():
            with suppress(asyncio.CancelledError):
                await gate.wait()
        shop.orders[number] = value

    with pytest.raises(RunError):
        await shop.do(stubborn, "1", "paid")
    assert await shop.do(shop.look, "1") == "new"
    assert await shop.do(shop.look, "1") == "new"
    gate.release.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert await shop.do(shop.look, "1") == "paid"
    shop.engine.services.abandoned.clear()


@pytest.fixture
def late(anyio_backend: object) -> Iterator[threading.Event]:
    """Threads that wait for it are stuck until it is set."""
    patience, VirtualLoop.patience = VirtualLoop.patience, 0.01
    event = threading.Event()
    yield event
    event.set()
    VirtualLoop.patience = patience


@pytest.mark.parametrize("effect", [{"writes": "orders/{number}"}, {}])
async def test_a_thread_that_writes_after_it_was_given_up_on_counts(
    shop: Shop, late: threading.Event, effect: dict[str, Any]
) -> None:
    written = threading.Event()

    @tool(**effect, timeout=1)
    def slow(number: str, value: str) -> None:
        late.wait()
        shop.orders[number] = value
        written.set()

    with pytest.raises(RunError):
        await shop.do(slow, "1", "paid")
    assert await shop.do(shop.look, "1") == "new"
    late.set()
    with asyncio.get_running_loop().hold():  # type: ignore[attr-defined]  # a VirtualLoop
        while shop.engine.services.threads.abandoned:
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert written.is_set()
    assert await shop.do(shop.look, "1") == "paid"


async def test_a_read_during_a_write_that_was_given_up_on_is_not_kept(shop: Shop) -> None:
    writes, ends = Gate(), Gate()

    @tool(writes="orders/{number}", timeout=1)
    async def stubborn(number: str, value: str) -> None:
        for gate in (writes, ends):
            while not gate.release.is_set():
                with suppress(asyncio.CancelledError):
                    await gate.wait()
            shop.orders[number] = value

    with pytest.raises(RunError):
        await shop.do(stubborn, "1", "paid")
    assert await shop.do(shop.look, "1") == "new"
    writes.release.set()
    await asyncio.sleep(0.01)
    assert await shop.do(shop.look, "1") == "paid"
    ends.release.set()
    await asyncio.sleep(0.01)
    shop.reads = 0
    assert [await shop.do(shop.look, "1") for _ in range(2)] == ["paid"] * 2
    assert shop.reads == 1
    shop.engine.services.abandoned.clear()


@pytest.mark.parametrize("effect", [{"writes": "orders/{number}"}, {}])
async def test_a_read_during_a_write_of_a_thread_that_was_given_up_on_is_not_kept(
    shop: Shop, late: threading.Event, effect: dict[str, Any]
) -> None:
    writes, written = threading.Event(), threading.Event()

    @tool(**effect, timeout=1)
    def slow(number: str, value: str) -> None:
        writes.wait()
        shop.orders[number] = value
        written.set()
        late.wait()

    with pytest.raises(RunError):
        await shop.do(slow, "1", "paid")
    assert await shop.do(shop.look, "1") == "new"
    writes.set()
    assert written.wait(10)
    assert await shop.do(shop.look, "1") == "paid"
    late.set()
    with asyncio.get_running_loop().hold():  # type: ignore[attr-defined]  # a VirtualLoop
        while shop.engine.services.threads.abandoned:
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    shop.reads = 0
    assert [await shop.do(shop.look, "1") for _ in range(2)] == ["paid"] * 2
    assert shop.reads == 1


async def test_a_fallback_that_writes_counts(shop: Shop) -> None:
    @tool(writes="orders/{number}")
    async def reset(number: str) -> str:
        shop.orders[number] = "reset"
        return "was reset"

    @tool(reads="orders/{number}", fallback=reset)
    async def broken(number: str) -> str:
        raise Refused

    assert await shop.do(shop.look, "1") == "new"
    assert await shop.do(broken, "1") == "was reset"
    assert await shop.do(shop.look, "1") == "reset"


async def test_a_write_with_wrong_arguments_is_none(shop: Shop) -> None:
    @workflow
    async def flow() -> Any:
        return await shop.put(await shop.count("new"), 7)  # type: ignore[arg-type]  # that is the test

    assert await shop.do(shop.look, "1") == "new"
    with pytest.raises(RunError):
        await shop.engine.run(flow)
    assert await shop.do(shop.look, "1") == "new"
    assert shop.reads == 2


# Which resources a write touches


async def reads_after(shop: Shop, *write: Any) -> int:
    """How many of three reads are made again after a write."""

    async def look() -> None:
        await shop.do(shop.look, "1")
        await shop.do(shop.look, "2")
        await shop.do(shop.count, "new")

    await look()
    await shop.do(*write)
    shop.reads = 0
    await look()
    return shop.reads


async def test_a_write_touches_what_is_above_it_and_not_what_is_beside_it(shop: Shop) -> None:
    assert await reads_after(shop, shop.put, "1", "paid") == 2


async def test_a_write_touches_all_that_is_below_it(shop: Shop) -> None:
    assert await reads_after(shop, shop.put_all, "paid") == 3


async def test_a_write_of_something_else_touches_nothing(shop: Shop) -> None:
    @tool(writes=["customers", "order", "orders2/1"])
    async def other() -> None: ...

    assert await reads_after(shop, other) == 0


async def test_a_resource_that_is_not_known_could_be_any(shop: Shop) -> None:
    @tool(writes="orders/{where}")
    async def somewhere(where: list[str]) -> None: ...

    assert await reads_after(shop, somewhere, ["1"]) == 3


async def test_an_undeclared_call_could_write_anything(shop: Shop) -> None:
    @tool
    async def anything() -> None: ...

    assert await reads_after(shop, anything) == 3


async def test_a_workflow_writes_only_what_its_calls_write(shop: Shop) -> None:
    @workflow
    async def child() -> None:
        await shop.put("1", "paid")

    assert await reads_after(shop, child) == 2


async def test_a_pure_tool_does_not_care(shop: Shop) -> None:
    calls = 0

    @tool(pure=True)
    async def pure() -> int:
        nonlocal calls
        calls += 1
        return calls

    @tool
    async def anything() -> None: ...

    assert await shop.do(pure) == 1
    await shop.do(anything)
    assert await shop.do(pure) == 1


async def test_polling_beside_a_call_that_declares_nothing_sees_what_it_does(
    engine: Engine,
) -> None:
    up: list[bool] = []

    @tool(timeout=None)
    async def deploy() -> None:
        await asyncio.sleep(10)
        up.append(True)
        await asyncio.sleep(1000)

    @tool(reads="service")
    async def health() -> bool:
        await asyncio.sleep(0.5)
        return bool(up)

    @workflow
    async def flow() -> float:
        began = asyncio.get_running_loop().time()
        deploying = deploy()
        await asyncio.sleep(1)
        while not await health():
            await asyncio.sleep(0.5)
        seen = asyncio.get_running_loop().time() - began
        await deploying
        return seen

    assert await engine.run(flow) < 12  # also when health is the first thing ever read
    assert await engine.run(flow) < 3
