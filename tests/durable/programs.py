"""Workflows of all kinds, whose tools note what they do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from agentflow import Workflow, first, gather, quorum, settled, tool, workflow


@dataclass
class Item:
    """A value that is no plain JSON."""

    name: str
    count: int


class Programs:
    """Programs that share tools.

    Args:
        made: Gets the calls that begin.
        ended: Gets the calls that end by themselves.
    """

    def __init__(self, made: list[str], ended: list[str]) -> None:
        async def work(what: str, seconds: float) -> None:
            made.append(what)
            await asyncio.sleep(seconds)
            ended.append(what)

        @tool(pure=True)
        async def double(n: int) -> int:
            await work(f"double {n}", 0.1 * n)
            return 2 * n

        @tool(reads="shop/{name}")
        async def look(name: str) -> Item:
            await work(f"look {name}", 0.3)
            return Item(name, len(name))

        @tool(writes="shop/{name}", idempotent=True)
        async def put(name: str, count: int) -> None:
            await work(f"put {name} {count}", 0.2)

        @tool
        async def note(text: str, wait: float = 0.1) -> str:
            await work(f"note {text}", wait)
            return f"<{text}>"

        @tool(reads="web")
        async def fail(text: str) -> str:
            await work(f"fail {text}", 0.15)
            raise LookupError(text)

        @tool(pure=True)
        async def large(n: int) -> list[int]:
            await work(f"large {n}", 0.1)
            return list(range(n))

        @tool(pure=True, limit=1)
        async def narrow(n: int) -> int:
            await work(f"narrow {n}", 0.1 * n)
            if n == 2:
                raise ValueError(n)
            return -n

        self.narrow = narrow
        self.double, self.look, self.put, self.note = double, look, put, note
        self.fail, self.large = fail, large

    def all(self) -> dict[str, Workflow[[], Any]]:
        """Every program by name."""
        return {
            "chain": self.chain(),
            "branches": self.branches(),
            "races": self.races(),
            "maps": self.maps(),
            "failures": self.failures(),
            "nested": self.nested(),
            "waits": self.waits(),
            "queues": self.queues(),
        }

    def chain(self) -> Workflow[[], Any]:
        """One call after another, each of another kind."""

        @workflow
        async def chain() -> list[Any]:
            n = await self.double(2)
            item = await self.look("pear" * n)
            await self.put(item.name, item.count)
            text = await self.note(f"{item.count}")
            again = await self.note(f"{item.count}")
            return [n, item, text, again, len(await self.large(3000))]

        return chain

    def branches(self) -> Workflow[[], Any]:
        """What is called depends on values, in several branches at once."""

        @workflow
        async def branches() -> list[Any]:
            async def branch(n: int) -> str:
                value = await self.double(n)
                if value > 4:
                    return await self.note(f"big {value}")
                item = await self.look(f"small {value}")
                return await self.note(item.name)

            return list(await asyncio.gather(*(branch(n) for n in (3, 1, 2, 4))))

        return branches

    def races(self) -> Workflow[[], Any]:
        """Who is first decides what is called next."""

        @workflow
        async def races() -> list[Any]:
            winner = await first(self.note("slow", 0.9), self.note("quick", 0.2))
            two = await quorum(2, self.double(5), self.double(1), self.double(3))
            tasks = [asyncio.ensure_future(_of(self.note(f"t{n}", 0.1 * n))) for n in (3, 1, 2)]
            order = []
            while tasks:
                done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                tasks = list(rest)
                order += sorted(task.result() for task in done)
                await self.note(f"seen {len(order)} {order[-1]}", 0.05)
            return [winner, two, order]

        return races

    def maps(self) -> Workflow[[], Any]:
        """Maps over lists, over maps, and joined."""

        @workflow
        async def maps() -> list[Any]:
            doubled = self.double.map([3, 1, 2])
            noted = self.note.map(await gather(*[self.note(f"m{n}") for n in range(3)]))
            items = self.look.map([f"i{n}" for n in range(3)])
            names = self.note.map(items.each.name)
            return [await doubled, await noted, await names]

        return maps

    def failures(self) -> Workflow[[], Any]:
        """What fails is caught, and decides what is called next."""

        @workflow
        async def failures() -> list[Any]:
            try:
                await self.fail("one")
            except LookupError as error:
                text = await self.note(f"caught {error.args[0]}")
            ends = await settled(self.fail("two"), self.double(2))
            return [text, [end.status for end in ends], await self.double(len(ends))]

        return failures

    def nested(self) -> Workflow[[], Any]:
        """Workflows call workflows, the same one several times."""

        @workflow
        async def inner(n: int) -> int:
            await self.put(f"n{n}", n)
            return await self.double(n) + len(await self.note(f"in {n}"))

        @workflow
        async def outer() -> list[Any]:
            one, two = inner(1), inner(2)
            three = await inner(await one)
            return [await one, await two, three, await inner.map([4, 5])]

        return outer

    def queues(self) -> Workflow[[], Any]:
        """Calls that wait for room."""

        @workflow
        async def queues() -> list[Any]:
            ends = settled(*[self.narrow(n) for n in (3, 1, 2)])
            more: Any = self.narrow.with_(join="settled").map([4, 2, 5])
            sums = [end.value or 0 for end in await ends if end.status == "done"]
            return [sums, [end.value for end in await more], await self.narrow(sum(sums) + 10)]

        return queues

    def waits(self) -> Workflow[[], Any]:
        """The program itself takes its time between calls."""

        @workflow
        async def waits() -> list[Any]:
            async def late(seconds: float, text: str) -> str:
                await asyncio.sleep(seconds)
                return await self.note(text)

            one, two = await asyncio.gather(late(0.3, "late"), late(0.1, "early"))
            return [one, two, await self.double(1)]

        return waits


async def _of(handle: Any) -> Any:
    return await handle
