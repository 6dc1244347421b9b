"""Run a plan file: read it, show what the passes make of it, run it.

python examples/plan_file.py
agentflow run examples/trip.plan --tools examples/plan_file.py
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow import Engine, tool
from agentflow.planner.export import to_text
from agentflow.tools.builtin import calculate

TRIP = Path(__file__).with_name("trip.plan").read_text("utf-8")
EUROS = {("Vienna", "Trieste"): 69.9, ("Trieste", "Vienna"): 59.9}


@dataclass(frozen=True)
class Fare:
    """What a ticket costs."""

    euros: float


@tool(reads="timetable")
async def fare(origin: str, destination: str) -> Fare:
    """The cheapest fare between two cities."""
    await asyncio.sleep(0.2)
    return Fare(EUROS[origin, destination])


@tool(reads="exchange")
async def rate(currency: str) -> float:
    """What one euro is worth in another currency."""
    await asyncio.sleep(0.2)
    return {"CHF": 0.93, "USD": 1.16}[currency]


async def main(text: str = TRIP) -> Any:
    async with Engine(tools=[fare, rate, calculate]) as engine:
        plan = engine.plan(text)
        print(to_text(plan))
        return await engine.run(plan, deadline="10s")


if __name__ == "__main__":
    print(asyncio.run(main()))
