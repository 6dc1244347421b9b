"""Joins, guards and maps in workflows."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from agentflow import Engine, first, gather, quorum, settled, tool, workflow
from agentflow.clock import now
from agentflow.errors import CallSkipped, DefinitionError, RunFailed
from agentflow.testing import Timeline

user: ContextVar[str] = ContextVar("user", default="nobody")


@tool
async def echo(value: Any) -> Any:
    return value


@tool
async def slow(value: Any, seconds: float = 1.0) -> Any:
    await asyncio.sleep(seconds)
    return value


@tool
async def boom(text: str = "boom", seconds: float = 0.0) -> Any:
    await asyncio.sleep(seconds)
    raise ValueError(text)


@tool(pure=True)
async def square(n: int) -> int:
    await asyncio.sleep(1)
    return n * n


async def test_the_join_helpers_do_what_their_names_say(engine: Engine) -> None:
    @workflow
    async def flow() -> list[Any]:
        return [
            await gather(slow(1), slow(2)),
            await first(slow("late", 5.0), slow("early", 1.0)),
            await quorum(2, slow("a", 3.0), slow("b", 9.0), slow("c", 1.0)),
            [outcome.ok for outcome in await settled(boom(), slow(1))],
        ]

    assert await engine.run(flow) == [[1, 2], "early", ["a", "c"], [False, True]]
    assert now() == 1 + 1 + 3 + 1


async def test_joins_pass_on_as_edges(engine: Engine) -> None:
    @workflow
    async def flow() -> Any:
        return await echo(first(slow("a", 2.0), slow("b", 1.0)).ref)

    assert await engine.run(flow) == "b"


async def test_losers_of_a_race_are_cancelled(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def runner(name: str, seconds: float) -> str:
        with line.span(name):
            await asyncio.sleep(seconds)
        return name

    @workflow
    async def flow() -> str:
        return await first(runner("a", 1.0), runner("b", 50.0))

    assert await engine.run(flow) == "a"
    assert line.at("b ended") == 1.0


async def test_a_loser_that_somebody_else_awaits_is_spared(engine: Engine) -> None:
    @workflow
    async def flow() -> list[Any]:
        late = slow("late", 5.0)

        async def wait() -> Any:
            return await late

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return [await first(late, slow("early", 1.0)), await waiting]

    assert await engine.run(flow) == ["early", "late"]


async def test_a_loser_that_was_asked_for_twice_is_spared(engine: Engine) -> None:
    @workflow
    async def flow() -> list[Any]:
        again = square(3)  # the same call as in the race
        return [await first(square(3), echo("early")), await again]

    assert await engine.run(flow) == ["early", 9]


@pytest.mark.parametrize("join", [gather, settled, first])
async def test_joins_take_handles_only(engine: Engine, join: Any) -> None:
    @workflow
    async def flow() -> None:
        handle = echo(1)
        with pytest.raises(DefinitionError, match="joins handles"):
            join(handle, 5)
        with pytest.raises(DefinitionError, match="joins handles"):
            join([handle])
        await handle

    await engine.run(flow)


def test_joins_belong_inside_a_workflow() -> None:
    with pytest.raises(DefinitionError, match="call it inside a workflow"):
        gather()


async def test_a_quorum_that_cannot_be_met_is_refused(engine: Engine) -> None:
    @workflow
    async def flow() -> None:
        handle = echo(1)
        for count in (0, 2):
            with pytest.raises(DefinitionError, match="cannot be met"):
                quorum(count, handle)
        await handle

    await engine.run(flow)


async def test_a_call_may_be_guarded_by_a_value_to_come(engine: Engine) -> None:
    @workflow
    async def flow(found: bool) -> list[Any]:
        page = slow({"found": found})
        guarded = echo.with_(when=page.ref["found"])("yes")
        outcomes = await settled(guarded, echo(guarded.ref))
        return [outcome.status for outcome in outcomes]

    assert await engine.run(flow, True) == ["done", "done"]
    assert await engine.run(flow, False) == ["skipped", "skipped"]


async def test_awaiting_a_skipped_call_raises(engine: Engine) -> None:
    @workflow
    async def flow() -> None:
        with pytest.raises(CallSkipped):
            await echo.with_(when=echo(False).ref)(1)

    await engine.run(flow)


async def test_a_guard_is_a_handle(engine: Engine) -> None:
    @workflow
    async def flow() -> None:
        echo.with_(when=True)(1)

    with pytest.raises(RunFailed, match="when= takes a handle"):
        await engine.run(flow)


async def test_a_skipped_value_is_none_only_where_none_is_the_whole_argument(
    engine: Engine,
) -> None:
    @tool
    async def maybe(value: int | None) -> str:
        return f"got {value}"

    @tool
    async def listed(value: list[int | None]) -> str:
        return f"got {value}"

    @workflow
    async def flow() -> list[Any]:
        skipped = square.with_(when=echo(0).ref)(2)
        outcomes = await settled(
            maybe(skipped.ref), maybe(skipped.ref.real), listed([skipped.ref]),
            maybe.map(skipped.ref), echo.with_(when=skipped.ref)(1),
        )  # fmt: skip
        return [outcome.value if outcome.ok else outcome.status for outcome in outcomes]

    assert await engine.run(flow) == ["got None", "skipped", "skipped", "skipped", "skipped"]


async def test_a_map_calls_once_for_every_element(engine: Engine) -> None:
    @workflow
    async def flow() -> list[Any]:
        numbers = echo([1, 2, 3])
        return await gather(
            square.map(numbers.ref), square.map(numbers.each), square.map([4, 5]),
            square.map([echo(6).ref, 7]), square.map(range(2)), square.map(n=numbers.each),
        )  # fmt: skip

    assert await engine.run(flow) == [
        [1, 4, 9], [1, 4, 9], [16, 25], [36, 49], [0, 1], [1, 4, 9],
    ]  # fmt: skip


async def test_maps_take_fields_of_elements_and_go_in_step(engine: Engine) -> None:
    @tool
    async def pair(a: Any, b: Any, c: Any = None) -> Any:
        return [a, b, c]

    @workflow
    async def flow() -> Any:
        pages = echo([{"u": 1, "v": 2}, {"u": 3, "v": 4}])
        return await pair.map(pages.each["u"], b=pages.each["v"], c="same")

    assert await engine.run(flow) == [[1, 2, "same"], [3, 4, "same"]]


async def test_a_map_over_a_map_runs_element_by_element(engine: Engine) -> None:
    @tool
    async def stage(n: float) -> float:
        await asyncio.sleep(n)
        return n

    @workflow
    async def flow() -> list[float]:
        return await stage.map(stage.map([1.0, 10.0]).ref)

    assert await engine.run(flow) == [1.0, 10.0]
    assert now() == 20.0


async def test_a_map_may_be_content_with_less_than_all(engine: Engine) -> None:
    @tool
    async def shaky(n: int) -> int:
        await asyncio.sleep(n)
        if n % 2:
            raise ValueError(n)
        return n

    @workflow
    async def flow() -> list[Any]:
        outcomes: list[Any] = [*await shaky.with_(join="settled").map([1, 2])]
        return [
            [outcome.status for outcome in outcomes],
            await shaky.with_(join="first").map([1, 2, 4]),
            await shaky.with_(join="quorum(2)").map([8, 2, 4]),
        ]

    assert await engine.run(flow) == [["failed", "done"], 2, [2, 4]]


async def test_a_map_needs_something_to_go_over(engine: Engine) -> None:
    @workflow
    async def flow() -> None:
        for value in (5, "text", {"a": 1}, None):
            with pytest.raises(DefinitionError, match="needs a list or a handle"):
                square.map(value)  # type: ignore[arg-type]  # meant

    await engine.run(flow)


@pytest.mark.parametrize("policy", ["most", "quorum(0)", "quorum(x)", "quorum", "ALL"])
async def test_an_unknown_join_policy_is_refused(engine: Engine, policy: str) -> None:
    @workflow
    async def flow() -> None:
        square.with_(join=policy).map([1])

    with pytest.raises(RunFailed, match="is not a join policy"):
        await engine.run(flow)
