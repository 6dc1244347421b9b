"""Virtual time: exact, free of charge, and honest about threads, sockets and deadlocks."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import anyio
import pytest
import tenacity

from agentflow.testing import VirtualDeadlock, VirtualLoop, run_virtual

virtual = pytest.mark.virtual


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


@virtual
async def test_an_hour_of_sleep_is_free_and_exact() -> None:
    began = time.perf_counter()
    await asyncio.sleep(3600)
    assert loop().time() == 3600.0
    assert time.perf_counter() - began < 1


@virtual
async def test_timers_beyond_asyncios_longest_wait_are_met_exactly() -> None:
    await asyncio.sleep(30 * 86400)
    assert loop().time() == 30 * 86400.0


@virtual
async def test_timeouts_and_order_are_exact() -> None:
    log: list[tuple[float, int]] = []

    async def note(number: int, delay: float) -> None:
        await asyncio.sleep(delay)
        log.append((loop().time(), number))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(note(number, 3 * (5 - number)))
    assert log == [(3.0, 4), (6.0, 3), (9.0, 2)]
    assert loop().time() == 10.0


@virtual
async def test_anyio_deadlines_obey_it() -> None:
    with anyio.move_on_after(90) as scope:
        await anyio.sleep(1000)
    assert scope.cancelled_caught
    assert loop().time() == 90.0


@virtual
async def test_tenacity_waits_obey_it() -> None:
    attempts = 0
    async for attempt in tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_exponential(multiplier=10)
    ):
        with attempt:
            attempts += 1
            if attempts < 4:
                raise OSError
    assert loop().time() == 10 + 20 + 40


@virtual
async def test_time_stands_still_while_a_thread_works() -> None:
    ticker = asyncio.create_task(asyncio.sleep(100))
    let_go = threading.Event()
    threading.Timer(0.05, let_go.set).start()
    assert await asyncio.to_thread(let_go.wait, 5)
    assert loop().time() == 0.0
    await ticker
    assert loop().time() == 100.0


@virtual
async def test_a_stuck_thread_meets_its_timeout_and_is_waited_for_once() -> None:
    loop().patience = 0.05
    let_go = threading.Event()
    began = time.perf_counter()
    stuck = asyncio.ensure_future(asyncio.to_thread(let_go.wait))
    for _ in range(40):
        await asyncio.sleep(1)
    assert loop().time() == 40.0
    assert time.perf_counter() - began < 1
    let_go.set()
    assert await stuck


@virtual
async def test_hold_covers_threads_that_report_back_on_their_own() -> None:
    done = asyncio.Event()
    with loop().hold():
        threading.Timer(0.05, loop().call_soon_threadsafe, [done.set]).start()
        async with asyncio.timeout(10):
            await done.wait()
    assert loop().time() == 0.0


@virtual
async def test_sockets_are_real() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"pong")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, port)
        assert await reader.read() == b"pong"
        writer.close()
        await writer.wait_closed()


def test_a_deadlock_is_reported_with_who_waits_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VirtualLoop, "stall", 0.01)

    async def main() -> None:
        await asyncio.sleep(7)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(VirtualDeadlock, match=r"at virtual time 7 .*(\n.*)*test_clock\.py:\d+"):
        run_virtual(main())


def test_a_run_on_virtual_time_is_the_same_every_time() -> None:
    async def race() -> list[tuple[float, str]]:
        log: list[tuple[float, str]] = []

        async def worker(name: str, pause: float) -> None:
            for _ in range(20):
                await asyncio.sleep(pause)
                log.append((asyncio.get_running_loop().time(), name))

        await asyncio.gather(worker("a", 0.1), worker("b", 0.3), worker("c", 0.7))
        return log

    assert run_virtual(race()) == run_virtual(race())


def test_ten_thousand_sleeps_take_about_a_tenth_of_a_second() -> None:
    async def main() -> float:
        async def node() -> None:
            for _ in range(100):
                await asyncio.sleep(1.5)

        await asyncio.gather(*(node() for _ in range(100)))
        return asyncio.get_running_loop().time()

    began = time.perf_counter()
    assert run_virtual(main(), start=50.0) == 200.0
    assert time.perf_counter() - began < 3


def test_it_leaves_nothing_behind_when_a_thread_used_the_default_executor() -> None:
    async def main() -> Any:
        return await asyncio.to_thread(threading.get_ident)

    assert run_virtual(main()) != threading.get_ident()
