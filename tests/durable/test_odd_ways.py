"""Programs that go odd ways: they catch, time out, race, clean up, give what JSON does not keep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError

from agentflow import Engine, Limits, Task, _http, settled, tool, workflow
from agentflow.errors import HistoryMismatch, RunCancelled, RunError, RunFailed
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import ScriptedServer
from agentflow.testing.chat import ChatCall
from agentflow.testing.replies import Call
from tests.durable.conftest import records, rows

pytestmark = [pytest.mark.virtual, pytest.mark.anyio]

LONG = 1000.0
"""Seconds after which a run hangs."""


class World:
    """Tools that note when they are called.

    Attributes:
        calls: In order.
        broken: What fails.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken: set[str] = set()

        @tool(reads="shop")
        async def look(name: str, seconds: float = 1.0) -> str:
            self.calls.append(f"look {name}")
            await asyncio.sleep(seconds)
            if name in self.broken:
                raise LookupError(name)
            return name.upper()

        @tool(writes="mail")
        async def send(text: str) -> str:
            self.calls.append(f"send {text}")
            await asyncio.sleep(0.1)
            return text

        @tool(reads="web")
        async def odd(name: str = "", seconds: float = 0.1):  # type: ignore[no-untyped-def]  # it declares no result
            self.calls.append(f"odd {name}")
            await asyncio.sleep(seconds)
            return name, 2

        self.look, self.send, self.odd = look, send, odd


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def stopped(engine: Engine, target: Any, after: float, run: str = "") -> str:
    """Begin a run, or go on with it, and cancel it after some time; its id."""
    going = await engine.reopen(run, target) if run else engine.start(target)
    asyncio.get_running_loop().call_later(after, going.cancel)
    with pytest.raises(RunCancelled):
        await going
    await going.ended()
    return going.id


async def gone_on(engine: Engine, run: str, target: Any, **options: Any) -> Any:
    """Go on with a run, which must not hang; its value."""
    async with asyncio.timeout(LONG):
        return await engine.resume(run, target, **options)


async def test_a_failure_that_was_dealt_with_stays_one(world: World, path: Path) -> None:
    @workflow
    async def flow() -> list[str]:
        try:
            first = await world.look("bad")
        except LookupError:
            first = await world.look("instead")
        ends = await settled(world.look("worse"), world.look("good"))
        return [first, *(end.status for end in ends), await world.look("last")]

    world.broken = {"bad", "worse", "last"}
    async with Engine(journal=path) as engine:
        with pytest.raises(RunFailed):
            await engine.run(flow)
        world.broken, run = set(), rows(path)[0].id
        world.calls.clear()
        assert await gone_on(engine, run, flow) == ["INSTEAD", "failed", "done", "LAST"]
    assert world.calls == ["look last"]


async def test_a_program_may_go_another_way_behind_what_is_tried_again(
    world: World, path: Path
) -> None:
    @workflow
    async def flow() -> list[str]:
        try:
            return [await world.look("bad"), await world.look("then")]
        except LookupError:
            await world.send("alarm")
            raise

    world.broken = {"bad"}
    async with Engine(journal=path) as engine:
        with pytest.raises(RunFailed):
            await engine.run(flow)
        run = rows(path)[0].id
        with pytest.raises(RunFailed):
            await gone_on(engine, run, flow)
        assert world.calls.count("send alarm") == 1
        world.broken = set()
        run = await stopped(engine, flow, 1.5, run)
        assert await gone_on(engine, run, flow) == ["BAD", "THEN"]
    assert world.calls.count("send alarm") == 1


async def test_what_a_nested_run_failed_for_is_tried_again_within_it(
    world: World, path: Path
) -> None:
    @workflow
    async def inner(name: str) -> str:
        await world.send(name)
        return await world.look(name)

    @workflow
    async def flow() -> list[str]:
        return [await inner("a"), await inner("b")]

    world.broken = {"b"}
    async with Engine(journal=path) as engine:
        with pytest.raises(RunFailed):
            await engine.run(flow)
        world.broken = set()
        assert await gone_on(engine, rows(path)[0].id, flow) == ["A", "B"]
    assert world.calls == ["send a", "look a", "send b", "look b", "look b"]


