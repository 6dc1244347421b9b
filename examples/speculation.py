"""Calls that are started before they are asked for: a support desk that gets quicker as it learns.

python examples/speculation.py
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from agentflow import Engine, tool, workflow
from agentflow.events import Event, SpeculationUsed, SpeculationWasted


@dataclass
class Order:
    """What the database knows of an order."""

    customer: str
    parcel: str


@tool(reads="orders/{number}", ttl="10m")
async def find_order(number: str) -> Order:
    await asyncio.sleep(0.06)  # a database, say
    return Order(customer=f"c{number[1:]}", parcel=f"p{number[1:]}")


@tool(reads="parcels/{parcel}", ttl="1m")
async def track(parcel: str) -> str:
    await asyncio.sleep(0.06)
    return f"parcel {parcel} is in Ghent"


@tool(reads="customers/{customer}", ttl="10m")
async def look_up(customer: str) -> str:
    await asyncio.sleep(0.06)
    return f"customer {customer}"


async def think() -> None:
    """Where a model would read what there is, and decide what to do next."""
    await asyncio.sleep(0.07)


@workflow
async def answer(ticket: str) -> str:
    await think()
    [number] = re.findall(r"o-\d+", ticket)
    order = await find_order(number)
    await think()
    place = await track(order.parcel)
    await think()
    name = await look_up(order.customer)
    return f"Dear {name}, your {place}."


async def main(tickets: int = 6) -> list[float]:
    """Answer some tickets, and say what each took; the seconds, in order."""
    guesses: list[Event] = []
    took = []
    loop = asyncio.get_running_loop()
    async with Engine(speculation=True) as engine:
        engine.subscribe(guesses.append)
        for number in range(tickets):
            began = loop.time()
            reply = await engine.run(answer, f"Where is my order o-{number + 17}?")
            took.append(loop.time() - began)
            print(f"{took[-1]:.2f} s  {reply}")
    saved = sum(guess.saved for guess in guesses if isinstance(guess, SpeculationUsed))
    in_vain = sum(isinstance(guess, SpeculationWasted) for guess in guesses)
    print(f"{saved:.2f} s of waiting saved; {in_vain} calls made in vain")
    return took


if __name__ == "__main__":
    asyncio.run(main())
