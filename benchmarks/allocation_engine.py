"""The episodes of `allocation_simulator.py` through the engine, on virtual time.

Plans are workflows of `llm` tools, models are modelled: they sleep as long as their samples take,
and say what they have made. Running, checking, cancelling, reserving and settling are real.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from allocation_cases import Case, Draws, Record
from allocation_contest import Stage
from allocation_simulator import Batch, Beliefs, Result, Rules

from agentflow import Budget, Engine, Estimates, Limits, llm, workflow
from agentflow.budgets.allocation.situation import (
    Allocator,
    Deciding,
    Decision,
    Job,
    Profile,
    Situation,
)
from agentflow.budgets.prices import Price, Prices
from agentflow.errors import AgentflowError
from agentflow.executor.models.base import ChatRequest, Delta, Reply, TextPiece, Usage
from agentflow.testing import run_virtual

PASSED, FAILED = "right", "wrong"
PLENTY = 10_000
_NODE = re.compile(r"node (\d+)")


class Told(Estimates):
    """Estimates that are given and stay as they are."""

    def __init__(self, case: Case, beliefs: Beliefs) -> None:
        super().__init__()
        self._case, self._told = case, beliefs

    def profile(self, kind: str, model: str, *_: Any, **__: Any) -> Profile:
        return self._told[int(kind.removeprefix("node"))][model]

    def agreement(self, kind: str) -> float:  # the same for all
        return self._case.agreement


class Charged:
    """An allocator whose steps take virtual time, and whose decisions are timed by the processor."""

    def __init__(self, allocator: Allocator, step: float, world: World, result: Result) -> None:
        self._allocator, self._step = allocator, step
        self._world, self._result = world, result

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        ready = sum(bool(job.ready and job.widths and not job.running) for job in situation.jobs)
        deciding = self._allocator.decide(self._world.seen(situation), chance)
        spent, steps = 0.0, 0
        while True:
            began = time.process_time()
            try:
                pause = next(deciding)
            except StopIteration as end:
                spent += time.process_time() - began
                decision: Decision = end.value
                break
            spent += time.process_time() - began
            steps += 1
            yield pause + self._step
        if ready:
            self._result.decisions.append((ready, spent))
            self._result.steps += steps + 1
        return decision


class Modelled:
    """A model whose samples are those of the episode.

    Args:
        name: Its name.
        world: The episode.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.prices = world.prices
        self._world = world

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[Sampling]:
        """Begin the next sample of the node that the prompt names."""
        found = _NODE.search(str(request.messages[0]["content"]))
        assert found is not None
        yield self._world.sampling(int(found[1]), self.name, request.max_tokens)

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        async with self.stream(request) as stream:
            async for delta in stream:
                if on_delta is not None:
                    on_delta(delta)
            return stream.reply


class Sampling:
    """A reply that comes at once, when all its time has passed."""

    def __init__(self, world: World, node: int, model: str, most: int) -> None:
        self._world, self._node, self._model = world, node, model
        self._record: Record = world.next(node, model)
        self._made = min(self._record.tokens, most)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._ended = False
        self._seconds = self._record.seconds * self._made / self._record.tokens

    async def __aiter__(self) -> AsyncIterator[Delta]:
        batch = self._world.batches[self._node]
        batch.begin(self)
        try:
            await asyncio.sleep(self._seconds)
            self._ended = True
        finally:
            batch.end(self)
        if not self._world.rules.cancel:
            await batch.idle.wait()
        yield TextPiece(PASSED if self._record.passed else FAILED)

    @property
    def passed(self) -> bool:
        return self._record.passed and self._ended and self._made == self._record.tokens

    @property
    def usage(self) -> Usage:
        """What has been made by now, or all of it where cancelled work is billed in full."""
        share = 1.0
        if self._world.rules.refunds and not self._ended:
            share = min((self._loop.time() - self._began) / self._seconds, 1.0)
        return Usage(0, round(self._made * share))

    @property
    def reply(self) -> Reply:
        whole = self._made == self._record.tokens
        return Reply(
            text=PASSED if self._record.passed else FAILED,
            finish_reason="stop" if whole else "length",
            usage=self.usage,
            model=self._model,
        )


