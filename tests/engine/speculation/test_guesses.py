"""What becomes of a guess: used in flight, used when it has landed, or wasted, and what is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Budget, Engine, events, said, tool, workflow
from agentflow.errors import DefinitionError, RunCancelled, RunFailed


@pytest.fixture
def search(lab: Any) -> Any:
    @tool(reads="web", timeout=30)
    async def search(query: str) -> str:
        return str(await lab.work(query))

    return search


@pytest.fixture
def ask(search: Any) -> Any:
    """Thinks for some seconds, then searches for what it was told to."""

    @workflow
    async def ask(seconds: float, *queries: str) -> list[str]:
        await asyncio.sleep(seconds)
        return [await search(query) for query in queries]

    return ask


def names(lab: Any) -> list[str]:
    return [type(event).__name__ for event in lab.events]


async def test_a_guess_under_way_is_taken_over_and_saves_what_is_over(
    lab: Any, maybe: Any, search: Any, ask: Any
) -> None:
    engine = lab.start(maybe("search", query="x"), tools=[search])
    loop = asyncio.get_running_loop()

    assert await engine.run(ask, 0.5, "x") == ["X"]

    assert loop.time() == 2.0
    assert lab.calls == ["x"]
    assert lab.used() == [0.5]
    assert lab.sources() == ["speculated"]


async def test_a_guess_that_has_landed_saves_all_of_its_call(
    lab: Any, maybe: Any, search: Any, ask: Any
) -> None:
    engine = lab.start(maybe("search", query="x"), tools=[search])

    assert await engine.run(ask, 5.0, "x") == ["X"]

    assert asyncio.get_running_loop().time() == 5.0
    assert lab.calls == ["x"]
    assert lab.used() == [2.0]


async def test_events_tell_the_story_of_a_guess_in_order(
    lab: Any, maybe: Any, search: Any, ask: Any
) -> None:
    engine = lab.start(maybe("search", query="x"), maybe("search", query="y"), tools=[search])

    await engine.run(ask, 0.5, "x")

    assert names(lab) == [
        "RunStarted",
        "CallPredicted", "SpeculationStarted", "CallPredicted", "SpeculationStarted",
        "PlanExtended", "NodeStarted",
        "SpeculationUsed", "NodeReused", "NodeFinished",
        "SpeculationWasted", "RunFinished",
    ]  # fmt: skip
    first = lab.told(events.CallPredicted)[0]
    assert (first.number, first.tool, first.arguments) == (1, "search", {"query": "x"})
    assert (first.probability, first.reason) == (0.9, "the test says so")
    assert lab.wasted() == ["the run ended without it"]


async def test_a_guess_is_cut_off_when_the_run_ends_without_it(
    lab: Any, maybe: Any, search: Any, ask: Any
) -> None:
    engine = lab.start(maybe("search", query="y"), tools=[search])

    await engine.run(ask, 1.0)
    await asyncio.sleep(0)

    assert lab.cut == ["y"]
    (wasted,) = lab.told(events.SpeculationWasted)
    assert wasted.seconds == 1.0


async def test_guesses_are_accounted_for_when_a_run_fails(
    lab: Any, maybe: Any, search: Any
) -> None:
    @workflow
    async def broken() -> None:
        await asyncio.sleep(1)
        raise ValueError("no")

    engine = lab.start(maybe("search", query="y"), tools=[search])

    with pytest.raises(RunFailed):
        await engine.run(broken)

    assert lab.wasted() == ["the run ended without it"]
    assert isinstance(lab.events[-1], events.RunFailed)


async def test_guesses_are_accounted_for_when_a_run_is_cancelled(
    lab: Any, maybe: Any, search: Any, ask: Any
) -> None:
    engine = lab.start(maybe("search", query="x"), maybe("search", query="y"), tools=[search])
    run = engine.start(ask, 1.0, "x")
    await asyncio.sleep(1.5)

    run.cancel()
    with pytest.raises(RunCancelled):
        await run

    assert sorted(lab.cut) == ["x", "y"]
    assert len(lab.wasted()) == 2


async def test_guesses_are_accounted_for_when_the_deadline_passes(
    lab: Any, maybe: Any, search: Any
) -> None:
    @workflow(budget=Budget(deadline=1.5))
    async def late() -> Any:
        await asyncio.sleep(1)
        return await search("x")

    engine = lab.start(maybe("search", query="x"), maybe("search", query="y"), tools=[search])

    with pytest.raises(Exception, match="deadline"):
        await engine.run(late)

    assert len(lab.wasted()) == 2
    assert sorted(lab.cut) == ["x", "y"]


async def test_guesses_are_accounted_for_when_the_engine_closes(
    lab: Any, maybe: Any, search: Any, ask: Any
) -> None:
    engine = lab.start(maybe("search", query="x"), maybe("search", query="y"), tools=[search])
    run = engine.start(ask, 1.0, "x")
    await asyncio.sleep(1.5)

    await engine.aclose()

    assert run.done
    assert len(lab.wasted()) == 2


async def test_a_failing_guess_is_not_seen_by_the_call_that_joined_it(lab: Any, maybe: Any) -> None:
    @tool(reads="web")
    async def flaky(query: str) -> str:
        await lab.work(query)
        if len(lab.made) == 1:
            raise OSError("gone")
        return "fine"

    @workflow
    async def ask() -> str:
        await asyncio.sleep(1)
        return await flaky("x")

    engine = lab.start(maybe("flaky", query="x"), tools=[flaky])

    assert await engine.run(ask) == "fine"

    assert lab.made == [("x", 0.0), ("x", 2.0)]
    assert lab.wasted() == ["it failed"]
    assert lab.told(events.NodeFailed) == []


async def test_a_failed_guess_is_not_tried_again_and_the_call_is_made_as_ever(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web")
    async def flaky(query: str) -> str:
        lab.made.append((query, asyncio.get_running_loop().time()))
        if len(lab.made) == 1:
            raise OSError("gone")
        return "fine"

    @workflow
    async def ask() -> str:
        await asyncio.sleep(1)
        return await flaky("x")

    engine = lab.start(maybe("flaky", query="x"), tools=[flaky])

    assert await engine.run(ask) == "fine"

    assert lab.made == [("x", 0.0), ("x", 1.0)]


async def test_the_failure_of_a_guess_is_not_remembered_for_the_call(lab: Any, maybe: Any) -> None:
    @tool(reads="web", negative_ttl="1h")
    async def flaky(query: str) -> str:
        await lab.work(query, 0.5)
        if len(lab.made) == 1:
            raise OSError("gone")
        return "fine"

    @workflow
    async def ask() -> str:
        await asyncio.sleep(1)
        return await flaky("x")

    engine = lab.start(maybe("flaky", query="x"), tools=[flaky])

    assert await engine.run(ask) == "fine"


async def test_a_guess_that_takes_too_long_ends_at_its_time_limit(lab: Any, maybe: Any) -> None:
    @tool(reads="web", timeout=3)
    async def slow(query: str) -> str:
        return str(await lab.work(query, 10.0))

    @workflow
    async def ask() -> None:
        await asyncio.sleep(20)

    engine = lab.start(maybe("slow", query="x"), tools=[slow])

    await engine.run(ask)

    assert lab.cut == ["x"]
    (wasted,) = lab.told(events.SpeculationWasted)
    assert (wasted.seconds, wasted.why) == (3.0, "it failed")


async def test_a_call_has_its_own_time_limit_whenever_its_guess_began(lab: Any, maybe: Any) -> None:
    @tool(reads="web", timeout=3)
    async def slow(query: str) -> str:
        return str(await lab.work(query, 2.9))

    @workflow
    async def ask() -> str:
        await asyncio.sleep(2)
        return await slow("x")

    engine = lab.start(maybe("slow", query="x"), tools=[slow])

    assert await engine.run(ask) == "X"
    assert lab.used() == [2.0]


async def test_a_call_that_is_cancelled_after_it_took_a_guess_over_wastes_it(
    lab: Any, maybe: Any, search: Any
) -> None:
    @workflow
    async def ask() -> str:
        await asyncio.sleep(0.5)
        handle = search("x")
        await asyncio.sleep(0.5)
        handle.cancel()
        await asyncio.sleep(0.5)
        return "done"

    engine = lab.start(maybe("search", query="x"), tools=[search])

    assert await engine.run(ask) == "done"

    assert lab.cut == ["x"]
    assert lab.wasted() == ["the call that asked for it did not take it"]


async def test_another_runs_call_shares_a_guess_and_keeps_it_when_the_guesser_ends(
    lab: Any, maybe: Any, ask: Any
) -> None:
    @tool(reads="web", ttl="1h")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    @workflow
    async def other() -> str:
        return await search("x")

    engine = lab.start(maybe("search", query="x"), tools=[search])
    guessing = engine.start(ask, 1.0)
    await asyncio.sleep(0.5)
    sharing = engine.start(other)

    await guessing
    assert await sharing == "X"

    assert lab.calls == ["x"]
    assert lab.cut == []


async def test_a_guess_that_was_evicted_before_its_first_step_is_accounted_for(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web", limit=1)
    async def search(query: str) -> str:
        return str(await lab.work(query))

    @workflow
    async def ask() -> str:
        await asyncio.sleep(1)
        said("now")
        return await search("x")  # in the very turn of the loop in which the guess is started

    source = scripted(after=lambda trail: [maybe("search", query="y")] if trail.length else [])
    engine = lab.start(source, tools=[search])

    assert await engine.run(ask) == "X"

    assert lab.calls[0] == "x"
    assert lab.wasted()[0] == "it made way for a call"


async def test_an_engine_does_not_speculate_unless_asked_to() -> None:
    @workflow
    async def nothing() -> None:
        await asyncio.sleep(1)

    async with Engine() as engine:
        run = engine.start(nothing)
        await run
        assert run.speculator is None
        assert engine.services.foresight is None


async def test_speculation_needs_the_cache() -> None:
    with pytest.raises(DefinitionError, match="cache"):
        Engine(cache=False, speculation=True)
