"""A laboratory for guesses, on virtual time: a scripted source, tools that note their calls.

Its books are audited at the end of every test.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Engine, Speculation, Tool, events
from agentflow.caches.speculation.candidates import Candidate
from agentflow.caches.speculation.trail import Trail

Guessing = Callable[[Trail], Sequence[Candidate]]


class Scripted:
    """A source that names what a test tells it to.

    Attributes:
        says: The candidates, whatever has happened.
        learnt: The calls that it was told of, as text.
        closed: Sessions that have come to an end.
    """

    def __init__(self, *says: Candidate, after: Guessing | None = None) -> None:
        self.says = list(says)
        self._after = after
        self.learnt: list[str] = []
        self.closed = 0

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        return self.says if self._after is None else self._after(trail)

    def learn(self, trail: Trail) -> None:
        if trail.steps and trail.steps[-1].key:
            self.learnt.append(trail.steps[-1].key)

    def close(self, trail: Trail) -> None:
        self.closed += 1


class Lab:
    """An engine that speculates, and what happened in it.

    Attributes:
        events: What subscribers were told.
        made: When each call was begun, as text and time.
        cut: Calls that were cancelled.
    """

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self.made: list[tuple[str, float]] = []
        self.cut: list[str] = []
        self.engine: Engine

    def start(
        self, *says: Candidate | Scripted, tools: Sequence[Tool[..., Any]] = (), **options: Any
    ) -> Engine:
        """An engine whose runs guess at these calls, or ask this source."""
        speculation = options.pop("speculation", None)
        if speculation is None:
            given = [said for said in says if isinstance(said, Scripted)]
            source = given[0] if given else Scripted(*(c for c in says if isinstance(c, Candidate)))
            named = {name: options.pop(name) for name in POLICY if name in options}
            speculation = Speculation(source=source, **named)
        options = {"seed": 7, "subscribers": [self.events.append], **options}
        self.engine = Engine(tools=tools, speculation=speculation, **options)
        return self.engine

    async def work(self, what: str, seconds: float = 2.0) -> str:
        """What a tool does: note the call, and take its time."""
        self.made.append((what, asyncio.get_running_loop().time()))
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cut.append(what)
            raise
        return what.upper()

    @property
    def calls(self) -> list[str]:
        """The calls that were begun, in order."""
        return [what for what, _ in self.made]

    def told(self, kind: type[events.Event]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]

    def used(self) -> list[float]:
        """What each guess that came true saved."""
        return [event.saved for event in self.told(events.SpeculationUsed)]

    def wasted(self) -> list[str]:
        """Why each guess was in vain."""
        return [event.why for event in self.told(events.SpeculationWasted)]

    def sources(self) -> list[str]:
        """Where values came from that were not made for the call."""
        return [event.source for event in self.told(events.NodeReused)]

    async def aclose(self) -> None:
        """Close the engine, and audit it."""
        left = await self.engine.aclose()
        assert not left
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "TestRunner" not in repr(task.get_coro())]
        for run in {event.run for event in self.events}:
            self._audit([event for event in self.events if event.run == run])
        self._balance()

    def _audit(self, told: Sequence[events.Event]) -> None:
        """A run's guesses were predicted, then started, then used or wasted; its end came last."""
        stages: dict[int, str] = {}
        for event in told:
            if not isinstance(event, events.SpeculationEvent):
                continue
            name, before = type(event).__name__, stages.get(event.number)
            assert before in BEFORE[name], f"guess {event.number}: {name} after {before}"
            stages[event.number] = name
        ends = [event for event in told if isinstance(event, events.TERMINAL)]
        assert ends == [told[-1]]
        assert "SpeculationStarted" not in stages.values(), "a guess is neither used nor wasted"

    def _balance(self) -> None:
        foresight = self.engine.services.foresight
        assert foresight is not None
        stats, ledger = foresight.stats, foresight.ledger
        number = Counter(type(event) for event in self.events)
        assert stats.started == stats.used + stats.wasted
        assert stats.started == number[events.SpeculationStarted]
        assert stats.used == number[events.SpeculationUsed]
        wasted = self.told(events.SpeculationWasted)
        lost = sum((Decimal(event.usd) for event in wasted), Decimal(0))
        alone = number[events.RunStarted] == 1  # else another run's call may take over, and pay
        assert ledger.spent.usd == lost if alone else ledger.spent.usd <= lost
        assert ledger.reserved.usd == self.engine.ledger.reserved.usd == 0
        limit = ledger.budget.usd
        assert limit is None or ledger.spent.usd <= limit


POLICY = ("breadth", "depth", "waste", "wait_price", "load_price", "budget", "origins", "memory")

BEFORE: dict[str, tuple[str | None, ...]] = {
    "CallPredicted": (None,),
    "SpeculationStarted": ("CallPredicted",),
    "SpeculationOvertaken": ("CallPredicted",),
    "SpeculationUsed": ("SpeculationStarted",),
    "SpeculationWasted": ("SpeculationStarted",),
}
"""What may have happened to a guess before."""


def _maybe(tool: str, probability: float = 0.9, **arguments: Any) -> Candidate:
    """A call that may come."""
    return Candidate(tool, arguments, probability, probability, "the test says so")


@pytest.fixture
def maybe() -> Any:
    """See `_maybe`."""
    return _maybe


@pytest.fixture
def scripted() -> type[Scripted]:
    """See `Scripted`."""
    return Scripted


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """A laboratory whose books are audited at the end of every test."""
    made = Lab()
    yield made
    await made.aclose()


@pytest.fixture
def laboratory() -> type[Lab]:
    """For tests that make several of them; see `Lab`."""
    return Lab
