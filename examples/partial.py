"""Calls that begin while a model still writes them: the same task with and without.

    python examples/partial.py

The model is scripted, at the pace of a real one; the engine and the HTTP are real.
"""

from __future__ import annotations

import asyncio

from agentflow import Commit, Engine, Stream, Task, Warm, tool
from agentflow.events import (
    Event,
    NodeFinished,
    PartialCommitted,
    PartialEvent,
    PartialRetracted,
    PartialStarted,
    ReplyStopped,
)
from agentflow.testing import Answer, Call, Pace, Reply, ScriptedServer

PAGES: dict[str, str] = {}


def not_empty(query: str) -> str | None:
    return None if query.strip() else "say what to search for"


@tool(reads="web", check={"query": not_empty})
async def search(query: str, *, session: Warm[str]) -> str:
    await asyncio.sleep(0.05)
    return f"48.1 million ({session})"


@search.warm
async def connect() -> str:
    """Begins when the model has written the name of the tool."""
    await asyncio.sleep(0.1)  # a name, a connection, a handshake
    return "over one connection"


@tool(pure=True)
async def run_program(code: Stream[str]) -> int:
    """Runs each line as soon as it is complete."""
    steps = 0
    async for _line in code.lines():
        await asyncio.sleep(0.04)
        steps += 1
    return steps


@tool(writes="pages/{page}")
async def publish(page: str, text: Stream[str], *, commit: Commit) -> int:
    """Sends the text while it is written; nobody sees the page before the call is certain."""
    draft = ""
    async for piece in text:
        await asyncio.sleep(0.002)  # an upload
        draft += piece
    await commit()
    PAGES[page] = draft
    return len(draft)


PROGRAM = "\n".join(f"total_{n} = {n} * population / area  # of region {n}" for n in range(8))
TEXT = "Spain has about 48.1 million inhabitants, and most of them live near the coast. " * 3
SCRIPT: list[Answer] = [
    Reply(Call("search", {"query": " "}), Call("run_program", {"code": PROGRAM})),
    Reply(Call("search", {"query": "population of Spain"}), Call("run_program", {"code": PROGRAM})),
    Call("publish", {"page": "spain", "text": TEXT}),
    "The page is published.",
]


def show(event: Event, began: float) -> None:
    """What began, and what became of it."""
    match event:
        case PartialCommitted():
            told = f"{event.tool} goes on, {event.hidden:.2f} s of it done"
        case PartialRetracted():
            told = f"{event.tool} was in vain: {event.why}"
        case PartialEvent():
            told = f"{event.tool} {'begins' if isinstance(event, PartialStarted) else 'warms up'}"
        case ReplyStopped():
            told = f"model stopped after {event.tokens} tokens: {event.why}"
        case NodeFinished():
            told = f"{event.tool} gave {event.value!r}"
        case _:
            return
    print(f"{event.at - began:6.2f} s  {told}")


async def answer(*, partial: bool) -> float:
    """Answer the task, and say what happens; the seconds it took."""
    PAGES.clear()
    loop = asyncio.get_running_loop()
    pace = Pace(first_token=0.05, per_token=0.005)
    async with (
        ScriptedServer(SCRIPT, pace=pace) as server,
        Engine(
            tools=[search, run_program, publish],
            base_url=server.base_url,
            model="scripted",
            partial=partial,
        ) as engine,
    ):
        began = loop.time()
        engine.subscribe(lambda event: show(event, began))
        said = await engine.run(Task("Publish a page about Spain.", strategy="react"))
        took = loop.time() - began
    print(f"{took:6.2f} s  {said}")
    return took


async def main() -> dict[bool, float]:
    """Without and with partial execution; the seconds of both."""
    took = {}
    for partial in (False, True):
        print(f"\n=== partial={partial}")
        took[partial] = await answer(partial=partial)
    return took


if __name__ == "__main__":
    asyncio.run(main())
