"""The thread of a store: in order, bounded, and never in the way of the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from agentflow.caches.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test-worker")
    yield made
    made.shutdown()


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Keeps a job waiting until it is set, at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def test_jobs_run_one_after_another_in_one_daemon_thread(worker: Worker) -> None:
    order: list[int] = []
    futures = [worker.submit(order.append, n) for n in range(100)]
    thread = worker.submit(threading.current_thread).result()

    assert [future.result() for future in futures] == [None] * 100
    assert order == list(range(100))
    assert (thread.name, thread.daemon) == ("test-worker", True)


def test_a_job_that_raises_gives_its_error_to_the_waiter_only(worker: Worker) -> None:
    failed = worker.submit(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        failed.result()
    assert worker.submit(int, "7").result() == 7


def test_a_later_job_runs_when_it_is_due_once(worker: Worker) -> None:
    ran = threading.Event()
    times: list[str] = []

    def note() -> None:
        times.append("ran")
        ran.set()

    worker.later(0.005, note)
    worker.later(0.005, note)  # one is waiting already

    assert ran.wait(10)
    assert worker.submit(len, times).result() == 1


def test_the_thread_outlives_a_later_job_that_raises(worker: Worker) -> None:
    def fail() -> None:
        raise ValueError("odd")

    with capture_logs() as logged:
        worker.later(0, fail)
        assert worker.submit(int, "7").result() == 7

    assert [event["log_level"] for event in logged] == ["error"]


def test_jobs_need_not_wait_for_a_later_one(worker: Worker) -> None:
    times: list[str] = []
    worker.later(3600, lambda: times.append("late"))

    assert worker.submit(len, times).result() == 0


async def test_an_answer_that_takes_too_long_is_none(worker: Worker, stop: threading.Event) -> None:
    ran = threading.Event()
    stuck = asyncio.ensure_future(worker.ask(0.01, stop.wait))
    behind = asyncio.ensure_future(worker.ask(0.01, ran.set))

    await asyncio.wait({stuck, behind})
    assert stuck.result() is None

    at_once = await worker.ask(3600, int)
    assert at_once is None  # the thread is known to be stuck

    stop.set()
    worker.submit(int).result()
    assert await worker.ask(10, int, "7") == 7
    assert not ran.is_set()  # it was given up before it began


async def test_a_closed_thread_answers_none_and_ends(worker: Worker) -> None:
    thread = await worker.ask(10, threading.current_thread)
    assert thread is not None
    worker.shutdown()

    assert await worker.ask(10, int) is None
    worker.later(0, int)
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        worker.submit(int)


async def test_an_answer_that_is_waited_for_while_it_closes_is_none_too(
    worker: Worker, stop: threading.Event
) -> None:
    asked = asyncio.ensure_future(worker.ask(0.01, stop.wait))
    await asyncio.sleep(0)
    worker.shutdown()

    assert await asked is None


async def test_the_last_job_is_run_even_when_nobody_waits_for_it(
    worker: Worker, stop: threading.Event
) -> None:
    ran = threading.Event()
    worker.submit(stop.wait)

    await worker.aclose(0.01, ran.set)
    await worker.aclose(3600, stop.set)  # closed already
    assert not ran.is_set()

    stop.set()
    assert ran.wait(10)


def test_jobs_submitted_before_the_end_are_done(worker: Worker, stop: threading.Event) -> None:
    worker.submit(stop.wait)
    last = worker.submit(int, "7")
    worker.shutdown()
    stop.set()

    assert last.result() == 7
