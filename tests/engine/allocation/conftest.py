"""Models on virtual time, allocators that are scripts, and an engine that leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from agentflow import events
from agentflow.budgets.allocation.situation import Deciding, Decision, Job, Situation, Start
from agentflow.budgets.ledger import NOTHING
from agentflow.budgets.prices import Prices
from agentflow.engine import Engine
from agentflow.executor.models.base import ChatRequest, Delta, Reply, TextPiece, Usage

PROMPT = 10
"""Tokens that a model says every prompt has."""


@dataclass(frozen=True)
class Says:
    """What a model says: the text, when it is whole, and how many tokens of output it has."""

    text: str = "yes"
    seconds: float = 1.0
    tokens: int = 10
    error: Exception | None = None
    refusal: str | None = None


Line = str | tuple[Any, ...] | dict[str, Any] | Exception
"""A text, what `Says` takes, or an error after one second."""

Script = Sequence[Line] | Callable[[int, ChatRequest], Line]


def says(line: Line) -> Says:
    match line:
        case str():
            return Says(line)
        case tuple():
            return Says(*line)
        case dict():
            return Says(**line)
    return Says(error=line)


class Modelled:
    """A model that says what its script says; the last line stands for all that follow."""

    def __init__(self, name: str, script: Script, prices: Prices) -> None:
        self.name = name
        self.prices = prices
        self.requests: list[ChatRequest] = []
        self.began: list[float] = []
        self.broken_off: list[float] = []
        self.active = 0
        self.peak = 0
        self._script = script

    def _next(self, request: ChatRequest) -> Says:
        number = len(self.requests) - 1
        if callable(self._script):
            return says(self._script(number, request))
        return says(self._script[min(number, len(self._script) - 1)])

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[Spoken]:
        loop = asyncio.get_running_loop()
        self.requests.append(request)
        self.began.append(loop.time())
        said = self._next(request)
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            if said.error is not None:
                await asyncio.sleep(said.seconds)
                raise said.error
            yield Spoken(self.name, said, request)
        except (asyncio.CancelledError, GeneratorExit):
            self.broken_off.append(loop.time())
            raise
        finally:
            self.active -= 1

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        async with self.stream(request) as stream:
            async for delta in stream:
                if on_delta is not None:
                    on_delta(delta)
            return stream.reply


class Spoken:
    """A reply of a `Modelled`: its tokens come evenly, and its text at the end."""

    def __init__(self, model: str, said: Says, request: ChatRequest) -> None:
        self._loop = asyncio.get_running_loop()
        self._model, self._said, self._began = model, said, self._loop.time()
        self._tokens = min(said.tokens, request.max_tokens)
        self._seconds = said.seconds * self._tokens / said.tokens
        self._reply: Reply | None = None

    async def __aiter__(self) -> AsyncIterator[Delta]:
        await asyncio.sleep(self._seconds)
        cut = self._tokens < self._said.tokens
        self._reply = Reply(
            text=self._said.text,
            finish_reason="length" if cut else "stop",
            usage=Usage(PROMPT, self._tokens),
            refusal=self._said.refusal,
            model=self._model,
        )
        yield TextPiece(self._said.text)

    @property
    def usage(self) -> Usage:
        if self._reply is not None:
            return self._reply.usage
        elapsed = self._loop.time() - self._began
        share = min(1.0, elapsed / self._seconds) if self._seconds else 1.0
        return Usage(PROMPT, int(self._tokens * share), estimated=True)

    @property
    def reply(self) -> Reply:
        if self._reply is None:
            raise RuntimeError("not read to its end")
        return self._reply


Move = tuple[str, int] | Decision | Callable[[Situation], Any] | Exception
"""So many samples of a model for every job that has none under way; or the decision itself."""


class Plays:
    """An allocator that makes its moves; the last one stands for all that follow."""

    def __init__(self, moves: Sequence[Move]) -> None:
        self._moves = moves
        self.seen: list[Situation] = []

    def __call__(self) -> Plays:
        return self

    def decide(self, situation: Situation, chance: Random) -> Deciding:
        move = self._moves[min(len(self.seen), len(self._moves) - 1)]
        self.seen.append(situation)
        yield 0.0
        if isinstance(move, Exception):
            raise move
        if isinstance(move, tuple):
            return Decision(tuple(Start(job.id, *move) for job in idle(situation)))
        return move if isinstance(move, Decision) else move(situation)


def idle(situation: Situation) -> list[Job]:
    """The jobs that could run and do not."""
    return [job for job in situation.jobs if job.ready and job.widths and not job.running]


@dataclass
class World:
    """An engine, its models by name, and all that is told of its runs."""

    engine: Engine
    models: dict[str, Modelled]
    played: Plays
    events: list[events.Event] = field(default_factory=list)

    def told(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def outcomes(self) -> list[tuple[str, str]]:
        """Model and outcome of every sample, in the order in which they ended."""
        return [(event.model, event.outcome) for event in self.told(events.SampleEnded)]

    async def aclose(self) -> None:
        await self.engine.aclose()
        ledger = self.engine.ledger
        assert ledger.reserved == NOTHING
        assert ledger.budget.usd is None or ledger.spent.usd <= ledger.budget.usd
        assert ledger.budget.tokens is None or ledger.spent.tokens <= ledger.budget.tokens
        assert self.engine.services.abandoned == []
        assert not any(model.active for model in self.models.values())
        assert_all_samples_ended(self.events)


def assert_all_samples_ended(told: Sequence[events.Event]) -> None:
    """Every sample that was told of ended once, and before its run did."""
    open_: set[tuple[str, int]] = set()
    over: set[str] = set()
    for event in told:
        if isinstance(event, events.SampleEvent):
            assert event.run not in over
        if isinstance(event, events.SampleStarted):
            assert (event.run, event.number) not in open_
            open_.add((event.run, event.number))
        elif isinstance(event, events.SampleEnded):
            open_.remove((event.run, event.number))
        elif isinstance(event, events.RunFinished | events.RunFailed | events.RunCancelled):
            over.add(event.run)
            assert not [number for run, number in open_ if run == event.run]


PRICE = (Decimal(100), Decimal(1000))
"""USD per million tokens: with 10 tokens in and out a call costs $0.011."""

MakeWorld = Callable[..., World]


def make_world(
    models: Mapping[str, Script],
    *,
    plays: Sequence[Move] = (),
    prices: Mapping[str, Any] | None = None,
    **options: Any,
) -> World:
    """An engine with these models, whose allocator makes these moves if there are any.

    ``small`` and ``large`` are there in any case, and say yes.
    """
    models = {"small": ["yes"], "large": ["yes"]} | dict(models)
    table = Prices(dict.fromkeys(models, PRICE) | dict(prices or {}))
    made = {name: Modelled(name, script, table) for name, script in models.items()}
    played, told = Plays(plays), list[events.Event]()
    if plays:
        options["allocator"] = lambda: played
    engine = Engine(models=made, subscribers=[told.append], **{"seed": 7, **options})
    return World(engine, made, played, told)


@pytest.fixture(scope="session")
def make() -> MakeWorld:
    """Makes a `World` on whatever loop runs; see `make_world`."""
    return make_world


@pytest.fixture
async def world() -> AsyncIterator[MakeWorld]:
    """Makes a `World`: see `make_world`."""
    made: list[World] = []

    def make(models: Mapping[str, Script], **options: Any) -> World:
        made.append(make_world(models, **options))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()
    left = [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())]
    assert not left, "tasks were left behind"
