"""What must hold of every run, whatever happens: read from its events, its ledgers, its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from agentflow import Engine, events
from agentflow.budgets.ledger import NOTHING, Ledger
from agentflow.errors import AgentflowError, RunError
from agentflow.wording import described

ENDS = (events.NodeFinished, events.NodeFailed, events.NodeSkipped, events.NodeCancelled)

IN_TIME = 0.05
"""Seconds after its deadline at which the caller of a run has its answer."""


class Noting(Protocol):
    """What is wrong is noted here."""

    wrong: list[str]


class Audit:
    """Reads every event of an engine, and notes what no run may do.

    Attributes:
        seen: How many events there were.
        kinds: How many of each kind.
    """

    def __init__(self, world: Noting) -> None:
        self._world = world
        self.seen = 0
        self.kinds: Counter[str] = Counter()
        self._open: dict[str, str] = {}
        self._over: set[str] = set()
        self._ended: set[tuple[str, int, int | None]] = set()
        self.ledgers: list[Ledger] = []

    def __call__(self, event: events.Event) -> None:
        """Take one event."""
        self.seen += 1
        self.kinds[type(event).__name__] += 1
        if event.run in self._over:
            self._wrong(f"{event} came after the end of its run")
        if isinstance(event, events.RunStarted):
            self._open[event.run] = event.name
        elif event.run not in self._open:
            self._wrong(f"{event} is of no run that began")
        if isinstance(event, events.TERMINAL):
            self._over.add(event.run)
        if isinstance(event, ENDS):
            self._end(event)
        self.check_money()

    def _end(self, event: events.NodeEvent) -> None:
        place = event.run, event.node, event.element
        if place in self._ended:
            self._wrong(f"{event}: that call had ended before")
        self._ended.add(place)

    def check_money(self) -> None:
        """See that no budget is exceeded."""
        for ledger in self.ledgers:
            left = ledger.left
            for amount in (left.usd, left.tokens):
                if amount is not None and amount < 0:
                    self._wrong(f"{ledger.budget} is exceeded: spent {ledger.spent}, {left}")

    def check_ended(self) -> None:
        """See that every run that began has ended, and nothing is set aside any more."""
        for run in self._open.keys() - self._over:
            self._wrong(f"{self._open[run]} (run {run}) has no terminal event")
        for ledger in self.ledgers:
            if ledger.reserved != NOTHING:
                self._wrong(f"{ledger.reserved} of {ledger.budget} is still reserved")

    def _wrong(self, what: str) -> None:
        self._world.wrong.append(what)


def check_error(world: Noting, error: BaseException) -> None:
    """See that an error that ends a run is typed, says what happened, and says whose fault it is."""
    if not isinstance(error, RunError):
        world.wrong.append(f"a run ended with {described(error)}, which is no RunError")
        return
    cause = error.__cause__
    if len(str(error)) < 15:
        world.wrong.append(f"{type(error).__name__} says too little: {error}")
    if isinstance(cause, AgentflowError) and len(described(cause)) < 25:
        world.wrong.append(f"{type(cause).__name__} says too little: {cause}")


def check_left(world: Noting, left: list[str], *, stubborn: bool) -> None:
    """See that nothing is left on the loop: tasks, timers, work that was given up on.

    Threads live on the real clock: one that was given up on may need another moment to end.
    """
    loop: Any = asyncio.get_running_loop()
    if [name for name in left if not name.startswith("agentflow-")] and not stubborn:
        world.wrong.append(f"{left} did not end")
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        world.wrong.append(f"tasks are left: {[str(task) for task in tasks]}")
    timers = [repr(handle) for handle in loop._scheduled if not handle.cancelled()]
    if timers and not stubborn:
        world.wrong.append(f"timers are left: {timers}")


def watching(engine: Engine, audit: Audit) -> Callable[[], None]:
    """Have the audit read an engine."""
    audit.ledgers.append(engine.ledger)
    return engine.subscribe(audit)