@pytest.mark.parametrize("wait", ["timeout", "wait_for"])
async def test_a_call_that_its_program_gave_up_on_is_given_up_on_again(
    world: World, path: Path, wait: str
) -> None:
    @workflow
    async def flow() -> list[str]:
        try:
            if wait == "timeout":
                async with asyncio.timeout(1):
                    first = await world.look("slow", 5.0)
            else:
                first = await asyncio.wait_for(world.look("slow", 5.0), 1)
        except TimeoutError:
            first = await world.look("instead")
        return [first, await world.look("last")]

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 2.5)
        assert await gone_on(engine, run, flow) == ["INSTEAD", "LAST"]
    assert world.calls == ["look slow", "look instead", "look last", "look last"]


async def test_a_program_that_takes_its_time_between_calls_is_not_another_one(
    world: World, path: Path
) -> None:
    @workflow
    async def flow() -> list[str]:
        async def one() -> str:
            await asyncio.sleep(1)
            return await world.look("x", 10.0)

        async def two() -> str:
            await world.look("z", 2.0)
            await asyncio.sleep(0.1)
            return await world.look("w")

        return list(await asyncio.gather(one(), two()))

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 2.05)
        assert await gone_on(engine, run, flow) == ["X", "W"]


async def test_fewer_calls_are_refused_before_any_is_made(world: World, path: Path) -> None:
    def program(*names: str) -> Any:
        @workflow
        async def flow() -> list[str]:
            return list(await asyncio.gather(*(_of(world.send(name)) for name in names)))

        return flow

    async with Engine(journal=path, limits=Limits(grace=0)) as engine:
        run = await stopped(engine, program("a", "b"), 0.05)
        world.calls.clear()
        with pytest.raises(HistoryMismatch, match=r'send\("b"\)'):
            await gone_on(engine, run, program("a"), in_doubt="retry")
        assert world.calls == []


async def _of(handle: Any) -> Any:
    return await handle


async def test_a_refusal_leaves_no_trace_and_cannot_be_caught(world: World, path: Path) -> None:
    def program(name: str) -> Any:
        @workflow
        async def inner() -> str:
            return await world.look(name) + await world.look("b")

        @workflow
        async def flow() -> str:
            try:
                return await inner()
            except Exception:  # noqa: BLE001  # a refusal is not caught by this either
                return await world.send("alarm")

        return flow

    async with Engine(journal=path) as engine:
        run = await stopped(engine, program("a"), 1.5)
        with pytest.raises(HistoryMismatch):
            await gone_on(engine, run, program("a2"))
        assert await gone_on(engine, run, program("a")) == "AB"
    assert world.calls == ["look a", "look b", "look b"]


async def test_what_cleans_up_after_a_stop_does_so_again(world: World, path: Path) -> None:
    @workflow
    async def flow() -> str:
        try:
            return await world.look(await world.look("a"))
        finally:
            await world.send("clean")

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 1.5)
        assert await gone_on(engine, run, flow) == "A"
    assert world.calls == ["look a", "look A", "send clean", "look A", "send clean"]


async def test_a_value_that_was_lost_keeps_its_place_among_the_others(
    world: World, path: Path
) -> None:
    @workflow
    async def flow() -> list[str]:
        seen: list[str] = []

        async def branch(handle: Any, name: str) -> None:
            await handle
            seen.append(name)
            await world.look(f"{len(seen)} {name}", 0.2)

        one, two = world.odd("o", 0.1), world.look("l", 0.15)
        await asyncio.gather(branch(one, "odd"), branch(two, "look"))
        return [*seen, await world.look("last")]

    async with Engine(journal=path) as engine:
        run = ""
        for _ in range(3):
            run = await stopped(engine, flow, 0.8, run)
        assert await gone_on(engine, run, flow) == ["odd", "look", "LAST"]
    assert world.calls.count("look l") == world.calls.count("look 2 look") == 1


