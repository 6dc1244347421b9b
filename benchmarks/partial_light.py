"""What partial execution costs where it brings nothing: light tools, and processor time."""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Awaitable, Callable

import harness
from partial_engines import Engines
from partial_server import Endpoint

from agentflow import Stream, tool
from agentflow.executor.models.base import ChatRequest
from agentflow.testing.replies import Call, Pace, Reply

PACE = Pace(0.002, 0.001)
CHARACTERS = 64_000
CHUNKS = Pace(tokens_per_chunk=4)
"""Of the long argument: 16 characters at a time, as fast as they can be sent."""

CLIENT, OFF, ON = "model client alone", "react, partial off", "react, partial on"


@tool
async def total(first: int, second: int, note: str) -> int:
    """Add two numbers; nothing is declared."""
    return first + second


@tool(pure=True)
async def add(first: int, second: int, note: str) -> int:
    """Add two numbers."""
    return first + second


@tool(reads="shelf")
async def count(number: int, note: Stream[str]) -> int:
    """Count the characters of a note as they come."""
    return sum([len(piece) async for piece in note])


TOOLS = (total, add, count)

_NOTE = "the sum of what was bought and what was sold in the last month"


def light(name: str, number: int) -> Reply:
    """A call of one of the tools; no two numbers make equal calls."""
    numbers = {"number": number} if name == "count" else {"first": number, "second": 4}
    return Reply(Call(name, json.dumps({**numbers, "note": _NOTE})), pace=PACE)


def turns() -> dict[str, Callable[[int], Reply]]:
    """What is measured, by name: one call of each tool, and a turn of six calls."""
    ways: dict[str, Callable[[int], Reply]] = {
        "nothing declared": lambda number: light("total", number),
        "pure": lambda number: light("add", number),
        "a streamed argument": lambda number: light("count", number),
    }
    ways["six calls"] = lambda number: Reply(
        *(piece for at in range(1, 7) for piece in light("add", 1000 * at + number).pieces),
        pace=PACE,
    )
    return ways


async def added(engines: Engines, server: Endpoint, pairs: int) -> dict[str, list[float]]:
    """Seconds that a turn takes longer with partial execution, pair by pair."""
    found: dict[str, list[float]] = {}
    for name, reply in turns().items():
        differences = found[name] = []
        for number in range(-1, pairs):
            gc.collect()
            server.say(reply(number))
            took = {}
            for on in (True, False) if number % 2 else (False, True):
                turn = await engines.turn(partial=on, strategy="react")
                took[on] = turn.latency
            if number >= 0:
                differences.append(took[True] - took[False])
    return found


async def processor(engines: Engines, server: Endpoint, rounds: int) -> dict[str, float]:
    """Microseconds of processor time for each character of a long argument."""
    text = "word" * (CHARACTERS // len("word"))
    reply = Reply(Call("count", json.dumps({"number": 1, "note": text})), pace=CHUNKS)
    server.say(reply)
    most = 2 * CHARACTERS

    async def client() -> None:
        messages = [{"role": "user", "content": "Go on."}]
        request = ChatRequest(messages=messages, max_tokens=most)
        async with engines.model.stream(request) as stream:
            async for _ in stream:
                pass

    def react(partial: bool) -> Callable[[], Awaitable[object]]:
        return lambda: engines.turn(partial=partial, strategy="react", max_tokens=most)

    ways = {CLIENT: client, OFF: react(False), ON: react(True)}
    found = await harness.interleave(ways, rounds)
    alone = found[CLIENT].cpu
    figures = {name: samples.as_dict(CHARACTERS)["cpu_us"] for name, samples in found.items()}
    for name in (OFF, ON):
        beyond = [cpu - least for cpu, least in zip(found[name].cpu, alone, strict=True)]
        figures[f"{name}, above the client"] = statistics.median(beyond) / CHARACTERS * 1e6
    return figures
