"""Tells what happens to the calls of one run, as events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agentflow import events
from agentflow.executor.state.commands import DONE, FAILED, RUNNING, SKIPPED
from agentflow.executor.state.run_state import RunState


class Teller:
    """Makes the events of calls; a run that nobody watches has none.

    Args:
        run: Id of the run.
        loop: Whose clock the events carry.
        state: Knows which call a slot is.
        emit: Takes the events.
    """

    def __init__(
        self,
        run: str,
        loop: asyncio.AbstractEventLoop,
        state: RunState,
        emit: Callable[[events.NodeEvent], None],
    ) -> None:
        self._run = run
        self._loop = loop
        self._state = state
        self._emit = emit

    def _call(self, slot: int) -> tuple[str, float, int, str, int | None]:
        node, element = self._state.where(slot)
        return self._run, self._loop.time(), node, self._state.nodes[slot].tool, element

    def started(self, slot: int, attempt: int) -> None:
        """An attempt began."""
        self._emit(events.NodeStarted(*self._call(slot), attempt))

    def waited(self, slot: int, why: str, seconds: float) -> None:
        """A call has waited, for a place or for its turn."""
        self._emit(events.NodeWaited(*self._call(slot), why, seconds))

    def retrying(self, slot: int, attempt: int, delay: float, error: Exception) -> None:
        """An attempt failed, and another follows after `delay` seconds."""
        self._emit(events.NodeRetrying(*self._call(slot), attempt, delay, error))

    def hedged(self, slot: int, after: float) -> None:
        """A second attempt began beside one that had taken `after` seconds."""
        self._emit(events.NodeHedged(*self._call(slot), after))

    def reused(self, slot: int, source: str, saved: float) -> None:
        """The value of a call was there already."""
        self._emit(events.NodeReused(*self._call(slot), source, saved))

    def emitted(self, slot: int, data: Any) -> None:
        """A tool reported something."""
        self._emit(events.NodeEmitted(*self._call(slot), data))

    def finished(self, slot: int, value: Any) -> None:
        """A running call is about to be done; one that was given up on is not told of again."""
        if self._state.status[slot] is RUNNING:
            self._emit(events.NodeFinished(*self._call(slot), value))

    def settled(self, slot: int) -> None:
        """A call ended otherwise than by running to its end."""
        status, call = self._state.status[slot], self._call(slot)
        if status is DONE:
            self._emit(events.NodeFinished(*call, self._state.values[slot]))
        elif status is FAILED:
            self._emit(events.NodeFailed(*call, self._state.errors[slot]))
        elif status is SKIPPED:
            self._emit(events.NodeSkipped(*call, str(self._state.errors[slot])))
        else:
            self._emit(events.NodeCancelled(*call))
