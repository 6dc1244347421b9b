"""Hamilton's async driver: a function for each node, edges by the names of parameters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from inspect import Parameter, Signature

from hamilton import async_driver
from hamilton.ad_hoc_utils import create_temporary_module
from hamilton.base import DictResult
from shapes import Run, Shape, call


def function(shape: Shape, node: int) -> Callable[..., Awaitable[int]]:
    """The function of a node: Hamilton reads its edges from the signature."""
    names = [f"n{other}" for other in shape.needs[node]]

    async def work(**values: int) -> int:
        return await call(shape, node, [values[name] for name in names])

    work.__name__ = f"n{node}"
    work.__annotations__ = {**dict.fromkeys(names, int), "return": int}
    parameters = [Parameter(name, Parameter.KEYWORD_ONLY, annotation=int) for name in names]
    work.__dict__["__signature__"] = Signature(parameters, return_annotation=int)
    return work


@asynccontextmanager
async def engine(shape: Shape) -> AsyncIterator[Run]:
    """The graph is built once; `execute` is what runs."""
    graph = create_temporary_module(*(function(shape, n) for n in range(len(shape.needs))))
    driver = async_driver.AsyncDriver({}, graph, result_builder=DictResult())
    await driver.ainit()
    names = [f"n{node}" for node in shape.ends]

    async def run() -> int:
        return sum((await driver.execute(names)).values())

    yield run