async def test_a_nested_run_whose_value_was_lost_does_nothing_twice(
    world: World, path: Path
) -> None:
    @workflow
    async def inner():  # type: ignore[no-untyped-def]  # it declares no result
        await world.send("in")
        return 1, 2

    @workflow
    async def flow() -> str:
        await inner()
        return await world.look("a")

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 0.6)
        assert await gone_on(engine, run, flow) == "A"
    assert world.calls == ["send in", "look a", "look a"]


async def test_a_run_that_a_task_calls_has_its_order(world: World, path: Path) -> None:
    @workflow
    async def race() -> list[str]:
        """Race."""
        order: list[str] = []

        async def branch(name: str, seconds: float) -> None:
            order.append(await world.look(name, seconds))
            if len(order) == 1:
                await world.send(order[0])

        await asyncio.gather(branch("slow", 0.3), branch("quick", 0.1))
        return [*order, await world.look("last")]

    def model(call: ChatCall) -> Any:
        turns = sum(message["role"] == "assistant" for message in call.messages)
        return ["Done."] if turns else [Call("race", {})]

    server = ScriptedServer(model)
    http = _http.client(transport=server.transport())
    backend = OpenAIBackend("http://scripted/v1", "tiny", http=http)
    async with Engine(model=backend, tools=[race], journal=path) as engine:
        run = await stopped(engine, Task("Who?", strategy="react"), 1.0)
        assert await gone_on(engine, run, None) == "Done."
    await http.aclose()
    await server.aclose()
    assert world.calls == ["look slow", "look quick", "send QUICK", "look last", "look last"]


class Shape(BaseModel):
    """Something to be validated."""

    sides: int


FAILURES: dict[str, Callable[[], object]] = {
    "pydantic": lambda: Shape.model_validate({"sides": "many"}),
    "file": lambda: open("/nowhere/at/all").close(),
    "group": lambda: (_ for _ in ()).throw(ExceptionGroup("several", [ValueError("one")])),
    "unicode": lambda: b"\xff".decode(),
    "key": lambda: dict[str, str]()["missing"],
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_of_any_type_is_caught_again(name: str, world: World, path: Path) -> None:
    @tool(reads="shop", limit=1)
    async def fail() -> str:
        world.calls.append("fail")
        FAILURES[name]()
        return ""

    caught = (ValidationError, OSError, ExceptionGroup, UnicodeError, KeyError)
    texts: list[str] = []

    @workflow
    async def flow() -> str:
        try:
            await fail()
        except caught as error:
            texts.append(str(error))
        return await world.look("a")

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 0.5)
        assert await gone_on(engine, run, flow) == "A"
    assert len(texts) == 2 and texts[0] == texts[1]


async def test_a_type_that_changes_what_it_reads_is_not_applied_twice(
    world: World, path: Path
) -> None:
    dollars = Annotated[float, BeforeValidator(lambda text: float(text.strip("$")))]
    loud = Annotated[str, AfterValidator(lambda text: f"{text}!")]

    @tool(pure=True)
    async def price() -> dollars:
        return "$12"  # type: ignore[return-value]  # its type reads it

    @tool(pure=True)
    async def shout() -> loud:
        return "hi"

    @workflow
    async def flow() -> list[Any]:
        return [await price(), await shout(), await world.look("a")]

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 0.5)
        assert await gone_on(engine, run, flow) == [12.0, "hi!", "A"]


