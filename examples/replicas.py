"""Agents on two replicas of a model, whose memory is scarce: where their conversations go.

    python examples/replicas.py

Each agent reads a report page by page, so each of its prompts is the one before and a page more.
A replica that still holds the beginning computes only the new page; but all conversations
together are twice as long as what both replicas can hold. The replicas are modelled: real HTTP
on this machine, rates and memory of a small server, no model. The last time one of them dies.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agentflow import Engine, Task, tool
from agentflow.events import Event, ModelReplied
from agentflow.testing import Call, ChatCall, ModelledReplica, Serving

SMALL = Serving(prefill=12_000, step=0.002, per_sequence=0.0005, capacity=4_000)
AGENTS, PAGES = 8, 6


@tool(reads="reports/{report}")
async def read_page(report: int, page: int) -> str:
    """One page of a report."""
    await asyncio.sleep(0.02)  # a store of files, say
    return f"Report {report}, page {page}: " + " ".join(f"{word:04}" for word in range(300))


def reader(call: ChatCall) -> str | Call:
    """What the model says: one page after another, then the answer."""
    read = sum(message["role"] == "tool" for message in call.messages)
    report = call.said_by("user").split()[-1]
    if read < PAGES:
        return Call("read_page", {"report": int(report), "page": read + 1})
    return f"Report {report} has {read} pages."


@dataclass
class Figures:
    """What became of all agents together.

    Attributes:
        seconds: Until the last of them had its answer.
        prompts: Tokens of all prompts.
        cached: Of these, those that a replica still held.
        moves: Conversations that went on at another replica, each with the reason.
        answers: What they said.
    """

    seconds: float = 0.0
    prompts: int = 0
    cached: int = 0
    moves: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    def watch(self, event: Event) -> None:
        """Count a reply."""
        if isinstance(event, ModelReplied):
            self.prompts += event.prompt_tokens
            self.cached += event.cached_tokens or 0
            self.moves += (event.moved,) if event.moved else ()


async def agent(engine: Engine, number: int) -> str:
    """One agent; they do not begin all at once."""
    await asyncio.sleep(0.02 * number)
    return await engine.run(Task(f"Read report {number}", strategy="react"))


async def read_all(routing: str, dies_after: float | None = None) -> Figures:
    """All agents, on replicas that hold nothing yet."""
    loop = asyncio.get_running_loop()
    figures = Figures()
    async with (
        ModelledReplica(SMALL, reader, server="vllm") as one,
        ModelledReplica(SMALL, reader, server="vllm") as other,
        Engine(
            tools=[read_page],
            model="modelled",
            base_url=[one.base_url, other.base_url],
            routing=routing,
            subscribers=[figures.watch],
        ) as engine,
    ):
        if dies_after is not None:
            loop.call_later(dies_after, one.kill)
        began = loop.time()
        agents = (agent(engine, number) for number in range(AGENTS))
        figures.answers = tuple(await asyncio.gather(*agents))
        figures.seconds = loop.time() - began
    return figures


async def main() -> dict[str, Figures]:
    """Two ways to choose a replica, and one that dies."""
    found = {
        "sticky": await read_all("sticky"),
        "earliest": await read_all("earliest"),
        "earliest, one dies": await read_all("earliest", dies_after=0.5),
    }
    for name, its in found.items():
        moves = ", ".join(f"{its.moves.count(why)} {why}" for why in sorted({*its.moves}))
        print(
            f"{name:20} {its.seconds:4.1f} s for {len(its.answers)} answers, "
            f"{its.cached / its.prompts:3.0%} of the prompts cached, moved: {moves or 'none'}"
        )
    return found


if __name__ == "__main__":
    asyncio.run(main())
