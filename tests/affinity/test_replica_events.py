"""Replicas that go down and come back, as runs and the log are told of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from agentflow import events
from agentflow.engine import Engine
from agentflow.llms import llm
from agentflow.testing import Fault
from agentflow.workflows import workflow

pytestmark = pytest.mark.virtual

TOLD = (events.ReplicaDown, events.ReplicaUp)


@llm(max_tokens=4)
async def say(number: int) -> str:
    """Say {number}."""
    raise NotImplementedError


@workflow
async def talks(turns: int) -> int:
    """Asks once a second."""
    for turn in range(turns):
        await say(turn)
        await asyncio.sleep(1.0)
    return turns


class Heard:
    """An engine over a pool, and what its runs were told of replicas."""

    def __init__(self, pool: Any) -> None:
        self.events: list[Any] = []
        self.engine = Engine(model=pool, subscribers=[self._take])

    def _take(self, event: events.Event) -> None:
        if isinstance(event, TOLD):
            self.events.append(event)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(type(event).__name__, event.replica) for event in self.events]


async def test_a_replica_that_dies_and_comes_back_is_told_of_once_each(world: Any) -> None:
    heard = Heard(world.pool("a"))
    loop = asyncio.get_running_loop()
    loop.call_later(2.5, world["a"].kill)
    loop.call_later(6.0, lambda: asyncio.ensure_future(world["a"].restart()))

    with capture_logs() as logged:
        await heard.engine.run(talks, 20)

    assert heard.told == [("ReplicaDown", "a"), ("ReplicaUp", "a")]
    down, up = heard.events
    assert "http://a/v1" in down.why
    assert up.seconds == pytest.approx(up.at - down.at)
    assert up.seconds > 3.0
    lines = [line for line in logged if "replica" in line]
    assert [(line["event"], line["replica"]) for line in lines] == [
        ("a replica is down", "a"),
        ("a replica is back", "a"),
    ]
    assert lines[0]["why"] == down.why


async def test_every_run_that_uses_the_pool_hears_and_no_other(world: Any) -> None:
    heard = Heard(world.pool("a"))
    await heard.engine.run(talks, 1)
    runs = [heard.engine.start(talks, 6) for _ in range(3)]
    await asyncio.sleep(1.5)
    world["a"].fail(Fault.status(500), times=3)
    await asyncio.gather(*runs)
    await heard.engine.run(talks, 1)

    downs, ups = ([e for e in heard.events if isinstance(e, kind)] for kind in TOLD)
    assert sorted(e.run for e in downs) == sorted(e.run for e in ups) == sorted(r.id for r in runs)


async def test_what_the_pool_leaves_nothing_alone_for_is_no_event(world: Any) -> None:
    heard = Heard(world.pool("ab"))
    for name in "ab":
        world[name].fail(Fault.status(500), times=1)
    await heard.engine.run(talks, 2)
    world["a"].fail(Fault.status(429), times=1)
    await heard.engine.run(talks, 2)

    assert len(world["a"].requests) + len(world["b"].requests) > 4
    assert heard.told == []


async def test_a_replica_that_fails_again_when_it_is_tried_was_down_all_the_time(
    world: Any,
) -> None:
    heard = Heard(world.pool("a"))
    world["a"].fail(Fault.status(500), times=5)
    await heard.engine.run(talks, 1)

    assert len(world["a"].requests) == 6
    assert heard.told == [("ReplicaDown", "a"), ("ReplicaUp", "a")]
