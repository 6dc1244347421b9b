"""The one thread that may wait for a database, so that the event loop never does."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from agentflow import clock

_log = structlog.get_logger("agentflow.caches")

T = TypeVar("T")

Job = Callable[[], None]


class Worker(Executor):
    """Runs jobs one after another in a daemon thread of its own, which starts with the first.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._late: Callable[[], object] | None = None
        self._due = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._stuck = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function after the ones submitted before it."""
        future: Future[Any] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001  # the waiter gets it
                    future.set_exception(error)

        with self._changed:
            if self._closed:
                raise RuntimeError("the store is closed")
            self._jobs.append(job)
            self._wake()
        return future

    def later(self, delay: float, fn: Callable[[], object]) -> None:
        """Run a function when `delay` seconds have passed, unless one is waiting already.

        It goes before jobs that were submitted.
        """
        if self._late is not None:  # without the lock: most calls end here
            return
        with self._changed:
            if self._late is None and not self._closed:
                self._late, self._due = fn, clock.monotonic() + delay
                self._wake()

    async def ask(self, patience: float, fn: Callable[..., T], *args: Any) -> T | None:
        """The result of a job; None if it takes longer than `patience` seconds.

        A job that has not begun by then is not run, and until the thread is free again every
        answer is None at once; so it is when the thread is closed.
        """
        if self._stuck or self._closed:
            return None
        try:
            async with asyncio.timeout(patience):
                return await asyncio.get_running_loop().run_in_executor(self, fn, *args)
        except TimeoutError:
            self._stuck = True
            with suppress(RuntimeError):  # closed meanwhile
                self.submit(self._free)
            return None

    async def aclose(self, patience: float, last: Callable[[], None]) -> None:
        """Run a last job, which must not raise, and wait for it up to `patience` seconds.

        The thread runs it even when that is not long enough. Closing twice is allowed.
        """
        if self._closed:
            return
        done = asyncio.get_running_loop().run_in_executor(self, last)
        self.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.shield(done)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the thread end when it has done the jobs submitted so far."""
        with self._changed:
            self._closed = True
            self._late = None
            self._changed.notify()

    def _wake(self) -> None:
        """Notify the thread, or start it; the lock is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        else:
            self._changed.notify()

    def _free(self) -> None:
        self._stuck = False

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001  # a thread that ends helps nobody
                _log.exception("the thread of a cache goes on after an error")
            del job  # so that nothing of it is kept while waiting

    def _next(self) -> Callable[[], object] | None:
        """Wait for the next job; None when there will be none."""
        with self._changed:
            while True:
                left = self._due - clock.monotonic() if self._late else None
                if self._late is not None and left is not None and left <= 0:
                    job, self._late = self._late, None
                    return job
                if self._jobs:
                    return self._jobs.popleft()
                if self._closed:
                    return None
                self._changed.wait(left)