class World:
    """What the models of one episode share."""

    def __init__(self, case: Case, rules: Rules, seed: str) -> None:
        self.case, self.rules = case, rules
        self._draws: Draws = case.draws(seed)
        self._count: dict[tuple[int, str], int] = {}
        self.batches = [Waiting() for _ in case.after]
        self.samples = 0
        self.prices = Prices(
            {
                name: Price(Decimal(0), Decimal(str(price)), refunds=rules.refunds)
                for name, price in case.prices.items()
            }
        )

    def sampling(self, node: int, model: str, most: int) -> Sampling:
        self.samples += 1
        return Sampling(self, node, model, most)

    def next(self, node: int, model: str) -> Record:
        """The next sample of a model at a node."""
        count = self._count.get((node, model), 0)
        self._count[node, model] = count + 1
        return self._draws.sample(node, model, count)

    def seen(self, situation: Situation) -> Situation:
        """The situation, where batches are waited for: what has ended, and whether it passed."""
        if self.rules.cancel:
            return situation
        return replace(situation, jobs=tuple(map(self._waiting, situation.jobs)))

    def _waiting(self, job: Job) -> Job:
        batch = self.batches[job.id]
        under_way = zip(job.running, batch.samples, strict=False)
        running = tuple(sample for sample, made in under_way if made in batch.running)
        return Batch(
            job.id, job.after, job.models, job.widths, job.agreement, job.ready, running, job.failed,
            passed=any(sample.passed for sample in batch.samples),
        )  # fmt: skip


class Waiting:
    """The samples of one node that began since none was under way."""

    def __init__(self) -> None:
        self.samples: list[Sampling] = []
        self.running: set[Sampling] = set()
        self.idle = asyncio.Event()

    def begin(self, sample: Sampling) -> None:
        if not self.running:
            self.samples.clear()
        self.samples.append(sample)
        self.running.add(sample)
        self.idle.clear()

    def end(self, sample: Sampling) -> None:
        self.running.remove(sample)
        if not self.running:
            self.idle.set()


def tools(case: Case) -> list[Any]:
    """One for each node."""
    return [_tool(case, node) for node in range(len(case.after))]


def _tool(case: Case, node: int) -> Any:
    async def ask(before: list[str]) -> str:
        raise AssertionError("a model does it")

    ask.__name__ = f"node{node}"
    ask.__doc__ = f"Do node {node} after {{before}}."
    options = list(case.pools[node])
    return llm(
        model=options,
        samples=case.widths,
        check=_right,
        max_tokens=case.most_tokens[node],
        repairs=0,
    )(ask)


def _right(answer: str) -> bool:
    return answer == PASSED


def flow(case: Case, made: Sequence[Any], budget: Budget) -> Any:
    """The plan as a workflow: all calls are known from the start."""

    @workflow(budget=budget)
    async def plan() -> list[str]:
        calls: list[Any] = []
        for before, tool in zip(case.after, made, strict=True):
            calls.append(tool([calls[node] for node in before]))
        return [await call for call in calls]

    return plan


async def run(
    its: Stage, policy: str, limits: tuple[float, float], seed: str, step: float
) -> Result:
    """One episode."""
    rules = its.rules(policy)
    result = Result()
    world = World(its.case, rules, seed)
    names = {name for node in its.case.pools for name in node}
    inner = its.allocator(policy, limits[0])
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with Engine(
        models={name: Modelled(name, world) for name in names},
        limits=Limits(run=PLENTY, backend=PLENTY),
        cache=False,
        partial=False,
        allocator=lambda: Charged(inner, step, world, result),
        estimates=Told(its.case, its.beliefs),
        seed=random.Random(f"allocator {seed}").getrandbits(32),
    ) as engine:
        budget = Budget(usd=Decimal(f"{limits[0]:.12f}"), deadline=limits[1])
        try:
            await engine.run(flow(its.case, tools(its.case), budget))
            result.passed = True
        except AgentflowError as error:
            result.why = str(error)
        result.seconds = loop.time() - began
    result.usd = float(engine.ledger.spent.usd)
    result.samples = world.samples
    result.overdrawn = max(0.0, result.usd - limits[0] - 1e-9)
    return result


def through_the_engine(
    its: Stage, policy: str, limits: tuple[float, float], seed: str, step: float = 0.0
) -> Result:
    """An episode through the engine."""
    return run_virtual(run(its, policy, limits, seed, step))
