"""The same against a real server, whose replies nobody knows beforehand.

A run is compared with its own arguments: D + E of the reply that it was given, from the first
token of the call. The model is made to call a tool; what is left out is counted.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import harness
from partial_bound import Fragment, Timing
from partial_engines import Engines, Turn
from partial_wire import Written

from agentflow import Stream, Tool, Warm, tool
from agentflow.clock import now
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.models.stream import OpenAIStream
from agentflow.tools.arguments import ArgumentClosed, ArgumentGrew
from agentflow.tools.json_arguments import ArgumentsReader

STEP = 20
"""Characters of a program that are one step of the interpreter."""

INTERPRETER, SEARCH, VALIDATION = "code interpreter", "search", "validation"

QUESTIONS = {
    INTERPRETER: "Write a program that sorts the lines of a file, and run it.",
    SEARCH: "Search for the largest lakes in the north of Europe.",
    VALIDATION: "What will the weather be like in Atlantis? Say a lot about it.",
}

MOST = 400
"""Tokens of a reply."""


class Calling(OpenAIBackend):
    """A model that has to call a tool when it may.

    Args:
        *where: As of `OpenAIBackend`.
        seed: Gives the seed of a reply.
        **options: Likewise.
    """

    def __init__(self, *where: Any, seed: Callable[[], int], **options: Any) -> None:
        super().__init__(*where, **options)
        self._seed = seed

    @asynccontextmanager
    async def stream(self, request: ChatRequest, **options: Any) -> AsyncIterator[OpenAIStream]:
        """Ask it, with `tool_choice` as it has to be."""
        if request.tool_choice is None:
            request = replace(request, tool_choice="required", seed=self._seed())
        async with super().stream(request, **options) as stream:
            yield stream


class Steps:
    """What tools do instead of working, in seconds, and how long it took."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.took: list[float] = []

    async def step(self) -> None:
        """Do one step."""
        began = now()
        await asyncio.sleep(self.seconds)
        self.took.append(now() - began)


