"""An agent task with tools of your own: a model writes a plan, which runs while it is written.

    python examples/agent_task.py "Where is the spare key?"

Without an endpoint (OPENAI_BASE_URL, AGENTFLOW_MODEL) the model is a rule-based stand-in: it
searches and quotes, and reasons about nothing. The tools, the planning, the engine and the
HTTP between them are real.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agentflow import Budget, Engine, Task, Tool, tool
from agentflow.events import Event, PlanExtended, RunFinished, TextDelta
from agentflow.settings import Settings
from agentflow.testing.standin import MODEL, serve_standin

NOTES = {
    "house.md": "# House\n\nThe spare key is with the neighbours, second floor.\nWater: cellar.",
    "garden.md": "# Garden\n\nThe shed key hangs by the back door.\nTomatoes need water daily.",
    "car.md": "# Car\n\nNext inspection: May. The winter tyres are in the cellar.",
}


@dataclass(frozen=True)
class Found:
    """A line of a note."""

    file: str
    line: int
    text: str


@tool(reads="notes")
async def search_text(pattern: str) -> list[Found]:
    """Search the notes for lines that contain a text, in any case.

    Args:
        pattern: The text to look for, such as one word.
    """
    return [
        Found(name, number, line)
        for name, note in NOTES.items()
        for number, line in enumerate(note.splitlines(), 1)
        if pattern.lower() in line.lower()
    ]


@tool(reads="notes")
async def list_files() -> list[str]:
    """The names of all notes."""
    return list(NOTES)


@tool(reads="notes")
async def read_file(path: str) -> str:
    """A whole note.

    Args:
        path: Its name.
    """
    return NOTES[path]


TOOLS: list[Tool[..., Any]] = [search_text, list_files, read_file]


@asynccontextmanager
async def connected() -> AsyncIterator[Engine]:
    """An engine with the configured endpoint, or with the stand-in where there is none."""
    if Settings.load().base_url:
        async with Engine(tools=TOOLS) as engine:
            yield engine
    else:
        print("no endpoint is configured: the model is a rule-based stand-in\n")
        async with (
            serve_standin() as base_url,
            Engine(tools=TOOLS, base_url=base_url, model=MODEL) as engine,
        ):
            yield engine


def show(event: Event) -> None:
    """Lines of the plan as they join it, then the answer as it is written."""
    match event:
        case PlanExtended():
            print(*event.lines, sep="\n")
        case TextDelta(role="answer"):
            print(event.text, end="", flush=True)


async def main(question: str) -> str:
    task = Task(question, budget=Budget(tokens=100_000, deadline="1m"))
    answer = ""
    async with connected() as engine:
        async for event in engine.stream(task):
            show(event)
            if isinstance(event, RunFinished):
                answer = event.value
    return answer


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "Where is the spare key?"))
