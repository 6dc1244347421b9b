"""An event loop on virtual time: when nothing can happen now, its clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_Events = list[tuple[selectors.SelectorKey, int]]


class VirtualDeadlock(RuntimeError):
    """Nothing can ever happen again on a virtual loop: no timer, no I/O, no thread in flight."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose `time()` jumps to the next timer when nothing is ready.

    Sockets and threads are real. Time does not move while work given to `run_in_executor` or
    `asyncio.to_thread` is in flight, nor inside `hold()`. Use it as a loop factory::

        asyncio.Runner(loop_factory=VirtualLoop)
        anyio_backend = ("asyncio", {"loop_factory": VirtualLoop})

    Args:
        start: What the clock shows at first, in seconds.

    Attributes:
        patience: Real seconds to wait for a thread in flight; then time moves on without it, so
            that a tool stuck in a thread meets its timeout.
        stall: Real seconds without timer and thread after which `VirtualDeadlock` is raised.
        grace: Real seconds given to open sockets before each jump.
    """

    patience = 5.0
    stall = 1.0
    grace = 0.001
    _scheduled: list[asyncio.TimerHandle]  # asyncio's own heap of timers

    def __init__(self, start: float = 0.0) -> None:
        self._now = float(start)
        self._held = 0
        self._patient = True
        super().__init__(_JumpingSelector(self))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep time from jumping, for work that a thread of your own reports back."""
        self._take()
        try:
            yield
        finally:
            self._held -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run `func` in a thread; time stands still until its future is done."""
        future = super().run_in_executor(executor, func, *args)
        self._take()
        future.add_done_callback(self._give)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the default executor's threads, without the time limit a real loop sets."""
        with self.hold():
            await super().shutdown_default_executor()

    def _take(self) -> None:
        self._held += 1
        self._patient = True

    def _give(self, _future: asyncio.Future[Any]) -> None:
        self._held -= 1

    def _real_wait(self, has_sockets: bool) -> float | None:
        """Real seconds to wait for I/O before time may jump; None waits without end."""
        if not self._scheduled:
            return None if self._held else self.stall
        if self._held and self._patient:
            return self.patience
        return self.grace if has_sockets else 0.0

    def _jump(self) -> None:
        """Nothing came in real time: go to the next timer."""
        if not self._scheduled:
            raise VirtualDeadlock(self._story())
        if self._held:
            self._patient = False  # do not wait for the same stuck thread at every timer
        self._now = max(self._now, self._scheduled[0].when())

    def _story(self) -> str:
        waiting = "".join(f"\n  {_whereabouts(task)}" for task in asyncio.all_tasks(self))
        return (
            f"at virtual time {self._now:g} every task waits for something that no timer, socket "
            f"or thread will bring:{waiting}"
        )


class _JumpingSelector(selectors.DefaultSelector):
    """Turns 'wait until the next timer' into 'let the clock jump there'."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> _Events:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        has_sockets = len(self.get_map()) > 1  # one is the loop's own wake-up pipe
        if wait := self._loop._real_wait(has_sockets):
            events = super().select(wait)
        elif wait is None:
            return super().select(None)
        if not events:
            self._loop._jump()
        return events


def run_virtual(main: Coroutine[Any, Any, T], *, start: float = 0.0) -> T:
    """Run `main` to its end on a fresh `VirtualLoop` and return its value."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start)) as runner:
        return runner.run(main)


def _whereabouts(task: asyncio.Task[Any]) -> str:
    """The task's name and the innermost line it waits at."""
    frames = task.get_stack()
    if not frames:
        return task.get_name()
    frame = frames[-1]
    return f"{task.get_name()} at {frame.f_code.co_filename}:{frame.f_lineno}"
