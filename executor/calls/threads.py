"""Threads for plain functions: daemons, so that one that never ends stops nobody.

`concurrent.futures.ThreadPoolExecutor` joins its threads when the interpreter exits; a tool
that hangs would then hang the program.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any

Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def from_anywhere(
    loop: asyncio.AbstractEventLoop, do: Callable[..., object], *args: object
) -> None:
    """Have something done in a loop: at once where that runs, else as soon as it gets to it."""
    if asyncio._get_running_loop() is loop:
        do(*args)
    else:
        loop.call_soon_threadsafe(do, *args)


class DaemonThreads(Executor):
    """An executor of daemon threads that grows on demand and never joins them.

    Args:
        limit: How many threads may exist, abandoned ones not counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._made = 0
        self._idle = 0
        self._closed = False
        self._running: dict[Future[Any], str] = {}
        self._abandoned: dict[Future[Any], bool] = {}  # whether another took its place
        self._done: set[Future[Any]] = set()  # whose waiters are being told

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._jobs.put((future, fn, args, kwargs))
            if self._idle > 0:
                self._idle -= 1
            else:
                self._grow()
        return future

    def _grow(self) -> None:
        """Start another thread, if one may."""
        if self._threads < self._limit:
            self._threads += 1
            self._made += 1
            name = f"agentflow-{self._made}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def abandon(self, future: Future[Any]) -> None:
        """Nobody waits for a job any more; if it runs, another thread takes its place.

        No more threads are replaced than may exist.
        """
        if future.cancel():
            return
        with self._lock:
            known = future in self._running and future not in self._done
            if not known or future in self._abandoned:
                return
            replaced = sum(self._abandoned.values()) < self._limit
            self._abandoned[future] = replaced
            if replaced:
                self._threads -= 1
                if not self._jobs.empty():
                    self._grow()

    @property
    def spare(self) -> bool:
        """Whether fewer than half of the threads have work."""
        return len(self._running) < self._limit // 2 and self._jobs.empty()

    @property
    def abandoned(self) -> list[str]:
        """Names of the threads whose jobs nobody waits for any more."""
        with self._lock:
            return [self._running[future] for future in self._abandoned]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let idle threads end; running ones are left to themselves."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, fn, args, kwargs = job
            tell: Callable[[], None] | None = None
            if future.set_running_or_notify_cancel():
                with self._lock:
                    self._running[future] = threading.current_thread().name
                tell = _done(future, partial(fn, *args, **kwargs))
            del job, fn, args, kwargs
            with self._lock:
                self._done.add(future)  # from now on no other takes the place of this thread
                replaced = self._abandoned.get(future, False)
                if not replaced and self._jobs.empty():
                    self._idle += 1
            if tell is not None:
                tell()  # whoever hears of it may count on this thread
            with self._lock:
                self._done.discard(future)
                self._running.pop(future, None)
                self._abandoned.pop(future, None)
            del future, tell
            if replaced:
                return


def _done(future: Future[Any], work: Callable[[], Any]) -> Callable[[], None]:
    """Do a job; gives what tells whoever waits for it what came of it."""
    try:
        return partial(future.set_result, work())
    except StopIteration as error:  # no asyncio future takes one
        refused = RuntimeError("function raised StopIteration")
        refused.__cause__ = error
        return partial(future.set_exception, refused)
    except BaseException as error:  # noqa: BLE001  # the waiter gets it
        return partial(future.set_exception, error)
