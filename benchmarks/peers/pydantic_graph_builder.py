"""pydantic-graph's builder: steps and edges, and a map and a join for each wave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic_graph import GraphBuilder, StepContext, reduce_list_append
from shapes import Run, Shape, call


@dataclass
class State:
    """Values by node."""

    values: dict[int, int] = field(default_factory=dict)


def sequence(shape: Shape) -> Any:
    """A step for each node, one after the other."""
    graph = GraphBuilder(state_type=State, input_type=int, output_type=int)
    before: Any = graph.start_node

    def body(node: int) -> Any:
        async def work(ctx: StepContext[State, None, int]) -> int:
            return await call(shape, node, [ctx.inputs] if shape.needs[node] else [])

        return work

    for node in range(len(shape.needs)):
        step = graph.step(call=body(node), node_id=f"n{node}")
        graph.add(graph.edge_from(before).to(step))
        before = step
    graph.add(graph.edge_from(before).to(graph.end_node))
    return graph.build()


def waves(shape: Shape) -> Any:
    """A list of nodes is mapped over a step and joined again, wave after wave."""
    graph = GraphBuilder(state_type=State, input_type=int, output_type=int)
    before: Any = graph.start_node
    for level, wave in enumerate(shape.levels):

        async def spread(_: StepContext[State, None, Any], wave: Any = wave) -> list[int]:
            return list(wave)

        async def work(ctx: StepContext[State, None, int]) -> int:
            values = ctx.state.values
            taken = [values[other] for other in shape.needs[ctx.inputs]]
            values[ctx.inputs] = await call(shape, ctx.inputs, taken)
            return ctx.inputs

        first = graph.step(call=spread, node_id=f"spread{level}")
        mapped = graph.step(call=work, node_id=f"work{level}")
        joined = graph.join(reduce_list_append, initial_factory=list[int], node_id=f"join{level}")
        graph.add(
            graph.edge_from(before).to(first),
            graph.edge_from(first).map().to(mapped),
            graph.edge_from(mapped).to(joined),
        )
        before = joined

    async def total(ctx: StepContext[State, None, Any]) -> int:
        return sum(ctx.state.values[node] for node in shape.ends)

    last = graph.step(call=total, node_id="total")
    graph.add(graph.edge_from(before).to(last), graph.edge_from(last).to(graph.end_node))
    return graph.build()


@asynccontextmanager
async def engine(shape: Shape) -> AsyncIterator[Run]:
    """The graph is built once; `run` is what runs."""
    graph = sequence(shape) if len(shape.levels) == len(shape.needs) else waves(shape)

    async def run() -> int:
        total: int = await graph.run(state=State(), inputs=0)
        return total

    yield run
