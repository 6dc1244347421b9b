"""Answers a question about a folder of files: once by a plan, once turn by turn, and compares.

    python examples/demo.py
    python examples/demo.py "your question" --root some/folder

Without a configured endpoint (OPENAI_BASE_URL, OPENAI_API_KEY, AGENTFLOW_MODEL) the model is a
rule-based stand-in, served in this process. Everything else is real: the files, the tools, the
planning, the engine and the HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agentflow import Engine, Task, events
from agentflow.settings import Settings
from agentflow.testing.standin import MODEL, serve_standin
from agentflow.tools.builtin import default_tools

# In two halves, or this file would hold the best passage.
QUESTION = "What is done with a {} that never {}?".format("thread", "ends")
HERE = Path(__file__).parents[1]


@dataclass
class Account:
    """What one way of answering took."""

    strategy: str
    seconds: float = 0.0
    model_calls: int = 0
    tool_calls: int = 0
    tokens: int = 0


async def answer(engine: Engine, task: Task) -> Account:
    """Answer a question, and tell what happens meanwhile."""
    print(f"\n=== strategy {task.strategy!r}: {task.question}\n")
    account = Account(task.strategy)
    began, place = 0.0, ""
    starts: dict[int, float] = {}
    names: dict[int, str] = {}
    async for event in engine.stream(task):
        began = began or event.at
        clock = f"{event.at - began:6.2f} s "
        match event:
            case events.RoundStarted():
                print(f"{clock} {event.kind}, round {event.number} {event.reason}")
            case events.PlanExtended():
                named = zip(event.nodes, event.lines, strict=True)
                names.update((node, line.split()[0]) for node, line in named)
                print("".join(f"{clock}   {line}\n" for line in event.lines), end="")
            case events.NodeStarted():
                starts.setdefault(event.node, event.at)
                account.tool_calls += 1
            case events.NodeFinished(element=None):
                spent = 1000 * (event.at - starts.get(event.node, event.at))
                print(f"{clock}     {names[event.node]} {event.tool} done in {spent:.1f} ms")
            case events.NodeFailed(element=None) | events.NodeSkipped():
                print(f"{clock}     {names[event.node]} {event.tool} gave nothing")
            case events.TextDelta(role="answer"):
                print(event.text if place else f"\n{event.text}", end="", flush=True)
                place = "answer"
            case events.ModelReplied():
                account.model_calls += 1
                account.tokens += event.prompt_tokens + event.completion_tokens
            case events.RunFailed():
                raise event.error
            case events.RunFinished():
                account.seconds = event.at - began
    print()
    return account


def compare(accounts: list[Account]) -> None:
    print(f"\n{'strategy':<10}{'seconds':>10}{'model calls':>14}{'tool calls':>12}{'tokens':>10}")
    for a in accounts:
        row = f"{a.strategy:<10}{a.seconds:>10.2f}{a.model_calls:>14}{a.tool_calls:>12}"
        print(f"{row}{a.tokens:>10,}")


@asynccontextmanager
async def connected(root: Path) -> AsyncIterator[Engine]:
    """An engine for the configured model, or for the stand-in."""
    tools = default_tools(root)
    if Settings.load().base_url:
        async with Engine(tools=tools) as engine:
            yield engine
        return
    print(f"No endpoint is configured: the model is {MODEL!r}, not a language model.")
    print("The tools, the planning, the engine and the HTTP are real. For a real model set")
    print("OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFLOW_MODEL.")
    async with serve_standin() as url, Engine(tools=tools, base_url=url, model=MODEL) as engine:
        yield engine


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--root", type=Path, default=HERE, help="the folder to look into")
    options = parser.parse_args()
    plan, react = (
        Task(options.question, strategy="plan"),
        Task(options.question, strategy="react"),
    )
    async with connected(options.root) as engine:
        compare([await answer(engine, plan), await answer(engine, react)])


if __name__ == "__main__":
    asyncio.run(main())
