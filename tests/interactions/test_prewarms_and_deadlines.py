"""A prompt that is computed ahead when the time, or the tokens, of its run are nearly gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow import Budget, Pool, Task, events
from agentflow.budgets.ledger import NOTHING
from agentflow.clock import now
from agentflow.errors import DeadlineExceeded, RunFailed
from agentflow.executor.run import Run
from agentflow.testing import Call
from agentflow.testing.replies import Reply

QUICK, SLOW = 1.0, 20.0
"""Seconds that the two pages of a turn take: while the second is read, the first is computed."""


class Bench:
    """One replica, an engine that asks it, and when it was asked to compute something ahead."""

    def __init__(self, world: Any, kind: type[Pool], strategy: Any, slow: float) -> None:
        from tests.affinity import test_warmed_runs as runs

        pages = [("a", QUICK), ("b", slow)]
        calls = [Call("page", {"name": n, "seconds": s}, n) for n, s in pages]
        lines = [f'${i} = page(name="{n}", seconds={s})\n' for i, (n, s) in enumerate(pages, 1)]
        turn = Reply(*calls) if strategy == "react" else "".join(lines) + "join()"
        self.made = runs.Bench(world, kind, turn)
        self.strategy, self.engine = strategy, self.made.engine

    def start(self, **limits: Any) -> Run[Any]:
        most = limits.pop("max_tokens", 4096)
        task = Task("Which?", self.strategy, budget=Budget(**limits), max_tokens=most)
        return self.engine.start(task)

    @property
    def replies(self) -> list[Any]:
        return [event for event in self.made.events if isinstance(event, events.ModelReplied)]

    @property
    def ahead(self) -> list[Any]:
        return [reply for reply in self.replies if reply.warmed]

    @property
    def asked(self) -> int:
        """Requests that the replica was sent."""
        return len(self.made.replica.requests)

    def check_nothing_is_left(self, run: Run[Any]) -> None:
        """Nothing runs, nothing is set aside, and what was told is what was spent."""
        assert not self.made.replica.engine.running
        assert run.ledger.reserved == NOTHING
        assert not [t for t in asyncio.all_tasks() if "warming" in t.get_name()]
        told = sum(reply.prompt_tokens + reply.completion_tokens for reply in self.replies)
        assert run.ledger.spent.tokens == told
        assert isinstance(self.made.events[-1], events.TERMINAL)


class Unready(Pool):
    """A pool that computes nothing ahead."""

    warm = property()


@pytest.fixture
async def bench() -> AsyncIterator[Any]:
    """Makes a bench; its engine and its world are closed in the end."""
    from tests.affinity.conftest import World

    made: list[tuple[Bench, Any]] = []

    def make(strategy: str, slow: float = SLOW, kind: type[Pool] = Pool) -> Bench:
        world = World()
        made.append((Bench(world, kind, strategy, slow), world))
        return made[-1][0]

    yield make
    for one, world in made:
        assert not await one.engine.aclose()
        await world.aclose()


strategies = pytest.mark.parametrize("strategy", ["react", "plan"])


async def late(bench: Bench, deadline: float) -> Run[Any]:
    """A run that its deadline ends, and which has ended."""
    run = bench.start(deadline=deadline)
    with pytest.raises(DeadlineExceeded):
        await run
    assert now() == deadline
    await run.ended()
    return run


@strategies
@pytest.mark.parametrize("deadline", [1.6, 2.0, 3.0])
async def test_nothing_is_begun_that_could_not_be_done_or_used_in_time(
    bench: Any, strategy: str, deadline: float
) -> None:
    made = bench(strategy)
    run = await late(made, deadline)

    assert (made.asked, made.ahead) == (1, [])
    made.check_nothing_is_left(run)
    await asyncio.sleep(60.0)
    assert made.asked == 1


@strategies
async def test_it_is_begun_where_there_is_time_and_is_over_long_before_the_deadline(
    bench: Any, strategy: str
) -> None:
    made = bench(strategy)
    run = await late(made, 10.0)

    [ahead] = made.ahead
    assert not ahead.estimated and ahead.at < 4.0
    assert made.asked == 2
    made.check_nothing_is_left(run)


async def test_it_ends_with_the_run_that_ends_while_it_is_computed(bench: Any) -> None:
    made = bench("react")
    run = made.start()
    while made.asked != 2:
        await asyncio.sleep(0.01)
    run.cancel()
    await run.ended()

    [ahead] = made.ahead
    assert ahead.estimated and ahead.at == run.now()
    made.check_nothing_is_left(run)
    await asyncio.sleep(60.0)
    assert made.asked == 2


@strategies
async def test_what_is_left_of_the_time_is_the_same_as_without(bench: Any, strategy: str) -> None:
    """At no deadline does a run fail, or answer later, for what is computed ahead."""
    ends: dict[type[Pool], list[float]] = {Pool: [], Unready: []}
    for tenths in range(40, 90, 5):
        for kind, found in ends.items():
            made = bench(strategy, slow=3.0, kind=kind)
            began = now()
            run = made.start(deadline=tenths / 10)
            try:
                await run
                found.append(now() - began)
            except DeadlineExceeded:
                found.append(1000.0)
            await run.ended()
            made.check_nothing_is_left(run)

    assert all(ahead <= plain + 0.001 for ahead, plain in zip(*ends.values(), strict=True))
    assert ends[Pool][-1] < 1000.0 == ends[Pool][0]


async def test_of_a_tenant_whose_time_is_nearly_over_nothing_is_computed_ahead(bench: Any) -> None:
    made = bench("plan")
    tenant = made.engine.tenant("acme", Budget(deadline=3.0))
    run = tenant.start(Task("Which?", "plan"))
    with pytest.raises(DeadlineExceeded):
        await run
    await run.ended()

    assert made.asked == 1
    made.check_nothing_is_left(run)


# Tokens


@pytest.mark.parametrize(("room", "computes"), [(0, False), (2_000, True)])
async def test_it_is_begun_only_if_the_request_itself_still_fits(
    bench: Any, room: int, computes: bool
) -> None:
    """The next request may take 60,000 tokens of output, and some 9,800 of its prompt."""
    most = 60_000
    plain = bench("react", kind=Unready)
    assert await plain.start(tokens=70_100 + room, max_tokens=most) == "Answer: done."

    made = bench("react")
    run = made.start(tokens=70_100 + room, max_tokens=most)
    assert await run == "Answer: done."

    assert bool(made.ahead) is computes
    made.check_nothing_is_left(run)


async def test_where_the_request_does_not_fit_anyway_it_fails_for_that(bench: Any) -> None:
    made = bench("react")
    run = made.start(tokens=60_500, max_tokens=60_000 - 1_000)
    with pytest.raises(RunFailed, match="do not fit"):
        await run
    await run.ended()

    assert made.asked == 1
    made.check_nothing_is_left(run)


async def test_one_token_is_made_whatever_the_request_allows(bench: Any) -> None:
    made = bench("react")
    await made.start()

    [ahead] = made.ahead
    assert ahead.completion_tokens == 1
    assert made.made.replica.requests[1].body["max_tokens"] == 1
