"""A run that goes on where results are kept, and where its conversation has to move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentflow import Budget, Engine, Pool, Task, events, llm, tool, workflow
from agentflow.budgets.ledger import NOTHING
from agentflow.errors import RunPaused
from agentflow.executor.run import Run
from agentflow.testing import Call, ModelledReplica, Serving, replay
from agentflow.testing.chat import ChatCall
from agentflow.testing.replies import Reply

SERVING = Serving(prefill=1000.0, step=0.01, capacity=20_000)


class Shop:
    """A tool whose results are kept and change with every call, and one that has to be approved."""

    def __init__(self, folder: Path) -> None:
        self.journal, self.cache = folder / "runs.db", folder / "cache"
        self.calls: list[str] = []
        self.told: list[events.Event] = []
        self.broken = False

        @tool(reads="web", ttl="1h", usd="0.05", version="1")
        async def look(key: str) -> str:
            self.calls.append(key)
            await asyncio.sleep(1.0)
            if self.broken:
                raise OSError("the web is away")
            return f"{key} of {len(self.calls)}"

        @tool(writes="mail", approve=True)
        async def send() -> str:
            return "sent"

        @workflow
        async def flow() -> list[str]:
            try:
                found = await look("a")
            except OSError as error:
                found = str(error)
            await send()
            return [found, str(await look("a")), str(await look("b"))]

        @workflow
        async def other(*keys: str) -> list[str]:
            return [str(await look(key)) for key in keys]

        self.look, self.send, self.flow, self.other = look, send, flow, other

    def engine(self, *, shared: bool = True, **options: Any) -> Engine:
        self.told.clear()
        options = {"journal": self.journal, **({"cache": self.cache} if shared else {}), **options}
        return Engine(seed=1, subscribers=[self.told.append], **options)

    async def begin(self, **options: Any) -> Run[Any]:
        """A run that rests before it sends, in an engine that is closed then."""
        async with self.engine(**options) as engine:
            run = engine.start(self.flow)
            with pytest.raises(RunPaused):
                await run
            await engine.approve(run.id)
        return run

    @property
    def sources(self) -> list[str]:
        return [event.source for event in self.told if isinstance(event, events.NodeReused)]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def spent(run: Run[Any]) -> str:
    assert run.ledger.reserved == NOTHING
    return f"{run.ledger.spent.usd:.2f}"


# Recorded results, and kept ones


async def test_what_was_recorded_wins_over_what_is_kept_and_what_was_not_may_come_from_there(
    shop: Shop,
) -> None:
    run = await shop.begin(shared=False)
    assert shop.calls == ["a"]
    async with shop.engine() as engine:  # another engine, that finds and keeps newer values
        assert await engine.run(shop.other, "a", "b") == ["a of 2", "b of 3"]

    async with shop.engine() as engine:
        again = await engine.reopen(run.id, shop.flow)
        assert await again == ["a of 1", "a of 2", "b of 3"]

    assert shop.calls == ["a", "a", "b"]
    assert sorted(shop.sources) == ["disk", "disk", "journal"]
    assert spent(again) == "0.05"  # what is kept costs nothing, and what was paid is not paid again


async def test_so_it_does_in_an_engine_that_is_still_warm(shop: Shop) -> None:
    async with shop.engine(shared=False) as engine:
        run = engine.start(shop.flow)
        with pytest.raises(RunPaused):
            await run
        await engine.changed("web")
        assert await engine.run(shop.other, "a") == ["a of 2"]
        await engine.approve(run.id)

        again = await engine.reopen(run.id, shop.flow)
        assert await again == ["a of 1", "a of 2", "b of 3"]
        assert sorted(shop.sources) == ["journal", "memory"]
        assert spent(again) == "0.10"
        assert engine.ledger.spent.usd == Decimal("0.15")


async def test_what_is_recalled_is_not_kept_as_if_it_had_been_read_now(shop: Shop) -> None:
    """Nobody knows what was written since."""
    run = await shop.begin(shared=False)
    async with shop.engine(shared=False) as engine:
        assert await engine.resume(run.id, shop.flow) == ["a of 1", "a of 2", "b of 3"]
        assert shop.sources == ["journal"]
        assert await engine.run(shop.other, "a") == ["a of 2"]


async def test_a_failure_that_was_dealt_with_stays_one_though_a_value_is_kept(shop: Shop) -> None:
    shop.broken = True
    run = await shop.begin(shared=False)
    shop.broken = False
    async with shop.engine() as engine:
        await engine.run(shop.other, "a", "b")
    async with shop.engine() as engine:
        found = await engine.resume(run.id, shop.flow)

    assert found == ["the web is away", "a of 2", "b of 3"]


async def test_a_call_that_is_tried_again_may_find_its_value_kept(shop: Shop) -> None:
    @workflow
    async def flow() -> str:
        return str(await shop.look("a"))

    shop.broken = True
    async with shop.engine(shared=False) as engine:
        run = engine.start(flow)
        with pytest.raises(Exception, match="the web is away"):
            await run
    shop.broken = False
    async with shop.engine() as engine:
        await engine.run(shop.other, "a")
    async with shop.engine() as engine:
        again = await engine.reopen(run.id, flow)
        assert await again == "a of 2"

    assert (shop.calls, shop.sources) == (["a", "a"], ["disk"])
    assert spent(again) == "0.05"  # of the attempt that failed


async def test_the_same_limits_hold_and_a_kept_value_needs_none_of_them(shop: Shop) -> None:
    limited = shop.flow.within(Budget(usd="0.05"))
    async with shop.engine(shared=False) as engine:
        run = engine.start(limited)
        with pytest.raises(RunPaused):
            await run
        await engine.approve(run.id)
    async with shop.engine() as engine:
        await engine.run(shop.other, "a", "b")
    async with shop.engine() as engine:
        again = await engine.reopen(run.id, limited)
        assert await again == ["a of 1", "a of 2", "b of 3"]
        assert spent(again) == "0.05" and again.ledger.left.usd == 0


async def test_a_model_call_is_replayed_like_any_other(tmp_path: Path) -> None:
    from tests.durable.test_replay import recorded
    from tests.engine.allocation.conftest import make_world

    @llm(model="small", max_tokens=20)
    async def who() -> str:
        """Name somebody."""
        raise AssertionError

    @workflow
    async def flow() -> list[str]:
        return [await who(), await who()]

    made = make_world({"small": ["ada", "bob"]}, journal=tmp_path / "runs.db")
    assert await made.engine.run(flow) == ["ada", "bob"]
    await made.aclose()

    seen = await asyncio.to_thread(lambda: replay(recorded(tmp_path / "runs.db"), flow))
    assert seen.whole and len(seen.calls) == 2


async def test_a_model_is_asked_again_only_when_all_of_the_past_is_known(tmp_path: Path) -> None:
    """Of another program it is refused before anything is paid."""
    from agentflow.errors import HistoryMismatch
    from tests.engine.allocation.conftest import make_world

    @llm(model="small", max_tokens=20)
    async def who() -> str:
        """Name somebody."""
        raise AssertionError

    @tool(reads="web", ttl=0)
    async def look(key: str) -> str:
        return key

    @tool(writes="mail", approve=True)
    async def send() -> str:
        return "sent"

    @workflow
    async def flow() -> Any:
        return [await look("a"), await send()]

    @workflow
    async def changed() -> Any:
        return [await who(), await look("a"), await send()]

    changed.name = flow.name
    made = make_world({}, journal=tmp_path / "runs.db")
    run = made.engine.start(flow)
    with pytest.raises(RunPaused):
        await run
    await made.aclose()

    made = make_world({}, journal=tmp_path / "runs.db")
    with pytest.raises(HistoryMismatch):
        await made.engine.resume(run.id, changed)
    assert made.models["small"].requests == []
    await made.aclose()


# A conversation that moves


class Servers:
    """Replicas of one model, and engines whose tasks ask them."""

    def __init__(self, folder: Path) -> None:
        from tests.affinity.conftest import World

        self.folder = folder
        self.world = World()
        self.sent = 0

        @tool(writes="mail", approve=True)
        async def send(text: str) -> str:
            self.sent += 1
            return f"sent {text}"

        self.send = send

    def replica(self, name: str, *, like: str = "") -> None:
        """A replica that joins, in place of any other of its name; `like` spoils its memory."""

        def say(call: ChatCall) -> Any:
            turns = sum(message["role"] == "assistant" for message in call.messages)
            word = "word " * 300
            calls = [Call("send", {"text": f"{turns} {word}"}, f"c{turns}")]
            return Reply(*calls) if turns < 2 else f"Answer: done{like}."

        self.world.hosts.replicas[name] = ModelledReplica(SERVING, say)

    def engine(self, *names: str) -> Engine:
        urls = [f"http://{name}/v1" for name in names]
        self.pool = Pool(urls, "modelled", http=self.world.http, patience=5.0)
        self.world.pools.append(self.pool)
        self.told: list[events.Event] = []
        return Engine(
            model=self.pool,
            tools=[self.send],
            journal=self.folder / "runs.db",
            subscribers=[self.told.append],
        )

    @property
    def replies(self) -> list[Any]:
        return [event for event in self.told if isinstance(event, events.ModelReplied)]

    def asked(self, name: str) -> int:
        return len(self.world[name].requests)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    made = Servers(tmp_path)
    yield made
    await made.world.aclose()


TASK = Task("Which?", strategy="react")


def tokens(servers: Servers) -> int:
    """What the replies took that were told of since the last engine was made."""
    return sum(reply.prompt_tokens + reply.completion_tokens for reply in servers.replies)


async def begin(servers: Servers, *names: str) -> tuple[Run[Any], int]:
    """A task that rests in its first turn, and what it took in tokens."""
    async with servers.engine(*names) as engine:
        run = engine.start(TASK)
        with pytest.raises(RunPaused):
            await run
        await engine.approve(run.id)
        assert run.ledger.spent.tokens == tokens(servers)
        return run, run.ledger.spent.tokens


async def go_on(servers: Servers, run: Run[Any], *names: str) -> tuple[str, Run[Any]]:
    """What the task comes to elsewhere; whoever is asked there says yes."""
    async with servers.engine(*names) as engine:
        while True:
            going = await engine.reopen(run.id)
            try:
                return await going, going
            except RunPaused:
                await engine.approve(run.id)


@pytest.mark.parametrize("names", [("b",), ("c", "b"), ("a", "b")])
async def test_a_conversation_goes_on_wherever_there_is_a_replica(
    servers: Servers, names: tuple[str, ...]
) -> None:
    """Its own may be gone, others new, or all may be there and know nothing any more."""
    servers.replica("a")
    run, before = await begin(servers, "a")
    for name in "abc":
        servers.replica(name)

    value, going = await go_on(servers, run, *names)

    assert value == "Answer: done."
    assert servers.sent == 2
    answered = [reply for reply in servers.replies if not reply.warmed]
    assert len(answered) == 2  # the turns that were not recorded
    assert going.ledger.spent.tokens == before + tokens(servers)
    assert going.ledger.reserved == NOTHING


async def test_nothing_is_known_of_what_replicas_held_for_the_process_before(
    servers: Servers,
) -> None:
    """The first request is computed in full, and counts as no move."""
    servers.replica("a")
    run, _ = await begin(servers, "a")
    servers.replica("b")
    servers.replica("c")

    await go_on(servers, run, "b", "c")

    first = next(reply for reply in servers.replies if not reply.warmed)
    assert not first.cached_tokens
    assert {reply.moved for reply in servers.replies} == {""}
    fleet = servers.pool._desk.dispatcher.fleet
    assert not [session for session in fleet.sessions if session.startswith(run.id)], "it is over"


async def test_the_answer_is_the_same_as_without_a_break(servers: Servers) -> None:
    servers.replica("a")

    run, _ = await begin(servers, "a")
    servers.replica("b")
    value, going = await go_on(servers, run, "b")

    assert value == "Answer: done."
    asked = servers.world["b"].requests
    first, second = [request for request in asked if request.body["max_tokens"] > 1]
    assert [m["role"] for m in first.body["messages"]][-2:] == ["assistant", "tool"]
    shown = second.body["messages"][: len(first.body["messages"])]
    assert shown == first.body["messages"], "one conversation, byte by byte"
    assert going.ledger.reserved == NOTHING
