"""The tool cache by itself: its two tiers, calls nobody has asked for yet, and epochs unknown."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable
from typing import Any

import pytest

from agentflow import tool
from agentflow.caches.epochs import Epochs
from agentflow.caches.keys import Keys
from agentflow.caches.memory import MemoryStore
from agentflow.caches.store import Entry
from agentflow.caches.tool_cache import Ask, Reused, ToolCache, reusable
from agentflow.clock import now, wall
from agentflow.tools.policy import Policy
from agentflow.tools.tool import Tool

pytestmark = pytest.mark.virtual

ORDERS = (("orders", "1"),)


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=name)


def cache(
    disk: MemoryStore | None = None, epochs: Epochs | None = None, memory: int = 1 << 20
) -> ToolCache:
    epochs = epochs or Epochs()
    return ToolCache(MemoryStore(memory), disk, epochs, spawn, random.Random(7))


@tool(reads="orders/{number}", version="1")
async def look(number: str = "1") -> Any: ...


@tool(pure=True, version="1")
async def pure() -> Any: ...


def ask(made: Tool[..., Any] = look, key: str = "key", **options: Any) -> Ask:
    reads = made.effect.kind == "reads"
    policy = Policy(**{"ttl": 60.0 if reads else None, **options})
    return Ask(key, Reused(made, policy, Keys(made)), ORDERS if reads else ())


class Call:
    """Takes ten seconds and gives how often it was made, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.made = 0
        self.error = error

    async def __call__(self) -> Any:
        self.made += 1
        number = self.made
        await asyncio.sleep(10)
        if self.error is not None:
            raise self.error
        return number


async def test_a_value_is_made_and_then_found() -> None:
    tools, call = cache(), Call()
    assert tools.find(ask()) is None
    assert not tools.has(ask())
    made = await tools.obtain(ask(), call)
    assert (made.value, made.source, made.seconds) == (1, "call", 10)
    found = await tools.obtain(ask(), call)
    assert (found.value, found.source, found.seconds) == (1, "memory", 10)
    assert found == tools.find(ask())
    assert tools.has(ask())


async def test_a_call_under_way_is_there_already_and_cannot_be_found_yet() -> None:
    tools, call = cache(), Call()
    first = asyncio.create_task(tools.obtain(ask(), call))
    await asyncio.sleep(4)
    assert tools.has(ask())
    assert tools.find(ask()) is None
    second = await tools.obtain(ask(), call)
    assert (second.value, second.source) == (1, "shared")
    assert second.seconds == pytest.approx(4)
    assert (await first).source == "call"


async def test_a_write_takes_away_what_was_found_and_what_was_under_way() -> None:
    tools, call = cache(), Call()
    await tools.obtain(ask(), call)
    tools.epochs.left([("orders", "2")])()
    assert tools.has(ask())
    tools.epochs.left([("orders",)])()
    assert not tools.has(ask())
    running = asyncio.create_task(tools.obtain(ask(), call))
    await asyncio.sleep(1)
    tools.epochs.left(ORDERS)()
    assert not tools.has(ask())
    assert (await tools.obtain(ask(), call)).value == 3
    assert (await running).value == 2
    assert (await tools.obtain(ask(), call)).value == 3


# Nobody has asked for it yet


async def test_a_guess_is_found_by_who_asks_and_counts_as_no_miss() -> None:
    tools, call = cache(), Call()
    await tools.obtain(ask(), call, optional=True)
    assert tools.stats.misses == 0
    assert (await tools.obtain(ask(), call)).source == "memory"
    assert call.made == 1


async def test_a_guess_that_fails_is_made_again_by_who_asks() -> None:
    tools, call = cache(), Call(OSError("guessed"))
    guess = asyncio.create_task(tools.obtain(ask(), call, optional=True))
    await asyncio.sleep(4)
    good = Call()
    assert (await tools.obtain(ask(), good)).value == 1
    assert (call.made, good.made, now()) == (1, 1, 20)
    with pytest.raises(OSError, match="guessed"):
        await guess


async def test_a_guess_that_makes_way_goes_on_for_who_has_joined_it() -> None:
    tools, call = cache(), Call()
    guess = asyncio.create_task(tools.obtain(ask(), call, optional=True))
    await asyncio.sleep(4)
    asked = asyncio.create_task(tools.obtain(ask(), call))
    await asyncio.sleep(1)
    guess.cancel()
    assert (await asked).value == 1
    assert now() == 10


