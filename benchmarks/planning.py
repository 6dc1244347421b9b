"""How far a plan that runs while it is written is from the latency of its critical path.

    python benchmarks/planning.py [--quick] [--json] [--rounds N]

The model is a script, in a process of its own: first token after 300 ms, then 20 ms a token, and
a short joiner. Tools sleep. Everything else is real: HTTP over sockets, reading, checking,
running, joining. For each case the ideal follows from what the server says it sent when
(`planning_cases.ideal`), and a minimal client that knows nothing but these plans
(`planning_floor.py`) takes turns with agentflow.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import harness
from harness import Goal
from planning_cases import ANSWER, CASES, Case, ideal, value_of
from planning_floor import Floor
from planning_server import WHOLE, Endpoint, endpoint, question, words

from agentflow.engine import Engine
from agentflow.executor.models.base import ChatRequest, TextPiece
from agentflow.tools.tool import Tool, tool

MODES = {"streamed, 1 token a chunk": 1, "streamed, 12 a chunk": 12, "not streamed": WHOLE}
QUICK = ("4 in parallel", "chain of 4", "graph of 7")
LLMCOMPILER = {
    "2 in parallel": "26 / 29", "4 in parallel": "27 / 30", "8 in parallel": "27 / 29",
    "16 in parallel": "28 / 31", "chain of 4": "431 / 38", "diamond": "229 / 38",
    "graph of 7": "209 / 35",
}  # fmt: skip
"""Milliseconds over ideal, streamed (1 token a chunk) / not: measured elsewhere, not in this run."""

OVER_IDEAL, OVER_FLOOR = 5.0, 2.0  # ms
CPU_OVER_RAW = 15.0  # µs a token
TOKENS = 1_500
ABOVE = "model client above raw httpx"


@dataclass
class Lag:
    """Milliseconds over ideal, of several runs of one case."""

    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    @property
    def over_floor(self) -> float:
        """Median of the differences between runs that followed each other."""
        return statistics.median(a - b for a, b in zip(self.ours, self.floor, strict=True))

    def as_dict(self) -> dict[str, float]:
        """The figures."""
        return {
            "median_ms": round(statistics.median(self.ours), 3),
            "worst_ms": round(max(self.ours), 3),
            "floor_median_ms": round(statistics.median(self.floor), 3),
            "floor_worst_ms": round(max(self.floor), 3),
            "over_floor_ms": round(self.over_floor, 3),
        }


class Tools:
    """The tools of the plans, which all sleep equally long.

    Attributes:
        seconds: How long.
        took: How long each call really took, by its value.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.took: dict[str, float] = {}

        @tool(reads="web")
        async def search(query: str) -> str:
            """Search for something."""
            return await self.work("search", query)

        @tool(reads="web")
        async def read(source: str) -> str:
            """Read a source."""
            return await self.work("read", source)

        @tool(reads="web")
        async def merge(a: str, b: str) -> str:
            """Put two things together."""
            return await self.work("merge", a, b)

        @tool(writes="notes")
        async def keep(text: str) -> str:
            """Keep a note."""
            return await self.work("keep", text)

        self.all: list[Tool[..., Any]] = [search, read, merge, keep]

    async def work(self, name: str, *arguments: str) -> str:
        """What every tool does."""
        began = time.monotonic()
        await asyncio.sleep(self.seconds)
        value = value_of(name, *arguments)
        self.took[value] = time.monotonic() - began
        return value


class Contest:
    """Agentflow and the floor at the same endpoint."""

    def __init__(self, server: Endpoint) -> None:
        self._server = server
        self._tools = Tools()
        self.engine = Engine(base_url=server.base_url, model="scripted", tools=self._tools.all)
        self.floor = Floor(server.base_url, self._tools.work)

    async def lag(self, case: Case, chunk: int, lag: Lag) -> None:
        """One run of each; how far each is over its own ideal."""
        asked = question(CASES.index(case), chunk)
        lag.ours.append(await self._over(case, lambda: self.engine.run(asked)))
        lag.floor.append(await self._over(case, lambda: self.floor.run(asked)))

    async def _over(self, case: Case, run: Callable[[], Awaitable[str]]) -> float:
        self._tools.seconds = case.seconds
        self._tools.took.clear()
        began = time.monotonic()
        result = await run()
        took = time.monotonic() - began
        if result != ANSWER:
            raise AssertionError(f"{case.name}: {result!r}")
        planner, joiner = self._server.served()
        return (took - ideal(case, planner, joiner, self._tools.took)) * 1e3

    async def cpu(self, rounds: int) -> dict[str, float]:
        """Microseconds of processor time a token: httpx alone, our client, and a whole task."""
        asked = words(TOKENS)
        ways = {
            "raw httpx": lambda: self.floor.count(asked),
            "model client": lambda: self._count(asked),
            "task (react)": lambda: self._react(asked),
            "task (plan)": lambda: self._plan(asked),
        }
        found = await harness.interleave(ways, rounds, TOKENS)
        self._server.served()
        figures = {name: samples.as_dict(TOKENS)["cpu_us"] for name, samples in found.items()}
        pairs = zip(found["model client"].cpu, found["raw httpx"].cpu, strict=True)
        figures[ABOVE] = statistics.median(ours - raw for ours, raw in pairs) / TOKENS * 1e6
        return figures

    async def _count(self, asked: str) -> int:
        request = ChatRequest(messages=[{"role": "user", "content": asked}], max_tokens=2 * TOKENS)
        async with self.engine.model().stream(request) as stream:
            return sum([1 async for piece in stream if isinstance(piece, TextPiece)])

    async def _react(self, asked: str) -> int:
        text = await self.engine.run(asked, strategy="react", tools=[], max_tokens=2 * TOKENS)
        return len(text.split())

    async def _plan(self, asked: str) -> int:
        """A plan that is one long thought, and a short joiner, which is counted in."""
        text = await self.engine.run(asked, tools=[], max_tokens=2 * TOKENS)
        return TOKENS if text == ANSWER else 0

    async def aclose(self) -> None:
        """Close both."""
        await self.engine.aclose()
        await self.floor.aclose()