def tools(steps: Steps) -> dict[str, Tool[..., Any]]:
    """The tool of each workload."""

    @tool(reads="sandbox")
    async def interpret(code: Stream[str]) -> str:
        """Run a program."""
        seen = 0
        async for piece in code:
            for _ in range((seen + len(piece)) // STEP - seen // STEP):
                await steps.step()
            seen += len(piece)
        return f"ran {seen} characters"

    @tool(reads="web")
    async def search(query: str, *, connection: Warm[str]) -> str:
        """Search the web."""
        await steps.step()
        return f"found {query} over {connection}"

    @search.warm
    async def connect() -> str:
        await steps.step()
        return "a connection"

    @tool(check={"place": lambda place: "there is no such place"})
    async def forecast(place: str, details: str) -> str:
        """Forecast the weather of a place; in details, say all that matters."""
        return f"{details} in {place}"

    return {INTERPRETER: interpret, SEARCH: search, VALIDATION: forecast}


@dataclass
class Runs:
    """What one workload gave.

    Attributes:
        on: Runs with partial execution.
        off: Runs without.
        left_out: Replies without a whole call, or that were not the same twice.
    """

    on: list[Timing] = field(default_factory=list)
    off: list[Timing] = field(default_factory=list)
    left_out: int = 0

    def figures(self) -> dict[str, float | int | None]:
        """Medians; seconds, and percent of D + E of the same run; `of_bound` is of all together."""
        on, off = self.on, self.off
        if not on or not off:
            return {"runs": 0, "left_out": self.left_out}
        return {
            "runs": len(on),
            "left_out": self.left_out,
            "decoding_s": statistics.median(it.decoded for it in on),
            "tool_s": statistics.median(it.work for it in on) or None,
            "on_s": statistics.median(it.latency for it in on),
            "off": 100 * statistics.median(it.latency / it.in_turn for it in off),
            "saving": 100 * statistics.median(1 - it.latency / it.in_turn for it in on),
            "bound": 100 * statistics.median(it.bound for it in on),
            "of_bound": 100
            * sum(it.in_turn - it.latency for it in on)
            / sum(it.in_turn - it.earliest for it in on),
        }


class Real:
    """Workloads at a real server.

    Args:
        base_url: Of its API.
        name: Of its model.
        **http: Anything that an HTTP client takes.
    """

    def __init__(self, base_url: str, name: str, **http: Any) -> None:
        self._seed = 0
        self._steps = Steps()
        backend = partial(Calling, seed=lambda: self._seed)
        self._engines = {
            workload: Engines(base_url, [its], backend=backend, name=name, **http)
            for workload, its in tools(self._steps).items()
        }

    async def run(self, workload: str, runs: Runs) -> None:
        """One reply three times: to see how long it takes, without partial execution, and with.

        Together the steps of the tool take as long as the arguments took the first time. A model
        that is stopped has to have written the same up to there.
        """
        self._seed += 1
        self._steps.seconds = 0.0
        first = self._timing(workload, await self._turn(workload, on=False))
        self._steps.seconds = first.decoded / max(1, len(first.fragments)) if first else 0.0
        off = self._timing(workload, without := await self._turn(workload, on=False))
        on = self._timing(workload, its := await self._turn(workload, on=True), whole=off)
        differs = workload == VALIDATION and not without.written.text.startswith(its.written.text)
        if first is None or off is None or on is None or differs:
            runs.left_out += 1
        else:
            runs.on.append(on)
            runs.off.append(off)

    async def _turn(self, workload: str, *, on: bool) -> Turn:
        self._steps.took.clear()
        return await self._engines[workload].turn(
            question=QUESTIONS[workload],
            partial=on,
            strategy="react",
            rounds=2,
            max_tokens=MOST,
        )

    def _timing(self, workload: str, turn: Turn, whole: Timing | None = None) -> Timing | None:
        """What happened, from the first token of the call; None if there is no whole call.

        Args:
            workload: What was run.
            turn: How.
            whole: The same reply, read to its end: of one that may have been stopped.
        """
        call = _Call.read(turn.written)
        if call is None or not (call.complete or whole):
            return None
        latency = turn.latency - call.before
        if workload == VALIDATION:
            decoded = whole.decoded if whole else call.decoded
            ended = call.place if whole else call.decoded
            return None if ended is None else Timing(latency, decoded, ended, ())
        ready = call.steps if workload == INTERPRETER else [0.0, call.decoded]
        fragments = [*map(Fragment, ready, took := self._steps.took)]
        complete = len(took) == len(ready) and call.complete
        return Timing(latency, call.decoded, call.decoded, fragments) if complete else None

    async def aclose(self) -> None:
        """Close everything."""
        for engines in self._engines.values():
            await engines.aclose()


@dataclass(frozen=True)
class _Call:
    """A call as it came; seconds from its first token.

    Attributes:
        before: From the reply's first token until then.
        decoded: When its last text came.
        steps: When the text for each step of the interpreter was there.
        place: When the argument of that name was complete, if it was.
        complete: Whether all of the call came.
    """

    before: float
    decoded: float
    steps: list[float]
    place: float | None
    complete: bool

    @classmethod
    def read(cls, written: Written) -> _Call | None:
        """The first call of a reply; None if there is none."""
        if written.called is None:
            return None
        pieces = written.pieces[written.called :]
        began, reader = pieces[0][0], ArgumentsReader(0, "tool")
        steps: list[float] = []
        place, seen = None, 0
        for at, text in pieces:
            for event in reader.feed(text):
                if isinstance(event, ArgumentGrew):
                    grown = seen + len(event.text)
                    steps += [at - began] * (grown // STEP - seen // STEP)
                    seen = grown
                elif isinstance(event, ArgumentClosed) and event.key == "place":
                    place = at - began
        before, decoded = began - written.began, pieces[-1][0] - began
        return cls(before, decoded, steps, place, reader.end is not None)


async def measure(base_url: str, name: str, rounds: int) -> dict[str, Runs]:
    """Every workload, so many times."""
    real = Real(base_url, name)
    found = {workload: Runs() for workload in QUESTIONS}
    for number in range(rounds):
        for workload, runs in found.items():
            print(f"round {number + 1}: {workload}, {name} ...", file=sys.stderr, flush=True)
            await real.run(workload, runs)
    await real.aclose()
    return found


def table(found: Mapping[str, Runs]) -> str:
    """What was found, a line for each workload."""
    headings = (
        "real model", "runs", "left out", "D, s", "E, s", "on, s", "off, % of D + E",
        "saving, %", "bound, %", "of bound, %",
    )  # fmt: skip
    rows = []
    for workload, runs in found.items():
        cells: list[object] = [workload, *runs.figures().values()]
        rows.append(cells + [None] * (len(headings) - len(cells)))
    return harness.table(headings, rows)
