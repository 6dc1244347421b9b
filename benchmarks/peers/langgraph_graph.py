"""LangGraph's graph API: a node for each node, a `Send` for each of a fan-out."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from shapes import Run, Shape, call


class State(TypedDict):
    """Values by node; updates of the same superstep are merged."""

    values: Annotated[dict[int, int], operator.or_]


Body = Callable[[Any], Awaitable[dict[str, dict[int, int]]]]


class Last(TypedDict):
    """The value of the node before."""

    value: int


def sequence(shape: Shape) -> Any:
    """A node for each node, one after the other (faster here than one that loops)."""
    graph = StateGraph(Last)

    def body(node: int) -> Callable[[Last], Awaitable[Last]]:
        async def work(state: Last) -> Last:
            taken = [state["value"]] if shape.needs[node] else []
            return {"value": await call(shape, node, taken)}

        return work

    names = [f"n{node}" for node in range(len(shape.needs))]
    for node, name in enumerate(names):
        graph.add_node(name, body(node))
    for before, after in pairwise([START, *names, END]):
        graph.add_edge(before, after)
    return graph.compile()


def edges(shape: Shape) -> Any:
    """Real edges, with joins where a node takes several values."""
    graph = StateGraph(State)

    def body(node: int) -> Body:
        async def work(state: State) -> dict[str, dict[int, int]]:
            taken = [state["values"][other] for other in shape.needs[node]]
            return {"values": {node: await call(shape, node, taken)}}

        return work

    for node, needed in enumerate(shape.needs):
        graph.add_node(f"n{node}", body(node))
        if needed:
            graph.add_edge([f"n{other}" for other in needed], f"n{node}")
        else:
            graph.add_edge(START, f"n{node}")
    for node in shape.ends:
        graph.add_edge(f"n{node}", END)
    return graph.compile()


def sends(shape: Shape) -> Any:
    """One node, sent to as often as there are nodes: the way LangGraph maps."""
    graph = StateGraph(State)

    async def work(sent: dict[str, int]) -> dict[str, dict[int, int]]:
        return {"values": {sent["node"]: await call(shape, sent["node"], ())}}

    graph.add_node("work", work)
    graph.add_conditional_edges(
        START, lambda _: [Send("work", {"node": node}) for node in shape.ends], ["work"]
    )
    graph.add_edge("work", END)
    return graph.compile()


@asynccontextmanager
async def engine(shape: Shape) -> AsyncIterator[Run]:
    """The graph is compiled once; `ainvoke` is what runs."""
    config = {"recursion_limit": len(shape.levels) + 10}
    chained = len(shape.levels) == len(shape.needs)
    build = sequence if chained else sends if len(shape.levels) == 1 else edges
    compiled = build(shape)

    async def run() -> int:
        state = await compiled.ainvoke({"value": 0} if chained else {"values": {}}, config)
        if chained:
            value: int = state["value"]
            return value
        return sum(state["values"][node] for node in shape.ends)

    yield run
