"""The workloads of `partial.py`, after Conveyor (Xu et al., 2024): what models write, and the tools.

Each workload is one call whose work comes in steps. A step can be done when the text of its mark
has been written, and takes its share of the tool's time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from agentflow import Late, Stream, Warm, tool
from agentflow.clock import now
from agentflow.testing.replies import Call, Pace, Reply
from agentflow.testing.tokens import tokens
from agentflow.tools.builtin import python_tool
from agentflow.tools.streaming import Commit, TextStream
from agentflow.tools.tool import Tool

FIRST_TOKEN, PER_TOKEN = 0.05, 0.005
"""Seconds; the pace of the model."""

WHOLE = 1_000_000
"""Tokens in a chunk when a reply comes at once, at its end."""

Strategy: TypeAlias = Literal["react", "plan"]


@dataclass(frozen=True)
class Workload:
    """One call of a tool, and how its work follows from its arguments.

    Attributes:
        name: In tables.
        tool: What is called; in a plan, what is called last.
        text: What the model writes: the JSON of the arguments, or a plan.
        end: The text with which the arguments are complete.
        marks: For each step, the text it needs; an empty one needs only the tool's name.
        costs: For each step, the seconds it takes.
        strategy: Of the task.
        streamed: Whether without partial execution the reply is streamed all the same. If not,
            it comes whole, and partial execution is on.
        modelled: Whether the tool sleeps instead of working.
    """

    name: str
    tool: str
    text: str
    end: str
    marks: Sequence[str]
    costs: Sequence[float]
    strategy: Strategy = "react"
    streamed: bool = True
    modelled: bool = True

    def reply(self, *, whole: bool = False) -> Reply:
        """What the model says."""
        pace = Pace(FIRST_TOKEN, PER_TOKEN, WHOLE if whole else 1)
        piece = self.text if self.strategy == "plan" else Call(self.tool, self.text)
        return Reply(piece, pace=pace)


class Work:
    """What the tools do instead of working: they sleep.

    Attributes:
        costs: How long, step by step.
        took: How long each step really took.
    """

    def __init__(self) -> None:
        self.costs: Sequence[float] = ()
        self.took: dict[int, float] = {}

    def plan(self, costs: Sequence[float]) -> None:
        """Another run begins."""
        self.costs, self.took = costs, {}

    async def step(self, number: int) -> None:
        """Do one step."""
        began = now()
        await asyncio.sleep(self.costs[number])
        self.took[number] = now() - began

    async def lines(self, text: Any) -> int:
        """A step for each line of a text, as it comes; how many there were."""
        count = 0
        async for _ in text.lines():
            await self.step(count)
            count += 1
        return count


PYTHON = python_tool(isolated=True)


def tools(work: Work) -> list[Tool[..., Any]]:
    """The tools of all workloads; the last is real."""

    @tool(reads="sandbox")
    async def interpret(code: Stream[str]) -> str:
        """Run a program, each statement as soon as it is complete."""
        return f"ran {await work.lines(code)} statements"

    @tool(reads="web")
    async def carry_out(steps: Stream[str]) -> str:
        """Carry out a plan, each line as soon as it is complete."""
        return f"took {await work.lines(steps)} steps"

    @tool(reads="web")
    async def search(query: str, *, connection: Warm[str]) -> str:
        """Search the web over a connection that is made when the tool's name is known."""
        await work.step(1)
        return f"found {query} over {connection}"

    @search.warm
    async def connect() -> str:
        await work.step(0)
        return "a connection"

    @tool(reads="web")
    async def find(query: str, answer: Late[str]) -> str:
        """Search the web as soon as the query is known, then arrange what was found."""
        await work.step(0)
        wanted = await answer
        await work.step(1)
        return f"found {query}, {wanted}"

    @tool(reads="web")
    async def read(number: int, source: str) -> str:
        """Read a source."""
        await work.step(number)
        return f"page {number} of {source}"

    return [interpret, carry_out, search, find, read, PYTHON]


async def empty_program() -> float:
    """Seconds that the real interpreter takes to start, do nothing, and end."""
    began = now()
    await PYTHON.fn(TextStream.of("pass"), commit=Commit())
    return now() - began