# Two tiers


async def test_what_memory_has_lost_is_on_disk() -> None:
    disk, call = MemoryStore(), Call()
    await cache(disk).obtain(ask(pure), call)
    other = cache(disk)
    found = await other.obtain(ask(pure), call)
    assert (found.value, found.source, found.seconds, call.made) == (1, "disk", 10, 1)
    assert (await other.obtain(ask(pure), call)).source == "memory"


async def test_callers_of_one_moment_ask_the_disk_once() -> None:
    disk, call = MemoryStore(), Call()
    await cache(disk).obtain(ask(pure), call)
    asked = disk.stats().hits
    other = cache(disk)
    found = await asyncio.gather(*(other.obtain(ask(pure), call) for _ in range(3)))
    assert sorted(one.source for one in found) == ["disk", "shared", "shared"]
    assert disk.stats().hits == asked + 1


async def test_reads_of_other_epochs_are_not_taken_from_disk() -> None:
    disk, call = MemoryStore(), Call()
    await cache(disk).obtain(ask(), call)
    assert (await cache(disk).obtain(ask(), call)).value == 2


async def test_reads_without_a_lifetime_never_reach_the_disk() -> None:
    disk, call = MemoryStore(), Call()
    tools = cache(disk)
    await tools.obtain(ask(ttl=None), call)
    assert (await tools.obtain(ask(ttl=None), call)).source == "memory"
    assert disk.stats().entries == 0


@pytest.mark.parametrize("data", [b'"text"', b"{", b"\xff", b""])
async def test_an_entry_of_another_type_is_a_miss_in_both_tiers(data: bytes) -> None:
    @tool(pure=True, version="1")
    async def number() -> int:
        return 0

    disk, call = MemoryStore(), Call()
    tools = cache(disk)
    disk.put("key", Entry(data))
    assert (await tools.obtain(ask(number), call)).source == "call"
    tools.memory.put("key", Entry(data))
    assert tools.find(ask(number)) is None
    assert (await tools.obtain(ask(number), call)).value == 1


async def test_an_entry_lives_at_most_as_long_as_asked_and_not_much_shorter() -> None:
    async def quick() -> int:
        return 1

    disk = MemoryStore()
    tools, keys = cache(disk), [f"{number}" for number in range(50)]
    for key in keys:
        await tools.obtain(ask(pure, key, ttl=100.0), quick)
    kept = [entry for entry in await disk.get(keys) if entry is not None]
    left = [entry.expires - wall() for entry in kept if entry.expires is not None]
    assert len(left) == len(keys)
    assert all(89 < seconds <= 100 for seconds in left)
    assert max(left) - min(left) > 5


# Epochs that nobody knows


class Unreachable(Epochs):
    """A shared store that cannot be asked."""

    def now(self, resources: Iterable[Any]) -> None:
        return None

    async def look(self, resources: Iterable[Any]) -> None:
        return None


async def test_while_epochs_are_unknown_nothing_is_kept_or_shared_of_what_is_read() -> None:
    disk, call = MemoryStore(), Call()
    tools = cache(disk, Unreachable())
    found = await asyncio.gather(*(tools.obtain(ask(), call) for _ in range(2)))
    assert [(one.value, one.source, one.seconds) for one in found] == [
        (1, "call", 10),
        (2, "call", 10),
    ]
    assert (disk.stats().entries, tools.memory.stats().entries) == (0, 0)
    assert not tools.has(ask())
    assert tools.find(ask()) is None


async def test_while_epochs_are_unknown_pure_tools_are_not_affected() -> None:
    tools, call = cache(MemoryStore(), Unreachable()), Call()
    await tools.obtain(ask(pure), call)
    assert (await tools.obtain(ask(pure), call)).source == "memory"


# Failures


@pytest.mark.parametrize(
    ("options", "ttl", "may"),
    [
        ({"pure": True}, None, True),
        ({"reads": "web"}, None, True),
        ({"reads": "web"}, 60.0, True),
        ({"pure": True}, 0.0, False),
        ({"writes": "web"}, None, False),
        ({}, None, False),
    ],
)
def test_which_results_may_be_used_again(
    options: dict[str, Any], ttl: float | None, may: bool
) -> None:
    async def call() -> None: ...

    assert reusable(tool(**options)(call), Policy(ttl=ttl)) is may
