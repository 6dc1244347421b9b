"""One timer limits many waits, and is exact all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentflow.clock import now
from agentflow.executor.models.watch import Expired, Watch

pytestmark = pytest.mark.virtual


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    watch.stop()


async def test_a_wait_that_ends_in_time_gives_its_value(watch: Watch) -> None:
    assert await watch.wait(asyncio.sleep(5, "done"), until=10) == "done"


async def test_a_wait_ends_exactly_at_its_limit(watch: Watch) -> None:
    with pytest.raises(Expired):
        await watch.wait(asyncio.sleep(100), until=10)

    assert now() == 10


async def test_a_limit_that_moves_on_is_exact(watch: Watch) -> None:
    for _ in range(5):
        await watch.wait(asyncio.sleep(7), until=now() + 10)
    with pytest.raises(Expired):
        await watch.wait(asyncio.sleep(100), until=now() + 10)

    assert now() == 45


async def test_an_earlier_limit_than_the_last_is_exact(watch: Watch) -> None:
    await watch.wait(asyncio.sleep(1), until=100)
    with pytest.raises(Expired):
        await watch.wait(asyncio.sleep(100), until=5)

    assert now() == 5


async def test_time_between_two_waits_is_nobodys(watch: Watch) -> None:
    await watch.wait(asyncio.sleep(1), until=3)
    await asyncio.sleep(50)

    assert await watch.wait(asyncio.sleep(1, "done"), until=now() + 2) == "done"


async def test_no_limit_is_none(watch: Watch) -> None:
    await watch.wait(asyncio.sleep(1), until=3)

    assert await watch.wait(asyncio.sleep(10_000, "done"), until=None) == "done"


async def test_a_limit_that_has_passed_ends_the_wait_at_once(watch: Watch) -> None:
    await asyncio.sleep(10)
    with pytest.raises(Expired):
        await watch.wait(asyncio.sleep(100), until=5)

    assert now() == 10


async def test_a_cancellation_from_outside_stays_one(watch: Watch) -> None:
    task = asyncio.create_task(watch.wait(asyncio.sleep(100), until=50))
    await asyncio.sleep(1)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == 1


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_cancellation_that_meets_the_limit_is_not_lost(
    watch: Watch, cancelled_first: bool
) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(watch.wait(asyncio.sleep(100), until=10))
    if cancelled_first:
        loop.call_at(10, task.cancel)  # on the heap before the limit's own timer
        await asyncio.sleep(0)
    else:
        await asyncio.sleep(0)
        loop.call_at(10, task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_step_that_swallows_the_limit_leaves_no_cancellation_behind(watch: Watch) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return "finished anyway"
        return "never"

    assert await watch.wait(stubborn(), until=1) == "finished anyway"
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_timeout_of_the_step_itself_is_not_taken_for_ours(watch: Watch) -> None:
    async def times_out() -> None:
        raise TimeoutError("the step's own")

    with pytest.raises(TimeoutError, match="own"):
        await watch.wait(times_out(), until=10)


async def test_an_expired_task_can_go_on(watch: Watch) -> None:
    with pytest.raises(Expired):
        await watch.wait(asyncio.sleep(100), until=1)

    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    assert await watch.wait(asyncio.sleep(1, "done"), until=5) == "done"
