"""LlamaIndex Workflows: a step that loops, or one that maps a list of events and joins it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from shapes import Run, Shape, call
from workflows import Workflow, step
from workflows.collect import Collect
from workflows.events import Event, StartEvent, StopEvent


class Next(Event):
    """The value of a node of the chain."""

    node: int
    value: int


class Item(Event):
    """A node to run, with the values it takes."""

    level: int
    node: int
    taken: list[int]


class Done(Event):
    """The value of a node."""

    level: int
    node: int
    value: int


def sequence(shape: Shape) -> type[Workflow]:
    """A step that sends itself the next event."""

    class Chain(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Next:
            return Next(node=0, value=await call(shape, 0, ()))

        @step
        async def go(self, ev: Next) -> Next | StopEvent:
            if ev.node + 1 == len(shape.needs):
                return StopEvent(result=ev.value)
            return Next(node=ev.node + 1, value=await call(shape, ev.node + 1, [ev.value]))

    return Chain


def waves(shape: Shape) -> type[Workflow]:
    """A list of events is mapped over a step with enough workers, and collected again."""

    def wave(level: int, values: dict[int, int]) -> list[Item]:
        return [
            Item(level=level, node=node, taken=[values[other] for other in shape.needs[node]])
            for node in shape.levels[level]
        ]

    class Waves(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return wave(0, {})

        @step(num_workers=1_000)
        async def work(self, ev: Item) -> Done:
            value = await call(shape, ev.node, ev.taken)
            return Done(level=ev.level, node=ev.node, value=value)

        @step
        async def join(self, done: Annotated[list[Done], Collect()]) -> list[Item] | StopEvent:
            values = {ev.node: ev.value for ev in done}
            if done[0].level + 1 == len(shape.levels):
                return StopEvent(result=sum(values.values()))
            return wave(done[0].level + 1, values)

    return Waves


@asynccontextmanager
async def engine(shape: Shape) -> AsyncIterator[Run]:
    """A workflow object is made once; `run` is what runs."""
    made: Any = sequence(shape) if len(shape.levels) == len(shape.needs) else waves(shape)
    workflow = made(timeout=None)

    async def run() -> int:
        total: int = await workflow.run()
        return total

    yield run
