"""The model of `soak.py`, scripted, in a process of its own; some of its replies go wrong."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from soak_work import wanted

from agentflow.testing import Answer, Call, ChatCall, Fault, Pace, Reply, ScriptedServer

_CUSTOMER = re.compile(r"Customer (\d+)")
_ARTICLE = re.compile(r"Write a headline for: (.*)", re.DOTALL)

_PLAN = """\
Thought: The customer wants two articles.
$1 = lookup(key="a{one}")
$2 = lookup(key="a{two}")
$3 = cost(price=$1.price, count=2)
$4 = buy(order="t{number}", total=$3)
join()
"""


class Scripted:
    """The model.

    Args:
        share: How many replies go wrong.
        seed: Of the chance by which they do.
    """

    def __init__(self, share: float, seed: int = 0) -> None:
        self._share = share
        self._chance = random.Random(seed)

    def __call__(self, call: ChatCall) -> Answer:
        """An answer, or what goes wrong with it."""
        answer = said(call)
        if self._chance.random() >= self._share:
            return answer
        return self._chance.choice(
            (
                Fault.status(500),
                Fault.status(429, retry_after=0.05),
                Fault.cut(*answer.pieces, after=1),
                Fault.unfinished(*answer.pieces),
                Fault.hang_up(),
                Fault.html(),
            )
        )


def said(call: ChatCall) -> Reply:
    """What the model says when nothing goes wrong."""
    asked = call.said_by("user")
    if article := _ARTICLE.search(asked):
        return Reply(f"About {len(article[1])} characters")
    found = _CUSTOMER.search(asked)
    assert found, f"nobody asks this: {asked[:200]}"
    number = int(found[1])
    if call.tools:
        return turn(number, sum(message.get("role") == "tool" for message in call.messages))
    if "the notation" in call.said_by("system"):
        one, two, *_ = wanted(number)
        return Reply(_PLAN.format(one=one, two=two, number=number))
    return Reply(f"Answer: Customer {number} is served.")


def turn(number: int, results: int) -> Reply:
    """A turn of the loop that calls tools, after so many results."""
    first, second, *_ = (f"a{one}" for one in wanted(number))
    if not results:
        return Reply(Call("lookup", {"key": first}), Call("lookup", {"key": second}))
    if results == 2:
        order = {"order": f"r{number}", "total": number}
        return Reply("I buy it.", Call("buy", order), Call("render", {"text": first}))
    return Reply(f"Customer {number} is served.")


@contextmanager
def endpoints(share: float, count: int) -> Iterator[list[str]]:
    """Base URLs of servers in one process of their own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, share, count), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join(5)


def _main(connection: Connection, share: float, count: int) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(connection, share, count))


async def _serve(connection: Connection, share: float, count: int) -> None:
    pace = Pace(tokens_per_chunk=4)
    servers = [ScriptedServer(Scripted(share, seed), pace=pace) for seed in range(count)]
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(connection.fileno(), gone.set)
    for server in servers:
        await server.start()
    connection.send([server.base_url for server in servers])
    while not gone.is_set():
        for server in servers:  # which would remember every request
            server.requests[:] = [one for one in server.requests if one.ended is None]
        with suppress(TimeoutError):
            await asyncio.wait_for(gone.wait(), 1.0)
    for server in servers:
        await server.aclose()
