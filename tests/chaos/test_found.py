"""What chaos found once: each in the few lines that show it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agentflow import Caching, Engine, Speculation, events, first, tool, workflow
from agentflow.caches.speculation.candidates import Candidate
from agentflow.caches.speculation.trail import Trail
from agentflow.errors import RunCancelled
from agentflow.testing import run_virtual


def test_a_pure_call_that_lost_a_race_is_made_when_it_is_asked_for_again() -> None:
    @tool(pure=True)
    async def quick() -> str:
        return "quick"

    @tool(pure=True)
    async def slow() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await asyncio.sleep(1)  # to end takes it a while
            raise
        return "slow"

    @workflow
    async def flow() -> list[str]:
        return [await first(quick(), slow()), await slow()]

    async def main() -> list[str]:
        async with Engine() as engine:
            return await engine.run(flow)

    assert run_virtual(main()) == ["quick", "slow"]


def test_a_run_can_be_cancelled_by_whoever_hears_that_its_plan_was_extended() -> None:
    began, heard = [], []

    @tool
    async def work() -> None:
        began.append("work")
        await asyncio.sleep(1)

    @workflow
    async def flow() -> None:
        await work()

    async def main() -> BaseException | None:
        async with Engine() as engine:

            def hear(event: events.Event) -> None:
                heard.append(event)
                if isinstance(event, events.PlanExtended):
                    run.cancel(reason="no")

            engine.subscribe(hear)
            run = engine.start(flow)
            [ended] = await asyncio.gather(run.result(), return_exceptions=True)
            return ended

    assert isinstance(run_virtual(main()), RunCancelled)
    assert began == []
    assert isinstance(heard[-1], events.RunCancelled)


def test_a_retry_does_not_wait_for_the_call_that_hung_because_others_still_do() -> None:
    calls = []

    @tool(pure=True, timeout=10, retries=1, backoff=0)
    async def ask() -> str:
        calls.append("call")
        await asyncio.sleep(1000 if len(calls) == 1 else 0)
        return "answer"

    @workflow
    async def flow(after: float) -> str:
        await asyncio.sleep(after)
        return await ask()

    async def main() -> list[Any]:
        async with Engine() as engine:
            return list(await asyncio.gather(engine.run(flow, 0.0), engine.run(flow, 5.0)))

    assert run_virtual(main()) == ["answer", "answer"]
    assert len(calls) == 2


class Insisting:
    """Proposes the same call again and again."""

    asked = 0

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        self.asked += 1
        calls = [Candidate("look", {"n": n}, 0.9, 0.9, "it insists") for n in range(4)]
        return calls if self.asked < 100 else []

    def learn(self, trail: Trail) -> None: ...

    def close(self, trail: Trail) -> None: ...


def test_a_guess_that_the_cache_has_no_room_for_is_not_made_again_at_once() -> None:
    looked = []

    @tool(pure=True)
    async def look(n: int) -> int:
        looked.append(n)
        await asyncio.sleep(0.5)
        return n

    @tool(pure=True)
    async def wait(n: int) -> int:
        await asyncio.sleep(n)
        return n

    @workflow
    async def flow() -> None:
        for n in range(20):
            await wait(n)

    async def main() -> None:
        speculation = Speculation(source=Insisting(), load_price=0)
        caching = Caching(memory=1500)
        async with Engine(tools=[look, wait], cache=caching, speculation=speculation) as engine:
            await engine.run(flow)

    run_virtual(main())

    assert sorted(looked) == [0, 1, 2, 3]
