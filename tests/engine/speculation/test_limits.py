"""What is never guessed at, when a guess is worth it, and whom it gives way to."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Budget, Context, Engine, Limits, events, tool, workflow
from agentflow.errors import RunFailed
from agentflow.planner.plan import Node, Plan


@workflow
async def idle(seconds: float) -> None:
    await asyncio.sleep(seconds)


class Session:
    """The business of one run."""

    def __init__(self, name: str, lab: Any) -> None:
        self.name = name
        self.lab = lab

    async def search(self, query: str) -> str:
        return str(await self.lab.work(f"{self.name} {query}", 0.1))


# What is never guessed at


@pytest.mark.parametrize(
    "kind",
    [
        {"writes": "web"},
        {"writes": "web", "idempotent": True},
        {},
        {"reads": "web", "ttl": 0},
    ],
)
async def test_only_calls_that_may_be_repeated_unseen_are_guessed_at(
    lab: Any, maybe: Any, kind: dict[str, Any]
) -> None:
    @tool(**kind)
    async def act(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("act", query="x"), tools=[act])

    await engine.run(idle, 5.0)

    assert lab.calls == []


@pytest.mark.parametrize(
    "arguments", [{}, {"query": 3}, {"query": "x", "more": 1}, {"query": "x", "self": None}]
)
async def test_calls_that_could_not_be_made_are_not_guessed_at(
    lab: Any, maybe: Any, arguments: dict[str, Any]
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", **arguments), maybe("nothing", query="x"), tools=[search])

    await engine.run(idle, 5.0)

    assert lab.calls == []
    assert lab.told(events.CallPredicted) == []


async def test_a_result_that_cannot_be_kept_is_guessed_at_only_once(lab: Any, maybe: Any) -> None:
    @tool(pure=True)
    async def odd(query: str) -> object:
        await lab.work(query)
        return object()

    engine = lab.start(maybe("odd", query="x"), maybe("odd", query="y"), tools=[odd], breadth=1)

    await engine.run(idle, 9.0)
    await engine.run(idle, 9.0)

    assert lab.calls == ["x"]
    assert lab.wasted() == ["its result cannot be kept"]


async def test_a_run_guesses_with_its_own_tools_only(lab: Any, maybe: Any) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    @tool(pure=True)
    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)

    engine = lab.start(maybe("search", query="x"), tools=[search])

    await engine.run(Plan((Node("wait", (3.0,)), Node("wait", (4.0,)))), tools=[wait])

    assert lab.calls == []


async def test_a_workflow_guesses_with_the_tools_that_it_called_before(
    lab: Any, maybe: Any, notes: list[str]
) -> None:
    engine = lab.start(maybe("noted", query="x"))

    @workflow
    async def ask(query: str) -> None:
        await asyncio.sleep(1)
        await noted(query)

    await engine.run(ask, "a")
    notes.clear()
    run = engine.start(ask, "b")
    await asyncio.sleep(0.5)

    assert notes == ["x"]
    await run


@pytest.mark.parametrize("bound", [True, False])
async def test_a_tool_that_belongs_to_one_run_alone_is_not_used_by_others(
    lab: Any, maybe: Any, bound: bool
) -> None:
    @workflow
    async def ask(name: str) -> None:
        session = Session(name, lab)

        async def search(query: str) -> str:
            return await session.search(query)

        await asyncio.sleep(1)
        await tool(reads="web")(session.search if bound else search)("a")
        await asyncio.sleep(1)

    engine = lab.start(maybe("search", query="x"))

    await engine.run(ask, "one")
    await engine.run(ask, "two")

    assert lab.calls == ["one a", "one x", "two a", "two x"]


async def test_only_origins_of_this_run_and_allowed_ones_are_contacted(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web")
    async def fetch(url: str, note: str = "") -> str:
        return str(await lab.work(url, 0.1))

    @workflow
    async def ask() -> None:
        await asyncio.sleep(1)
        await fetch("https://seen.example/1")
        await asyncio.sleep(1)

    urls = [
        "https://seen.example/2",
        "https://ok.example/1",
        "https://evil.example/1",
        "http://seen.example/1",
        "https://seen.example@evil.example/1",
        "https://seen.example:8443/1",
    ]
    guesses = [maybe("fetch", url=url) for url in urls]
    hidden = maybe("fetch", url="none", note="and https://evil.example/2")
    engine = lab.start(*guesses, hidden, tools=[fetch], origins=("https://ok.example",))

    await engine.run(ask)

    assert lab.calls == ["https://ok.example/1", "https://seen.example/1", "https://seen.example/2"]


async def test_a_guess_has_no_place_in_the_run(lab: Any, maybe: Any) -> None:
    seen: list[Context] = []

    @tool(reads="web")
    async def search(query: str, context: Context) -> str:
        seen.append(context)
        context.emit("half")
        return query

    engine = lab.start(maybe("search", query="x"), tools=[search])

    await engine.run(idle, 1.0)

    assert [context.idempotency_key for context in seen] == [""]
    assert lab.told(events.NodeEmitted) == []


# When a guess is worth it


@pytest.mark.parametrize(
    ("probability", "prices", "worth"),
    [
        (0.5, {}, True),
        (0.01, {}, False),
        (0.0, {}, False),
        (0.5, {"load_price": 0.1}, False),
        (0.5, {"wait_price": 0.0001}, False),
        (0.5, {"wait_price": 0.1, "load_price": 0.05}, True),
    ],
)
async def test_a_guess_is_made_if_it_gains_more_than_it_costs(
    lab: Any, maybe: Any, probability: float, prices: dict[str, float], worth: bool
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", probability, query="x"), tools=[search], **prices)

    await engine.run(idle, 5.0)

    assert lab.calls == (["x"] if worth else [])


async def test_a_call_that_takes_no_time_is_not_worth_a_guess(lab: Any, maybe: Any) -> None:
    @tool(pure=True)
    async def quick(query: str) -> str:
        lab.made.append((query, 0.0))
        return query

    @workflow
    async def ask() -> None:
        await quick("a")
        await asyncio.sleep(1)

    engine = lab.start(tools=[quick])
    await engine.run(ask)
    engine.services.foresight._source.says = [maybe("quick", query="x")]

    await engine.run(ask)

    assert lab.calls == ["a"]


async def test_a_dear_call_needs_a_likely_guess(lab: Any, maybe: Any) -> None:
    @tool(reads="web", usd="0.05")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    unlikely, likely = maybe("search", 0.5, query="x"), maybe("search", 0.99, query="y")
    engine = lab.start(unlikely, likely, tools=[search])

    await engine.run(idle, 5.0)

    assert lab.calls == ["y"]


async def test_a_rate_limit_makes_a_guess_cost_the_wait_of_the_next_call(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", rate="1/m")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", query="x"), tools=[search])

    await engine.run(idle, 5.0)

    assert lab.calls == []


async def test_no_more_guesses_are_under_way_than_the_breadth(lab: Any, maybe: Any) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(
        *[maybe("search", 0.5 + n / 10, query=str(n)) for n in range(5)],
        tools=[search],
        breadth=3,
    )

    await engine.run(idle, 3.0)

    assert lab.made == [("4", 0.0), ("3", 0.0), ("2", 0.0), ("1", 2.0), ("0", 2.0)]


async def test_a_source_that_always_has_another_guess_is_asked_once_for_each_thing_that_happens(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    number = iter(range(1000))

    @tool(pure=True)
    async def quick(n: int) -> int:
        lab.made.append((str(n), 0.0))
        return n

    source = scripted(after=lambda trail: [maybe("quick", n=next(number))])
    engine = lab.start(source, tools=[quick], depth=1)

    await engine.run(idle, 1.0)

    assert lab.calls == ["0"]


async def test_guesses_that_rest_on_others_are_given_up_when_they_never_come_true(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query, 1.0))

    @workflow
    async def ask() -> None:
        await asyncio.sleep(1.5)
        await search("x")
        await asyncio.sleep(1.5)

    def after(trail: Any) -> list[Any]:
        return [maybe("search", query="x" if not trail.length else f"y{len(lab.made)}")]

    engine = lab.start(scripted(after=after), tools=[search])
    depths = []
    for _ in range(40):
        lab.made.clear()
        await engine.run(ask)
        depths.append(len(lab.calls))

    assert depths[0] > depths[-1]


# Money


@pytest.fixture
def dear(lab: Any) -> Any:
    @tool(reads="web", usd="0.01")
    async def dear(query: str) -> str:
        return str(await lab.work(query))

    return dear


@workflow
async def buy(seconds: float, tool: Any, query: str) -> Any:
    await asyncio.sleep(seconds)
    return await tool(query)


@pytest.mark.parametrize("seconds", [1.0, 5.0])
async def test_the_run_pays_once_for_a_guess_that_it_uses(
    lab: Any, maybe: Any, dear: Any, seconds: float
) -> None:
    engine = lab.start(maybe("dear", query="x"), tools=[dear], budget=Budget(usd=1))
    run = engine.start(buy, seconds, dear, "x")

    assert await run == "X"

    assert lab.calls == ["x"]
    assert run.ledger.spent.usd == engine.ledger.spent.usd == Decimal("0.01")


@pytest.mark.parametrize("seconds", [1.0, 5.0])
async def test_the_run_pays_nothing_for_a_guess_in_vain(
    lab: Any, maybe: Any, dear: Any, seconds: float
) -> None:
    engine = lab.start(maybe("dear", query="y"), tools=[dear])
    run = engine.start(idle, seconds)

    await run
    await asyncio.sleep(1)

    assert run.ledger.spent.usd == 0
    assert engine.ledger.spent.usd == Decimal("0.01")
    (wasted,) = lab.told(events.SpeculationWasted)
    assert wasted.usd == "0.01"


async def test_a_call_that_cannot_pay_does_not_get_a_guess_for_nothing(
    lab: Any, maybe: Any, dear: Any
) -> None:
    @workflow(budget=Budget(usd=0.001))
    async def poor() -> Any:
        await asyncio.sleep(5)
        return await dear("x")

    engine = lab.start(maybe("dear", query="x"), tools=[dear])

    with pytest.raises(RunFailed, match="do not fit"):
        await engine.run(poor)

    assert engine.ledger.spent.usd == Decimal("0.01")


async def test_a_guess_that_fails_is_paid_for_though_a_call_had_taken_it_over(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", usd="0.01")
    async def dear(query: str) -> str:
        await lab.work(query)
        if len(lab.made) == 1:
            raise OSError
        return "fine"

    engine = lab.start(maybe("dear", query="x"), tools=[dear])
    run = engine.start(buy, 1.0, dear, "x")

    assert await run == "fine"

    assert run.ledger.spent.usd == Decimal("0.01")
    assert engine.ledger.spent.usd == Decimal("0.02")


async def test_the_budget_of_guesses_holds_under_concurrency(
    lab: Any, maybe: Any, dear: Any
) -> None:
    guesses = [maybe("dear", query=str(n)) for n in range(8)]
    engine = lab.start(*guesses, tools=[dear], budget=Budget(usd="0.03"))

    await asyncio.gather(*(engine.run(idle, 5.0) for _ in range(3)))

    assert len(lab.calls) == 3


async def test_a_guess_that_is_used_makes_room_in_the_budget_for_another(
    lab: Any, maybe: Any, dear: Any
) -> None:
    guesses = [maybe("dear", 0.95, query="x"), maybe("dear", query="y")]
    engine = lab.start(*guesses, tools=[dear], budget=Budget(usd="0.01"))

    @workflow
    async def ask() -> list[str]:
        await asyncio.sleep(3)
        one = await dear("x")
        await asyncio.sleep(3)
        return [one, await dear("y")]

    assert await engine.run(ask) == ["X", "Y"]

    assert lab.used() == [2.0, 2.0]


# Giving way


@pytest.fixture
def narrow(lab: Any) -> Any:
    @tool(reads="web", limit=1)
    async def narrow(query: str) -> str:
        return str(await lab.work(query))

    return narrow


async def test_a_guess_makes_way_at_once_for_a_call_that_needs_its_place(
    lab: Any, maybe: Any, narrow: Any
) -> None:
    engine = lab.start(maybe("narrow", query="y"), tools=[narrow])

    assert await engine.run(buy, 1.0, narrow, "x") == "X"

    assert lab.made[:2] == [("y", 0.0), ("x", 1.0)]
    assert lab.cut[0] == "y"
    assert lab.wasted()[0] == "it made way for a call"


async def test_the_guess_at_a_call_does_not_make_way_for_that_call(
    lab: Any, maybe: Any, narrow: Any
) -> None:
    engine = lab.start(maybe("narrow", query="x"), tools=[narrow])

    assert await engine.run(buy, 1.0, narrow, "x") == "X"

    assert lab.made == [("x", 0.0)]
    assert lab.used() == [1.0]


async def test_the_guess_that_is_worth_least_makes_way(lab: Any, maybe: Any) -> None:
    @tool(reads="web", limit=2)
    async def pair(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("pair", 0.9, query="y"), maybe("pair", 0.5, query="z"), tools=[pair])

    await engine.run(buy, 1.0, pair, "x")

    assert lab.cut[0] == "z"


async def test_calls_that_start_together_do_not_share_the_place_of_one_guess(
    lab: Any, maybe: Any, narrow: Any
) -> None:
    @workflow
    async def ask() -> list[str]:
        await asyncio.sleep(1)
        one, other = narrow("a"), narrow("b")
        return [await one, await other]

    engine = lab.start(maybe("narrow", query="y"), tools=[narrow])

    assert await engine.run(ask) == ["A", "B"]

    assert lab.made[:3] == [("y", 0.0), ("a", 1.0), ("b", 3.0)]


async def test_a_guess_at_a_full_gate_waits_and_is_overtaken_by_its_call(
    lab: Any, maybe: Any, narrow: Any
) -> None:
    @workflow
    async def ask() -> list[str]:
        one = narrow("a")
        await asyncio.sleep(1)
        other = narrow("x")
        return [await one, await other]

    engine = lab.start(maybe("narrow", query="x"), tools=[narrow])

    assert await engine.run(ask) == ["A", "X"]

    assert lab.made[-2:] == [("a", 0.0), ("x", 2.0)]
    told = lab.told(events.SpeculationOvertaken)
    assert [event.number for event in told] == [lab.told(events.CallPredicted)[-1].number]


async def test_no_guess_starts_while_calls_wait_for_a_place_in_the_run(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    @workflow
    async def ask() -> None:
        handles = [search(str(n)) for n in range(3)]
        for handle in handles:
            await handle
        await asyncio.sleep(5)

    source = scripted(after=lambda trail: [maybe("search", query="x")] if trail.length else [])
    engine = lab.start(source, tools=[search], limits=Limits(run=1))

    await engine.run(ask)

    assert lab.made == [("0", 0.0), ("1", 2.0), ("2", 4.0), ("x", 4.0)]


async def test_a_rate_limited_call_takes_a_guess_over_without_a_turn_of_its_own(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", rate="1/s")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", 0.95, query="x"), tools=[search])

    await engine.run(buy, 0.5, search, "x")

    assert asyncio.get_running_loop().time() == 2.0


async def test_a_guess_that_finds_no_turn_at_a_rate_limit_does_not_use_one_up(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web", rate="1/s")
    async def search(query: str) -> str:
        return str(await lab.work(query, 0.1))

    @workflow
    async def ask() -> None:
        await search("a")
        await asyncio.sleep(0.4)
        await search("b")

    def after(trail: Any) -> list[Any]:
        return [maybe("search", 0.99, query="x")] if trail.length == 1 else []

    engine = lab.start(scripted(after=after), tools=[search])

    await engine.run(ask)

    assert lab.made == [("a", 0.0), ("b", 1.0)]


async def test_guesses_leave_half_of_the_threads_alone(lab: Any, maybe: Any) -> None:
    busy: list[int] = []
    done: list[int] = []
    go = threading.Event()

    @tool(reads="web")
    def block(n: int) -> int:
        busy.append(n)
        go.wait(5)
        done.append(n)
        return n

    @workflow
    async def ask() -> None:
        while len(busy) < 2:
            await asyncio.to_thread(lambda: None)
        for _ in range(20):
            await asyncio.sleep(0)
        go.set()
        while len(done) < len(busy):
            await asyncio.to_thread(lambda: None)

    engine = lab.start(
        *[maybe("block", n=n) for n in range(6)], tools=[block], limits=Limits(threads=4)
    )

    await engine.run(ask)

    assert len(busy) <= 3


# Staleness


async def test_a_guess_whose_resource_was_written_since_is_not_used(lab: Any, maybe: Any) -> None:
    stock = {"x": "old"}

    @tool(reads="stock/{key}")
    async def look(key: str) -> str:
        found = stock[key]
        await lab.work(key)
        return found

    @tool(writes="stock/{key}")
    async def put(key: str, value: str) -> None:
        stock[key] = value

    @workflow
    async def ask() -> str:
        await asyncio.sleep(3)
        await put("x", "new")
        return await look("x")

    engine = lab.start(maybe("look", query="no"), maybe("look", key="x"), tools=[look])

    assert await engine.run(ask) == "new"

    assert lab.wasted()[0] == "what it read has been written since"


async def test_a_guess_under_way_during_a_write_is_not_used_but_made_anew(
    lab: Any, maybe: Any
) -> None:
    stock = {"x": "old"}

    @tool(reads="stock/{key}")
    async def look(key: str) -> str:
        found = stock[key]
        await lab.work(key)
        return found

    @tool(writes="stock/{key}")
    async def put(key: str, value: str) -> None:
        stock[key] = value

    @workflow
    async def ask() -> str:
        await asyncio.sleep(1)
        await put("x", "new")
        await asyncio.sleep(9)
        return await look("x")

    engine = lab.start(maybe("look", key="x"), tools=[look])

    assert await engine.run(ask) == "new"

    assert lab.made == [("x", 0.0), ("x", 2.0)]
    assert lab.used() == [2.0]


# The source


async def test_a_source_that_raises_is_dropped_with_one_warning_and_harms_nothing(
    lab: Any, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def oops(trail: Any) -> Any:
        raise RuntimeError("no idea")

    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(scripted(after=oops), tools=[search])

    assert await engine.run(buy, 1.0, search, "x") == "X"
    assert await engine.run(buy, 1.0, search, "x") == "X"

    assert capsys.readouterr().out.count("no more speculation") == 1


@pytest.mark.parametrize("probability", [float("nan"), -0.5, 1.5, "high", None])
async def test_a_source_that_names_no_proper_candidates_is_dropped(
    lab: Any, maybe: Any, probability: Any
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", probability, query="y"), tools=[search])

    assert await engine.run(buy, 1.0, search, "x") == "X"

    assert lab.calls == ["x"]


async def test_what_a_tool_does_to_its_arguments_does_not_change_the_candidate(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web")
    async def pick(items: Any) -> str:
        items.append("more")
        return str(await lab.work(str(len(items)), 0.5))

    source = scripted(maybe("pick", items=["a"]))
    engine = lab.start(source, tools=[pick])

    await engine.run(idle, 1.0)

    assert source.says[0].arguments == {"items": ["a"]}
    assert lab.told(events.CallPredicted)[0].arguments == {"items": ["a"]}


noted_calls: list[str] = []


@tool(reads="web")
async def noted(query: str) -> str:
    noted_calls.append(query)
    await asyncio.sleep(0.1)
    return query


@pytest.fixture
def notes() -> list[str]:
    noted_calls.clear()
    return noted_calls


def test_an_engine_takes_a_policy_or_yes_or_no() -> None:
    assert Engine(speculation=False).services.foresight is None
    assert Engine(speculation=True).services.foresight is not None
