"""Values that nobody can dump, copy or print: a run ends as it would without speculation."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pydantic
import pytest

from agentflow import Engine, tool, workflow
from agentflow.errors import RunFailed
from agentflow.testing import run_virtual


class Odd:
    """Something without a JSON form."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    x: Any


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


class Key:
    def __str__(self) -> str:
        raise RuntimeError("no str")


def cycle() -> list[Any]:
    """A list that holds itself, twice."""
    loop: list[Any] = []
    loop += [loop, loop]
    return loop


@tool
async def odd() -> Model:
    return Model(x=Odd())


@tool
async def locked() -> Model:
    return Model(x=threading.Lock())


@tool
async def keyed() -> dict[Any, int]:
    return {Key(): 1}


@tool
async def failing() -> str:
    raise Unspeakable


@tool
async def takes(m: Any) -> int:
    return 1


@workflow
async def gives_a_model() -> int:
    return await takes(Model(x=Odd()))


@workflow
async def gives_a_cycle() -> int:
    return await takes({"of": cycle()})


async def outcome(engine: Engine, what: Any) -> str:
    """How a run ends, within a second."""
    run = engine.start(engine.plan(what) if isinstance(what, str) else what)
    try:
        async with asyncio.timeout(1):
            return f"gave {type(await run).__name__}"
    except RunFailed as failed:
        return f"failed with {type(failed.__cause__).__name__}"


CASES = (
    "$1 = odd()\nreturn $1",
    "$1 = locked()\n$2 = takes(m=$1)\nreturn $2",
    "$1 = keyed()\n$2 = takes(m=$1)\nreturn $2",
    "$1 = failing()\nreturn $1",
    gives_a_model,
    gives_a_cycle,
)


@pytest.mark.parametrize("what", CASES)
def test_a_run_ends_as_it_would_without_speculation(what: Any) -> None:
    async def main(speculation: bool) -> str:
        tools: list[Any] = [odd, locked, keyed, failing, takes]
        async with Engine(tools=tools, speculation=speculation) as engine:
            return await outcome(engine, what)

    assert run_virtual(main(True)) == run_virtual(main(False))
