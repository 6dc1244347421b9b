"""The jobs of a plan, and what is expected of them before anything of it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Budget, Engine, Estimates, MonteCarlo, Prices, llm, tool, workflow
from agentflow.budgets.estimates import Outcome
from agentflow.errors import DefinitionError
from agentflow.executor.allocation.outlook import Outlook, jobs_of_plan
from agentflow.executor.metering import IN_FLIGHT


class Named:
    """A model that is never asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prices = Prices({"small": (1, 10), "large": (10, 100), "judge": (0, 1000)})


@tool(pure=True)
async def look(key: str) -> list[str]:
    raise AssertionError


@llm(model=["small", "large"], samples=(1, 2), max_tokens=100)
async def write(text: str) -> str:
    """Write about {text}."""
    raise AssertionError


@llm(model="judge", max_tokens=5)
async def sound(text: str) -> bool:
    """Is it sound? {text}"""
    raise AssertionError


@llm(model=["small", "large"], check=sound, max_tokens=100)
async def judged(text: str) -> str:
    """Write about {text}."""
    raise AssertionError


def jobs(body: Any, estimates: Estimates | None = None) -> Any:
    models: Any = Named  # none is asked
    outlook = Outlook(estimates or Estimates(), lambda name: models(name or "small"))
    tools = {one.name: one for one in (look, write, sound, judged)}
    return jobs_of_plan(workflow(body).plan(), tools, outlook)


def test_a_job_waits_for_what_its_node_waits_for() -> None:
    async def two() -> str:
        return await write(look("a").ref)  # type: ignore[arg-type]  # a list is told as JSON

    first, second = jobs(two)

    assert (first.widths, first.ready, second.widths, second.ready) == ((), True, (1, 2), False)
    assert second.after == (first.id,)
    assert list(second.models) == ["small", "large"]


def test_a_map_over_a_list_that_is_known_is_as_many_jobs() -> None:
    async def many() -> list[str]:
        written = write.map(["a", "b", "c"])
        return await judged.map(written.each)

    *three, last = jobs(many)

    assert len({job.id for job in three}) == 3 and all(job.ready for job in three)
    assert set(last.after) == {job.id for job in three}


def test_what_judges_an_answer_is_paid_with_it() -> None:
    async def plain() -> str:
        return await write("a")

    async def checked() -> str:
        return await judged("a")

    [alone], [with_judge] = jobs(plain), jobs(checked)

    judge = 1000 / 1_000_000  # USD a token, of one to five
    assert alone.models["small"].usd + judge <= with_judge.models["small"].usd
    assert with_judge.models["small"].start == alone.models["small"].start


def test_what_is_under_way_when_a_sample_is_cancelled_is_paid() -> None:
    async def plain() -> str:
        return await write("a")

    estimates = Estimates()
    estimates.note("write", "small", Outcome(True, 1.0, 100, 50))
    [job] = jobs(plain, estimates)

    assert job.models["small"].start == pytest.approx((100 * 1 + IN_FLIGHT * 10) / 1_000_000)


def test_an_allocator_is_made_for_each_run() -> None:
    with pytest.raises(DefinitionError, match="and not MonteCarlo"):
        Engine(allocator=MonteCarlo())  # type: ignore[arg-type]  # meant


async def test_a_workflow_may_have_another_budget() -> None:
    @workflow
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async with Engine() as engine:
        quick = slow.within(Budget(deadline="1s"))
        assert await engine.run(slow, 2.0) == "done"
        with pytest.raises(TimeoutError):
            await engine.run(quick, 2.0)

        @workflow
        async def both() -> list[Any]:
            return list(await asyncio.gather(slow(2.0), quick(2.0), return_exceptions=True))

        first, second = await engine.run(both)
    assert first == "done" and isinstance(second.__cause__ or second, TimeoutError)
    assert slow.budget is None