def prioritise() -> None:
    """Ask for real-time priority: what other programs do here is not what is measured."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(9))
    except (AttributeError, OSError):
        print("at ordinary priority: other programs show in the worst cases", file=sys.stderr)


def chosen(quick: bool) -> list[Case]:
    """The cases to run."""
    return [case for case in CASES if not quick or case.name in QUICK]


async def measure(cases: Sequence[Case], rounds: int) -> tuple[dict[Any, Lag], dict[str, float]]:
    """Figures by mode and case, and processor time; the first run of all only warms up."""
    lags = {(mode, case.name): Lag() for mode in MODES for case in cases}
    with endpoint() as server:
        prioritise()
        contest = Contest(server)
        await contest.lag(cases[0], WHOLE, Lag())
        gc.collect()
        gc.freeze()  # what is loaded by now is not looked through in the middle of a run
        for number in range(rounds):
            for (mode, name), lag in lags.items():
                case = next(case for case in cases if case.name == name)
                print(f"round {number + 1}: {mode}, {name} ...", file=sys.stderr, flush=True)
                await contest.lag(case, MODES[mode], lag)
        cpu = await contest.cpu(max(rounds, 5))
        await contest.aclose()
    return lags, cpu


def seconds_of(*command: str, times: int) -> float:
    """Median seconds that a command takes."""
    took = []
    for _ in range(times + 1):
        began = time.monotonic()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        took.append(time.monotonic() - began)
    return statistics.median(took[1:])


def starting(times: int) -> dict[str, float]:
    """Milliseconds to import agentflow, in an interpreter that runs, and to print the help."""
    nothing = seconds_of("-c", "pass", times=times)
    bare = seconds_of("-c", "import agentflow", times=times) - nothing
    names = "from agentflow import Engine, Budget, llm, tool, workflow"
    return {
        "import agentflow": bare * 1e3,
        names: (seconds_of("-c", names, times=times) - nothing) * 1e3,
        "agentflow --help": seconds_of("-m", "agentflow", "--help", times=times) * 1e3,
    }


def goals(lags: dict[Any, Lag], cpu: dict[str, float], starts: dict[str, float]) -> Iterator[Goal]:
    """The limits; of the latencies the worst case of each mode counts."""
    for mode in MODES:
        mine = [lag for (other, _), lag in lags.items() if other == mode]
        worst = max(statistics.median(lag.ours) for lag in mine)
        yield Goal(f"over ideal, {mode} (worst median)", worst, OVER_IDEAL, "ms")
        beyond = max(lag.over_floor for lag in mine)
        yield Goal(f"over the floor, {mode} (worst median)", beyond, OVER_FLOOR, "ms")
    yield Goal("processor time a token above raw httpx", cpu[ABOVE], CPU_OVER_RAW, "µs")
    yield Goal("import agentflow", starts["import agentflow"], 150.0, "ms")
    yield Goal("agentflow --help", starts["agentflow --help"], 300.0, "ms")


def show(lags: dict[Any, Lag], cpu: dict[str, float], starts: dict[str, float]) -> None:
    """Print the tables."""
    print(harness.environment())
    for mode, chunk in MODES.items():
        rows: list[list[object]] = []
        for (other, name), lag in lags.items():
            if other != mode:
                continue
            d = lag.as_dict()
            peer = LLMCOMPILER.get(name, "- / -").split(" / ")[1 if chunk == WHOLE else 0]
            peer = "wrong" if chunk == 12 and peer != "-" else peer
            rows.append(
                [name, d["median_ms"], d["worst_ms"], d["floor_median_ms"], d["floor_worst_ms"],
                 d["over_floor_ms"], peer]
            )  # fmt: skip
        print(f"\nms over the ideal, {mode} (scripted model, sleeping tools)")
        headings = ("case", "agentflow", "worst", "floor", "worst", "over floor", "LLMCompiler*")
        print(harness.table(headings, rows))
    print("* published elsewhere with the same pace, not measured in this run\n")
    print(harness.table(("processor time", "µs a token"), list(cpu.items())))
    print("\n" + harness.table(("start", "ms"), list(starts.items())))


def main() -> None:
    """Read the command line, measure, and report."""
    options: argparse.ArgumentParser = harness.parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, help="runs of each case (5; with --quick 2)")
    given = options.parse_args()
    rounds = given.rounds or (2 if given.quick else 5)
    lags, cpu = asyncio.run(measure(chosen(given.quick), rounds))
    starts = starting(3 if given.quick else 9)
    show(lags, cpu, starts)
    latencies: dict[str, dict[str, Any]] = {mode: {} for mode in MODES}
    for (mode, name), lag in lags.items():
        latencies[mode][name] = lag.as_dict()
    results = {"rounds": rounds, "latency": latencies, "cpu_us_per_token": cpu, "start_ms": starts}
    harness.report("planning", results, list(goals(lags, cpu, starts)), given.json)


if __name__ == "__main__":
    main()
