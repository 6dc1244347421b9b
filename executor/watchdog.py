"""Notices code that holds the event loop, and says whose it is while it still does.

While the loop is held nothing else goes on in it: no call, no time limit, no cancellation. So a
thread looks after it: as long as runs are under way it asks the loop for a sign of life, and
when none comes it looks at what the loop's thread is doing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import structlog

from agentflow import events
from agentflow.clock import monotonic
from agentflow.context import current_node, recorder, run_scope

IDLE = 5.0
"""Seconds without runs after which the thread ends; the next run begins another."""

_PLACES = 1000  # that are remembered, because they have been warned of

_log = structlog.get_logger("agentflow.executor")


class Watched(Protocol):
    """A run whose subscribers are told."""

    id: str

    def now(self) -> float:
        """Seconds on the loop's clock."""
        ...

    def emit(self, event: events.Event) -> None:
        """Tell the subscribers."""
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """Code that holds the loop.

    Attributes:
        where: File, line and function, as ``tools.py:12 in fetch``.
        tool: Name of the tool whose code it is, or empty.
        node: Plan id of the call, or None.
        run: Id of the run, or empty.
    """

    where: str
    tool: str = ""
    node: int | None = None
    run: str = ""


class Watchdog:
    """Looks after the running loop, from the thread of the loop's that makes it.

    Code is named that is found twice, half of `limit` apart, while the loop has not answered: so
    holding it for one and a half times the limit is always noticed, and for less than half of it
    never, however much short work there is.

    Args:
        limit: Seconds for which the loop may be held.
    """

    def __init__(self, limit: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._patience = limit / 2
        self._watched_thread = threading.get_ident()
        self._runs: dict[Watched, None] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asleep = False  # until there is a run
        self._closed = False
        self._warned: set[str] = set()

    def attend(self, run: Watched) -> None:
        """Look after the loop until the run leaves."""
        self._runs[run] = None  # before it is asked whether the thread sleeps
        if self._thread is None or self._asleep:
            self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()
            if self._thread is None:
                name = "agentflow-watchdog"
                self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
                self._thread.start()

    def leave(self, run: Watched) -> None:
        """The run is over."""
        self._runs.pop(run, None)

    def close(self) -> None:
        """Have the thread end."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    # In the thread

    def _watch(self) -> None:
        while self._wanted():
            ping = _Ping(monotonic())
            try:
                self.loop.call_soon_threadsafe(self._answer, ping)
            except RuntimeError:  # it is closed
                continue
            self._wait_for(ping)

    def _wanted(self) -> bool:
        """Wait for the next time to look; whether there is anything to look after."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, self._patience)
            self._asleep = True
            self._changed.wait_for(lambda: self._runs or self._closed, IDLE)
            if self._closed or not self._runs or self.loop.is_closed():
                self._thread = None
            self._asleep = self._thread is None  # not before: a run may come at this moment
            return self._thread is not None

    def _wait_for(self, ping: _Ping) -> None:
        """Wait until the loop answers; note who holds it, one after another, and for long."""
        before: FrameType | None = None
        noted: FrameType | None = None
        while not (ping.answered.wait(self._patience) or self._closed or self.loop.is_closed()):
            innermost = sys._current_frames().get(self._watched_thread)
            callback = _callback(innermost)
            if innermost and callback and callback is before and callback is not noted:
                self._note(ping, innermost, callback)
                noted = callback
            before = callback
            del innermost, callback  # what they hold should not live longer for it

    def _note(self, ping: _Ping, innermost: FrameType, callback: FrameType) -> None:
        if (found := _holder(innermost, callback)) is not None:
            since = monotonic() - self._patience if ping.holders else ping.asked
            ping.holders.append((found, since))
            self._warn(found)

    def _warn(self, holder: Holder) -> None:
        if holder.where in self._warned:
            return
        if len(self._warned) < _PLACES:
            self._warned.add(holder.where)
        named = {"tool": holder.tool, "node": holder.node, "run": holder.run}
        _log.warning(
            "the event loop is blocked: nothing else goes on meanwhile. Make it a plain "
            "function, which runs in a thread, or await something instead",
            where=holder.where,
            **{what: value for what, value in named.items() if value not in ("", None)},
        )

    # In the loop

    def _answer(self, ping: _Ping) -> None:
        ping.answered.set()
        until = [*(since for _, since in ping.holders[1:]), monotonic()]
        for (holder, since), end in zip(ping.holders, until, strict=False):
            place = (holder.where, holder.tool, holder.node, holder.run)
            for run in tuple(self._runs):
                run.emit(events.LoopBlocked(run.id, run.now(), end - since, *place))


@dataclass(slots=True)
class _Ping:
    """A sign of life that the loop is asked for.

    The loop tells who kept it from answering, before what comes next: a run may end there.
    """

    asked: float
    answered: threading.Event = field(default_factory=threading.Event)
    holders: list[tuple[Holder, float]] = field(default_factory=list)  # and since when


def is_real(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop's time passes by itself; a virtual one is not to be kept busy."""
    kept = isinstance(loop, asyncio.BaseEventLoop)
    return not kept or type(loop).time is asyncio.BaseEventLoop.time


def _callback(frame: FrameType | None) -> FrameType | None:
    """The callback of the loop that a frame is part of; None if the loop waits."""
    while frame is not None and frame.f_code is not asyncio.Handle._run.__code__:
        frame = frame.f_back
    return frame


def _holder(innermost: FrameType, callback: FrameType) -> Holder | None:
    """Who holds the loop; None for an import of ours, which happens once."""
    to_blame = _to_blame(innermost, callback)
    code = to_blame.f_code
    if code.co_filename.startswith("<frozen importlib"):
        return None
    where = f"{code.co_filename}:{to_blame.f_lineno} in {code.co_name}"
    try:
        context = callback.f_locals["self"]._context.copy()
        return Holder(where, *context.run(_owner))
    except (AttributeError, LookupError):  # the call has been taken back
        return Holder(where)


def _to_blame(innermost: FrameType, callback: FrameType) -> FrameType:
    """Where code that is not ours was entered; the innermost frame if that is ours."""
    found, frame = innermost, innermost
    while frame is not callback and not _ours(frame):
        found, frame = frame, frame.f_back or callback
    return found


def _ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("agentflow.")


def _owner() -> tuple[str, int | None, str]:
    """Tool, plan id and run of the code in whose context this is called."""
    run: Any = run_scope.get()
    if run is None:
        return "", None, ""
    node = None if recorder.get() is not None else current_node()
    if node is None:
        return "", None, run.id
    state = run.driver.state
    return state.nodes[state.slot(node)].tool, node, run.id
