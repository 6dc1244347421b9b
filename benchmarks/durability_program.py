"""The program that `durability.py` kills: 200 calls, whose effects the world counts."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from durability_effects import Message
from shapes import Shape

from agentflow import Context, Done, NotDone, Task, Tool, _http, tool, workflow
from agentflow.events import Event, NodeFinished
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import ChatCall, Pace, ScriptedServer

LAYERS, WIDTH = 5, 30
LAYERED = LAYERS * WIDTH
CHAINS, LENGTH = 5, 10

KINDS = ("read", "read", "put", "read", "write", "read", "read", "charge", "read", "act")
"""The tools that the steps call, in turn."""


def program_shape() -> Shape:
    """Layers in which each call takes three values of the layer before, and chains beside them."""
    needs: list[tuple[int, ...]] = [()] * WIDTH
    for start in range(0, (LAYERS - 1) * WIDTH, WIDTH):
        for column in range(WIDTH):
            needs.append(tuple(start + (column + 7 * k) % WIDTH for k in range(3)))
    for _ in range(CHAINS):
        needs.append(())
        needs += [(len(needs) + n - 1,) for n in range(LENGTH - 1)]
    return Shape("layers and chains", tuple(needs))


SHAPE = program_shape()


def values_of(shape: Shape) -> list[int]:
    """What each step gives."""
    values: list[int] = []
    for step, needed in enumerate(shape.needs):
        values.append(1 + sum(values[other] for other in needed) if needed else step)
    return values


VALUES = values_of(SHAPE)


@dataclass(frozen=True)
class Made:
    """What a step gives: where it is, and its value in `Shape.expected`."""

    run: str
    step: int
    value: int


class Connected:
    """The world, as the program sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    def tell(self, **message: Any) -> None:
        """Say something that needs no answer."""
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def ask(self, **message: Any) -> Any:
        """Say something, and wait for the answer."""
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.tell(id=number, **message)
        return await future

    async def listen(self) -> None:
        """Hand on answers until the connection ends."""
        async for line in self._reader:
            answer: Message = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer["answer"])

    def watch(self, event: Event) -> None:
        """Tell of results that are told: they are kept."""
        if isinstance(event, NodeFinished) and isinstance(made := event.value, Made):
            self.tell(do="seen", run=made.run, step=made.step)


class Agreeable(Connected):
    """A world that is not there: everything is done at once."""

    def __init__(self) -> None:
        """It needs nothing."""

    def tell(self, **message: Any) -> None:
        """Nobody listens."""

    async def ask(self, **message: Any) -> bool:
        """It is done."""
        return True


connected: ContextVar[Connected] = ContextVar("connected")


@asynccontextmanager
async def connection(port: int, **hello: Any) -> AsyncIterator[Connected]:
    """Connect to the world."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    world = Connected(reader, writer)
    listening = asyncio.create_task(world.listen())
    world.tell(do="hello", pid=os.getpid(), **hello)
    token = connected.set(world)
    try:
        yield world
    finally:
        connected.reset(token)
        listening.cancel()
        writer.close()


async def work(kind: str, run: str, step: int, values: list[Made], ctx: Context) -> Made:
    """Have a step done."""
    await connected.get().ask(do="work", run=run, step=step, kind=kind, key=ctx.idempotency_key)
    return made_of(run, step, values)


def made_of(run: str, step: int, values: list[Made]) -> Made:
    """What a step gives."""
    return Made(run, step, 1 + sum(made.value for made in values) if values else step)


@tool(reads="numbers")
async def read(run: str, step: int, values: list[Made], ctx: Context) -> Made:
    """Change nothing."""
    return await work("read", run, step, values, ctx)


@tool(writes="sums/{run}/{step}", idempotent=True)
async def put(run: str, step: int, values: list[Made], ctx: Context) -> Made:
    """Write what can be written again."""
    return await work("idempotent", run, step, values, ctx)


@tool(writes="sums/{run}/{step}")
async def write(run: str, step: int, values: list[Made], ctx: Context) -> Made:
    """Write what nobody can look up."""
    return await work("write", run, step, values, ctx)


async def charged(run: str, step: int, values: list[Made]) -> Done[Made] | NotDone:
    """Whether the world has done a step."""
    done = await connected.get().ask(do="done", run=run, step=step)
    return Done(made_of(run, step, values)) if done else NotDone()


@tool(writes="sums/{run}/{step}", verify=charged)
async def charge(run: str, step: int, values: list[Made], ctx: Context) -> Made:
    """Write what can be looked up."""
    return await work("write", run, step, values, ctx)


@tool
async def act(run: str, step: int, values: list[Made], ctx: Context) -> Made:
    """Do something that is not declared."""
    return await work("undeclared", run, step, values, ctx)


TOOLS: dict[str, Tool[..., Made]] = {one.name: one for one in (read, put, write, charge, act)}


@workflow
async def program(run: str) -> int:
    """Layers whose edges are handles, and chains that are workflows of their own."""
    made: list[Any] = []
    for step, needed in enumerate(SHAPE.needs[:LAYERED]):
        values = [made[other].ref for other in needed]
        made.append(tool_of(step)(run=run, step=step, values=values))
    chains = [chain(run, first) for first in range(LAYERED, len(SHAPE.needs), LENGTH)]
    ends = [*made[-WIDTH:], *chains]
    return sum(end.value for end in await asyncio.gather(*ends))


@workflow
async def chain(run: str, first: int) -> Made:
    """Steps that each need the value of the one before."""
    made: list[Made] = []
    for step in range(first, first + LENGTH):
        made = [await tool_of(step)(run=run, step=step, values=made)]
    return made[0]


def total(value: Any) -> int:
    """What the workflow gives, from what the plan gives, or the model's answer."""
    return sum(value) if isinstance(value, list) else int(value)


def tool_of(step: int) -> Tool[..., Made]:
    """The tool that a step calls."""
    return TOOLS[kind(step)]


def said(call: ChatCall) -> str:
    """What the model of the task says: the plan, and then the answer."""
    asked = call.said_by("user")
    if "the notation" not in call.said_by("system"):
        return f"Answer: {SHAPE.expected}"
    return plan_text(asked.partition("run ")[2].split(".")[0]).rpartition("\n")[0] + "\njoin()"


@asynccontextmanager
async def model() -> AsyncIterator[OpenAIBackend]:
    """The model of the task, in this process."""
    server = ScriptedServer(said, pace=Pace(tokens_per_chunk=100))
    async with _http.client(transport=server.transport()) as http:
        yield OpenAIBackend("http://scripted/v1", "scripted", http=http)


def task(run: str) -> Task:
    """The same as a task: a model writes the plan, and its calls begin meanwhile."""
    return Task(f"Do all steps of run {run}.", max_tokens=1 << 16)


def kind(step: int) -> str:
    """The tool that a step calls."""
    return KINDS[step % len(KINDS)]


def plan_text(run: str) -> str:
    """The same as a plan."""
    lines = []
    for step, needed in enumerate(SHAPE.needs):
        values = ", ".join(f"${other + 1}" for other in needed)
        lines.append(f'${step + 1} = {kind(step)}(run="{run}", step={step}, values=[{values}])')
    ends = ", ".join(f"${end + 1}.value" for end in SHAPE.ends)
    return "\n".join([*lines, f"return [{ends}]"])
