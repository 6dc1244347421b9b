"""A process that runs the program of `durability.py`, or goes on with it, until it is killed."""

from __future__ import annotations

import asyncio
import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import durability_program as program

from agentflow import Engine, Journal
from agentflow.errors import JournalError, RunPaused
from agentflow.executor.run import Run

Kind: TypeAlias = Literal["workflow", "plan", "task"]


@dataclass(frozen=True)
class Order:
    """What a process is to do.

    Attributes:
        label: What the program calls its run.
        kind: What it runs: the ``workflow``, the ``plan`` or the ``task``.
        run: Id of the run to go on with; empty for a new one.
        session: Counts the processes of a run.
        journal: The file.
        port: Of the world.
        fuse: The piece of work at which it is killed, and whether that is done; see `Fuse`.
    """

    label: str
    kind: Kind
    run: str
    session: int
    journal: Path
    port: int
    fuse: dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What a process says: ``began`` (an id), ``finished`` (a value), ``paused`` (questions),
    ``unknown`` (the journal does not know the run) or ``failed`` (why)."""

    what: str
    data: Any = None


def start(order: Order) -> tuple[BaseProcess, Connection]:
    """Fork a process, which has all that this one has built; what it says comes through the pipe.

    This one may have no threads, and no journal open.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=main, args=(order, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def main(order: Order, connection: Connection) -> None:
    """Do as ordered, in a process of its own."""
    connection.send(asyncio.run(_work(order, connection)))


async def _work(order: Order, connection: Connection) -> Said:
    hello = {"session": order.session, "fuse": order.fuse}
    async with (
        program.connection(order.port, **hello) as world,
        program.model() as model,
        Engine(
            model=model,
            journal=Journal(order.journal),
            tools=program.TOOLS.values(),
            subscribers=[world.watch],
        ) as engine,
    ):
        try:
            run = await _begin(engine, order)
            connection.send(Said("began", run.id))
            return Said("finished", program.total(await run))
        except RunPaused as paused:
            return Said("paused", paused.asks)
        except JournalError as error:
            return Said("unknown", str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is counted
            return Said("failed", f"{type(error).__name__}: {error}")


async def warm() -> None:
    """Run the program in this process, so that all is built that is built once."""
    program.connected.set(program.Agreeable())
    async with program.model() as model, Engine(model=model, tools=program.TOOLS.values()) as one:
        for kind in get_args(Kind):
            assert program.total(await _started(one, kind, "warm")) == program.SHAPE.expected


async def _begin(engine: Engine, order: Order) -> Run[Any]:
    if order.run:
        return await engine.reopen(order.run)
    return _started(engine, order.kind, order.label)


def _started(engine: Engine, kind: Kind, label: str) -> Run[Any]:
    match kind:
        case "workflow":
            return engine.start(program.program, label)
        case "plan":
            return engine.start(engine.plan(program.plan_text(label)))
        case "task":
            return engine.start(program.task(label))
