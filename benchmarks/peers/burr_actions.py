"""Burr: actions and transitions; a parallel action for each wave."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from burr.core import Application, ApplicationBuilder, ApplicationContext, State, action
from burr.core.parallelism import MapStates
from shapes import Run, Shape, call


def sequence(shape: Shape) -> Application[Any]:
    """One action that goes round until the chain is done."""

    @action(reads=["node", "value"], writes=["node", "value"])
    async def work(state: State[Any]) -> State[Any]:
        node: int = state["node"]
        value = await call(shape, node, [state["value"]] if shape.needs[node] else [])
        return state.update(node=node + 1, value=value)

    return (
        ApplicationBuilder()
        .with_actions(work=work)
        .with_transitions(("work", "work"))
        .with_state(node=0, value=0)
        .with_entrypoint("work")
        .build()
    )


class Wave(MapStates):
    """Runs a wave of nodes in parallel, each on a state of its own."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    async def states(
        self, state: State[Any], context: ApplicationContext, inputs: dict[str, Any]
    ) -> AsyncGenerator[State[Any], None]:
        """A state for each node of the wave."""
        values = state["values"]
        for node in self.shape.levels[state["level"]]:
            yield state.update(node=node, taken=[values[other] for other in self.shape.needs[node]])

    def action(self, state: State[Any], inputs: dict[str, Any]) -> Any:
        """What runs on each state."""
        shape = self.shape

        @action(reads=["node", "taken"], writes=["value"])
        async def work(state: State[Any]) -> State[Any]:
            return state.update(value=await call(shape, state["node"], state["taken"]))

        return work

    async def reduce(
        self, state: State[Any], states: AsyncGenerator[State[Any], None]
    ) -> State[Any]:
        """The values of the wave."""
        values = {one["node"]: one["value"] async for one in states}
        return state.update(values=values, level=state["level"] + 1)

    @property
    def reads(self) -> list[str]:
        """What it takes from the state."""
        return ["values", "level"]

    @property
    def writes(self) -> list[str]:
        """What it puts into the state."""
        return ["values", "level"]

    def is_async(self) -> bool:
        """Whether it has to be awaited."""
        return True


def waves(shape: Shape) -> Application[Any]:
    """One parallel action that goes round, a wave each time."""
    return (
        ApplicationBuilder()
        .with_actions(wave=Wave(shape))
        .with_transitions(("wave", "wave"))
        .with_state(values={}, level=0)
        .with_entrypoint("wave")
        .build()
    )


@asynccontextmanager
async def engine(shape: Shape) -> AsyncIterator[Run]:
    """An application keeps its state, so each run builds one (a millisecond)."""
    chained = len(shape.levels) == len(shape.needs)

    async def run() -> int:
        if chained:
            return int((await finished(sequence(shape), "node", len(shape.needs)))["value"])
        values: dict[int, int] = (await finished(waves(shape), "level", len(shape.levels)))[
            "values"
        ]
        return sum(values[node] for node in shape.ends)

    yield run


async def finished(application: Application[Any], counter: str, until: int) -> State[Any]:
    """Take steps until the counter in the state says that it is done."""
    while True:
        _, _, state = await application.astep(inputs={})
        if state[counter] == until:
            return state
