"""Who answers, and what to: by the engine, or by the journal's file alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentflow import Answer, Engine, gather, tool, workflow
from agentflow.errors import DefinitionError, JournalError, RunFailed, RunPaused
from agentflow.executor.asking.answering import answer, unanswered
from agentflow.executor.journal.store import JournalStore
from agentflow.testing.clock import run_virtual
from tests.durable.conftest import Desk, rows


@pytest.fixture
def shop(desk: Desk) -> Any:
    """A workflow of two calls that ask."""

    @tool(writes="mail/{to}", approve=True)
    async def send(to: str) -> str:
        desk.made.append(to)
        return f"sent to {to}"

    @tool(approve=True)
    async def print_it(what: str) -> str:
        desk.made.append(what)
        return f"printed {what}"

    @workflow
    async def shop() -> list[Any]:
        return list(await gather(send("bob"), print_it("a"), send("eve")))

    return shop


@pytest.fixture
def path(desk: Desk, shop: Any) -> Path:
    """The journal of a run that waits for three answers."""
    path = desk.path()
    with pytest.raises(RunPaused):
        desk.run(shop, path=path)
    return path


@pytest.fixture
def store(path: Path) -> Any:
    store = JournalStore(path)
    yield store
    store.close()


def test_a_question_is_named_by_its_id_its_tool_or_its_place(store: Any, path: Path) -> None:
    run = rows(path)[0].id
    asks = unanswered(store, run)
    assert [ask["call"] for ask in asks] == [
        'send(to="bob")',
        'print_it(what="a")',
        'send(to="eve")',
    ]
    answer(store, run, asks[0]["question"], Answer("approve"))
    answer(store, run, "print_it", Answer("approve"))
    answer(store, run[:6], "$3", Answer("approve"))
    assert unanswered(store, run) == []


def test_the_only_one_left_needs_no_name(store: Any, path: Path) -> None:
    run = rows(path)[0].id
    answer(store, run, "$1", Answer("approve"))
    answer(store, run, "$2", Answer("approve"))
    assert answer(store, run, None, Answer("deny"))["call"] == 'send(to="eve")'


@pytest.mark.parametrize("name", [None, "send"])
def test_where_several_are_meant_they_are_listed(store: Any, path: Path, name: str | None) -> None:
    with pytest.raises(JournalError, match="several questions") as error:
        answer(store, rows(path)[0].id, name, Answer("approve"))
    assert '$1: send(to="bob")' in str(error.value)
    assert '$3: send(to="eve")' in str(error.value)


def test_what_is_not_asked_is_not_answered(store: Any, path: Path) -> None:
    with pytest.raises(JournalError, match=r"does not ask '\$9'; it asks\n  \$1: send"):
        answer(store, rows(path)[0].id, "$9", Answer("approve"))


def test_to_say_it_twice_is_harmless_and_to_change_it_is_refused(store: Any, path: Path) -> None:
    run = rows(path)[0].id
    for _ in range(2):
        answer(store, run, "$1", Answer("approve"))
        answer(store, run, "$2", Answer("deny", "no paper"))
        answer(store, run, "$2", Answer("deny", "as I said"))
    with pytest.raises(JournalError, match="answered with 'approve'"):
        answer(store, run, "$1", Answer("deny"))
    with pytest.raises(JournalError, match="answered with 'deny'"):
        answer(store, run, "$2", Answer("approve"))


def test_a_call_that_was_not_made_has_no_value(store: Any, path: Path) -> None:
    with pytest.raises(DefinitionError, match="has not been called"):
        answer(store, rows(path)[0].id, "$1", Answer("done", value=3))


def test_a_verdict_is_one_of_three() -> None:
    with pytest.raises(DefinitionError, match="approve, deny, done"):
        Answer("yes")  # type: ignore[arg-type]  # that is the point


def test_an_engine_answers_for_runs_that_rest(desk: Desk, shop: Any, path: Path) -> None:
    async def main() -> None:
        run = rows(path)[0].id
        async with Engine(journal=path) as engine:
            await engine.approve(run, "$1", by="eve")
            await engine.approve(run, "$3")
            await engine.deny(run, why="no paper")
            with pytest.raises(JournalError, match="asks nothing"):
                await engine.deny(run)
            with pytest.raises(RunFailed, match="no paper"):
                await engine.resume(run, shop)

    run_virtual(main())
    assert desk.made == []  # the denial ended the run before the others could begin


def test_an_engine_without_a_journal_knows_only_what_is_asked_now() -> None:
    async def main() -> None:
        async with Engine() as engine:
            with pytest.raises(DefinitionError, match="no journal"):
                await engine.approve("x-1")

    run_virtual(main())


def test_an_engine_without_a_journal_says_what_is_asked_now(shop: Any) -> None:
    async def thinks(_question: Any) -> bool:
        await asyncio.sleep(60.0)
        return False

    async def main() -> Any:
        async with Engine(approve=thinks) as engine:
            run = engine.start(shop)
            await asyncio.sleep(1)
            with pytest.raises(DefinitionError, match="several questions"):
                await engine.approve(run.id)
            for place in ("$1", "$2", "$3"):
                await engine.approve(run.id, place)
            return await run

    assert run_virtual(main()) == ["sent to bob", "printed a", "sent to eve"]
