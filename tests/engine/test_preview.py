"""The plan of a workflow without running it, and synchronous code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Engine, Plan, gather, run_sync, tool, workflow
from agentflow.errors import ArgumentError, RunFailed, WorkflowError
from agentflow.planner.plan import Node
from agentflow.planner.printer import print_plan

calls: list[str] = []


@tool
async def search(query: str) -> list[str]:
    calls.append(query)
    return [query]


@tool
async def read(url: Any) -> str:
    calls.append(str(url))
    return str(url)


@workflow
async def brief(topic: str) -> list[str]:
    hits = search(topic)
    news = search(f"{topic} news")
    pages = read.map(hits.ref)
    if len(await news) > 5:
        return [await read("more")]
    return await gather(pages, read(news.ref[0]))  # type: ignore[arg-type]  # of two types


@workflow
async def branches() -> Any:
    async def branch(topic: str) -> Any:
        await asyncio.sleep(0)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            task = group.create_task(search(topic))
        return task.result()

    try:
        return await asyncio.gather(branch("a"), branch("b"))
    finally:
        read("never seen")


@pytest.fixture(autouse=True)
def _nothing_runs() -> Any:
    calls.clear()
    yield
    assert calls == []


PLAN = '$1 = search("x")\n$2 = search("x news")\n$3 = read(each $1)\n'


def test_a_preview_shows_the_calls_up_to_the_first_value_that_is_needed() -> None:
    assert print_plan(brief.plan("x")) == PLAN


async def test_a_preview_works_inside_a_running_loop_and_disturbs_it_not() -> None:
    before = asyncio.all_tasks()
    assert print_plan(brief.plan("x")) == PLAN
    assert asyncio.all_tasks() == before


def test_a_preview_goes_into_branches_and_cuts_them_off_quietly() -> None:
    assert print_plan(branches.plan()) == '$1 = search("a")\n$2 = search("b")\n'


async def test_a_preview_of_branches_inside_a_loop() -> None:
    assert len(branches.plan().nodes) == 2
    await asyncio.sleep(0)


def test_a_preview_raises_what_the_workflow_raises() -> None:
    @workflow
    async def wrong() -> None:
        search(5)  # type: ignore[arg-type]  # on purpose

    with pytest.raises(ArgumentError):
        wrong.plan()


def test_a_call_made_after_the_preview_is_refused() -> None:
    kept: list[Any] = []

    @workflow
    async def leaky() -> None:
        kept.append(search("a"))

    leaky.plan()
    with pytest.raises(WorkflowError):
        kept[0].owner.record(search, ("b",), {})


def test_a_workflow_runs_from_synchronous_code() -> None:
    @workflow
    async def double(n: int) -> int:
        return 2 * n

    assert run_sync(double, 4) == 8
    assert run_sync(Plan((Node("gather", (1, 2)),)), engine={"seed": 1}) == {0: [1, 2]}


def test_what_fails_there_raises_there() -> None:
    @workflow
    async def fail() -> None:
        raise ValueError("boom")

    with pytest.raises(RunFailed, match="ValueError: boom"):
        run_sync(fail)


async def test_synchronous_code_inside_a_loop_is_told_what_to_write() -> None:
    @workflow
    async def double(n: int) -> int:
        return 2 * n

    with pytest.raises(RuntimeError, match=r"await engine\.run"):
        run_sync(double, 4)


async def test_an_engine_of_a_loop_works_in_its_callbacks(engine: Engine) -> None:
    @workflow
    async def double(n: int) -> int:
        return 2 * n

    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: done.set_result(engine.start(double, 4)))
    assert await (await done) == 8
