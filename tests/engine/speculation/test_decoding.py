"""Calls that start while a model is still writing: before a plan's line, or a turn's call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow import Task, _http, tool
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import Call, ScriptedServer
from agentflow.testing.replies import Pace, Reply

SLOW = Pace(first_token=1.0, per_token=0.1)


@pytest.fixture
def search(lab: Any) -> Any:
    @tool(reads="web")
    async def search(query: str) -> str:
        """Search the web."""
        return str(await lab.work(query, 0.5))

    return search


@pytest.fixture
async def model() -> AsyncIterator[Any]:
    """Makes a model that writes a script, slowly."""
    opened = []

    async def make(*script: Any) -> OpenAIBackend:
        http = _http.client(transport=ScriptedServer(list(script), pace=SLOW).transport())
        backend = OpenAIBackend("http://scripted/v1", "tiny", http=http)
        await backend.connect()
        opened.append(http)
        return backend

    yield make
    for http in opened:
        await http.aclose()


PLAN = '$1 = search(query="x")\n$2 = search(query="y")\njoin()'


async def test_a_call_of_a_plan_starts_before_its_line_is_written(
    lab: Any, maybe: Any, search: Any, model: Any
) -> None:
    engine = lab.start(
        maybe("search", query="x"),
        maybe("search", query="y"),
        tools=[search],
        model=await model(PLAN, "Answer: done"),
    )
    began = asyncio.get_running_loop().time()

    assert await engine.run(Task("Which?")) == "done"

    assert lab.made == [("x", began), ("y", began)]
    assert lab.used() == [0.5, 0.5]


async def test_a_call_of_a_turn_starts_before_the_model_asks_for_it(
    lab: Any, maybe: Any, search: Any, model: Any
) -> None:
    engine = lab.start(
        maybe("search", query="x"),
        tools=[search],
        model=await model(Reply(Call("search", {"query": "x"}, "c1")), "Done."),
    )
    began = asyncio.get_running_loop().time()

    assert await engine.run(Task("Which?", strategy="react")) == "Done."

    assert lab.made == [("x", began)]
    assert lab.used() == [0.5]


async def test_a_task_with_tools_of_its_own_guesses_at_no_others(
    lab: Any, maybe: Any, search: Any, model: Any
) -> None:
    @tool(reads="web")
    async def other(query: str) -> str:
        """Search elsewhere."""
        return query

    engine = lab.start(
        maybe("search", query="x"), tools=[search], model=await model("Done.", "Done.")
    )

    await engine.run(Task("Which?", strategy="react", tools=[other]))

    assert lab.calls == []


async def test_what_the_user_and_the_model_say_is_heard(
    lab: Any, scripted: Any, search: Any, model: Any
) -> None:
    heard: list[tuple[str, str]] = []

    def listen(trail: Any) -> list[Any]:
        heard.extend(
            (step.actor, token.text)
            for step in trail.steps
            if not step.key
            for token in step.tokens
            if (step.actor, token.text) not in heard
        )
        return []

    said = Reply("Let me look.", Call("search", {"query": "x"}, "c1"))
    engine = lab.start(scripted(after=listen), tools=[search], model=await model(said, "Done."))

    await engine.run(Task("Which one?", strategy="react"))

    assert ("user", "Which") in heard
    assert ("model", "look") in heard


async def test_every_call_of_a_plan_is_learnt_from_also_if_its_value_was_there_at_once(
    lab: Any, maybe: Any, scripted: Any, search: Any, model: Any
) -> None:
    source = scripted(maybe("search", query="x"), maybe("search", query="y"))
    engine = lab.start(source, tools=[search], model=await model(PLAN, "Answer: done"))

    await engine.run(Task("Which?"))

    assert source.learnt == ['["search", {"query": "x"}]', '["search", {"query": "y"}]']
    assert source.closed == 1


async def test_every_element_of_a_map_is_learnt_from_if_its_value_was_there_at_once(
    lab: Any, maybe: Any, scripted: Any, search: Any, model: Any
) -> None:
    source = scripted(maybe("search", query="x"), maybe("search", query="y"))
    plan = '$1 = search(query=each ["x", "y"])\njoin()'
    engine = lab.start(source, tools=[search], model=await model(plan, "Answer: done"))

    await engine.run(Task("Which?"))

    assert lab.calls == ["x", "y"]
    assert source.learnt == ['["search", {"query": "x"}]', '["search", {"query": "y"}]']


async def test_a_line_that_is_taken_back_is_not_learnt_from(
    lab: Any, maybe: Any, scripted: Any, search: Any, model: Any
) -> None:
    source = scripted(maybe("search", query="x"))
    plan = '$1 = search(query="y")\n$2 = search(query="x") if $1.nothing\njoin()'
    engine = lab.start(source, tools=[search], model=await model(plan, "Answer: done"))

    await engine.run(Task("Which?"))

    assert '["search", {"query": "x"}]' not in source.learnt