@pytest.mark.parametrize("size", ["digits", "text", "failure"])
async def test_what_is_too_large_to_be_kept_costs_no_run_its_value(
    size: str, world: World, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentflow.executor.journal.journal.LARGEST", 200_000)

    @tool(reads="web")
    async def huge() -> Any:
        if size == "failure":
            raise LookupError("x" * 20_000_000)
        return 2**20_000 if size == "digits" else "x" * 200_000

    @workflow
    async def flow() -> str:
        with suppress(LookupError):
            await huge()
        return await world.look("a")

    async with Engine(journal=path) as engine:
        assert await engine.run(flow) == "A"
    ends = [record for record in records(path) if record["event"].startswith("node_f")]
    assert ends[0]["lost"] and "lost" not in ends[1]


async def test_a_smaller_engine_goes_on_too(world: World, path: Path) -> None:
    @workflow
    async def flow() -> list[str]:
        one, two = world.look("a", 5.0), [world.look(str(n), 0.5) for n in range(3)]
        return [*[await each for each in two], await world.look("b"), await one]

    async with Engine(journal=path, limits=Limits(run=4)) as engine:
        run = await stopped(engine, flow, 1.0)
    async with Engine(journal=path, limits=Limits(run=1)) as engine:
        assert await gone_on(engine, run, flow) == ["0", "1", "2", "B", "A"]


async def test_errors_of_a_run_say_what_is_wrong(world: World, path: Path) -> None:
    @workflow
    async def flow() -> str:
        return await world.look("a")

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 0.5)
        world.broken = {"a"}
        with pytest.raises(RunError, match="LookupError: a"):
            await gone_on(engine, run, flow)


async def test_all_that_a_run_failed_for_is_tried_again(world: World, path: Path) -> None:
    @workflow
    async def flow() -> list[Any]:
        ends = await settled(world.look("a"), world.look("b"), world.look("c"))
        if any(end.status == "failed" for end in ends):
            raise RuntimeError("not all of them")
        return [end.value for end in ends]

    world.broken = {"a", "c"}
    async with Engine(journal=path) as engine:
        with pytest.raises(RunFailed):
            await engine.run(flow)
        world.broken = set()
        assert await gone_on(engine, rows(path)[0].id, flow) == ["A", "B", "C"]
    assert sorted(world.calls[3:]) == ["look a", "look c"]


async def test_what_cleaned_up_after_a_stop_may_be_called_for_itself_later(
    world: World, path: Path
) -> None:
    @workflow
    async def flow() -> str:
        try:
            await world.look("a")
        finally:
            await world.send("clean")
        return await world.look("b")

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 0.5)
        run = await stopped(engine, flow, 1.5, run)
        assert await gone_on(engine, run, flow) == "B"
    assert world.calls == ["look a", "send clean", "look a", "send clean", "look b", "look b"]


async def test_a_lost_value_that_cannot_be_had_again_now_may_be_had_later(
    world: World, path: Path
) -> None:
    broken: list[bool] = []

    @tool(reads="web")
    async def odd():  # type: ignore[no-untyped-def]  # it declares no result
        if broken:
            raise LookupError(broken.pop())
        return 1, 2

    @workflow
    async def flow() -> str:
        try:
            await odd()
        except LookupError:
            return await world.look("instead")
        return await world.look("a")

    async with Engine(journal=path) as engine:
        run = await stopped(engine, flow, 0.5)
        broken.append(True)
        with pytest.raises(RunError):
            await gone_on(engine, run, flow)
        assert await gone_on(engine, run, flow) == "A"


async def test_a_tool_that_gives_another_type_now_is_refused(world: World, path: Path) -> None:
    def program(kind: type) -> Any:
        async def give():  # type: ignore[no-untyped-def]  # set below
            return kind("12")

        give.__annotations__["return"] = kind
        given = tool(pure=True)(give)

        @workflow
        async def flow() -> list[Any]:
            return [await given(), await world.look("a")]

        return flow

    async with Engine(journal=path) as engine:
        run = await stopped(engine, program(str), 0.5)
        with pytest.raises(HistoryMismatch, match="another type"):
            await gone_on(engine, run, program(int))
        assert await gone_on(engine, run, program(str)) == ["12", "A"]