def workloads(ratio: float, nothing: float) -> list[Workload]:
    """All workloads but validation, which has no tool time: see `partial_abort.py`.

    Args:
        ratio: How many times as long as its arguments take to write a tool works.
        nothing: Seconds of `empty_program`.
    """
    made = _Maker(ratio)
    program = [f"sum_{n} = sum(sales[{n}:]) - costs[{n}]" for n in range(1, 13)]
    steps = [f"find the population of country {n} and its capital" for n in range(1, 13)]
    return [
        made.lines("code interpreter", "interpret", "code", program),
        made.lines("code interpreter, in a plan", "interpret", "code", program, plan=True),
        made.program("code interpreter, real", nothing),
        made.search("search, warm-up is half", 0.5),
        made.search("search, warm-up is most", 0.9),
        made.find("search, early start"),
        made.lines("planning, one tool", "carry_out", "steps", steps),
        made.chain("planning, lines of a plan"),
    ]


_QUERY = "which of the large lakes in the north of Europe are known for the size of their pike"
_WANTED = "name each lake, the country, and the heaviest pike that was ever caught there"


class _Maker:
    """Makes workloads whose tools work `ratio` times as long as their arguments take to write."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio

    def lines(
        self, name: str, tool: str, parameter: str, lines: Sequence[str], *, plan: bool = False
    ) -> Workload:
        """A tool that works line by line; lines take unequally long."""
        argument = json.dumps("\n".join(lines))
        text = end = f'{{"{parameter}": {argument}}}'
        if plan:
            end = f"{tool}({parameter}={argument})"
            text = f"$1 = {end}\nreturn $1"
        costs = self._divided(text, [(1, 3, 2)[number % 3] for number in range(len(lines))])
        strategy: Strategy = "plan" if plan else "react"
        return Workload(name, tool, text, end, _marks(lines), costs, strategy)

    def program(self, name: str, nothing: float) -> Workload:
        """A real program; its statements sleep."""
        sleeps = 10

        def lines(seconds: float) -> list[str]:
            part = [f"time.sleep({seconds:.4f})  # part {n}" for n in range(1, sleeps + 1)]
            return ["import time", *part]

        seconds = max(0.0, self._total("\n".join(lines(0.0))) - nothing) / sleeps
        text = json.dumps({"code": "\n".join(lines(seconds))})
        marks, costs = ["", *_marks(lines(seconds))], [nothing, 0.0, *[seconds] * sleeps]
        return Workload(name, "python", text, text, marks, costs, modelled=False)

    def search(self, name: str, connecting: float) -> Workload:
        """A tool that can connect when its name is known, and needs the rest for the query."""
        text = json.dumps({"query": f"{_QUERY}; {_WANTED}"})
        costs = self._divided(text, (connecting, 1 - connecting))
        return Workload(name, "search", text, text, ("", text), costs)

    def find(self, name: str) -> Workload:
        """A tool that can begin with its first argument, and ends with the second."""
        text = json.dumps({"query": _QUERY, "answer": _WANTED})
        costs = self._divided(text, (4, 1))
        return Workload(name, "find", text, text, (f'{_QUERY}"', text), costs)

    def chain(self, name: str) -> Workload:
        """A plan whose lines use one another's values; without, it is not streamed."""
        lines = ['$1 = read(number=0, source="the list of the lakes of the north of Europe")']
        for at in range(1, 9):
            source = f"chapter {at} on the fish of ${{{at}}} and the rivers that feed it"
            lines.append(f'${at + 1} = read(number={at}, source="{source}")')
        text = "\n".join([*lines, f"return ${len(lines)}"])
        costs = self._divided(text, [1] * len(lines))
        return Workload(name, "read", text, text, lines, costs, "plan", streamed=False)

    def _total(self, text: str) -> float:
        return self._ratio * len(tokens(text)) * PER_TOKEN

    def _divided(self, text: str, weights: Sequence[float]) -> list[float]:
        each = self._total(text) / sum(weights)
        return [each * weight for weight in weights]


def _marks(lines: Sequence[str]) -> list[str]:
    """What has been written when each line of a text is known to be complete."""
    return [*(f"{line}\\n" for line in lines[:-1]), f'{lines[-1]}"']
