"""Several models may try each call, within a budget and a deadline; runs teach the next ones.

    python examples/budget.py

The models are scripted, each with a speed, a price and a chance to be right; the engine and the
HTTP are real.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from agentflow import Budget, Engine, Prices, llm, workflow
from agentflow.errors import RunError
from agentflow.events import Allocated, Event, SampleEnded
from agentflow.testing import ChatCall, Pace, Reply, ScriptedServer

BUDGET = Budget(usd="0.004", deadline="4s")
TOKENS = 60


@dataclass(frozen=True)
class Modelled:
    """A model: how often it is right, how fast, and at what price for a million tokens."""

    right: float
    per_token: float
    usd: str


MODELS = {
    "small": Modelled(right=0.4, per_token=0.004, usd="0.40"),
    "medium": Modelled(right=0.65, per_token=0.006, usd="1.30"),
    "large": Modelled(right=0.9, per_token=0.012, usd="4.00"),
}


def has_a_figure(text: str) -> str | None:
    return None if "%" in text else "there is no figure in it"


@llm(model=list(MODELS), samples=(1, 2, 4), check=has_a_figure, max_tokens=200)
async def write(section: str, outline: str = "") -> str:
    """Write the section {section}, with a figure. {outline}"""
    raise NotImplementedError


@workflow(budget=BUDGET)
async def brief(topic: str) -> str:
    outline = write(f"outline of {topic}")
    sections = [write(f"{part} of {topic}", outline.ref) for part in ("history", "market")]
    return await write("summary", "\n".join([await section for section in sections]))


class Account:
    """What happened in one run, from its events."""

    def __init__(self) -> None:
        self.chances: list[float] = []
        self.outcomes: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.usd = self.saved = Decimal(0)

    def take(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Allocated(probability=float(chance)):
                self.chances.append(chance)
            case SampleEnded():
                self.outcomes[event.outcome] += 1
                self.passed[event.model] += event.outcome == "passed"
                self.usd += Decimal(event.usd)
                self.saved += Decimal(event.saved)

    def show(self, name: str, seconds: float) -> None:
        """Print what it came to."""
        tried = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        print(f"{name}: {seconds:.1f} s of {BUDGET.deadline:.0f} s, {tried}")
        print(f"  likely: {self.chances[0]:.0%} at the start, {self.chances[-1]:.0%} at the end")
        print(f"  spent ${self.usd:.6f} of ${BUDGET.usd}, saved ${self.saved:.6f} by cancelling")
        print(f"  {', '.join(f'{model} {n}' for model, n in self.passed.items() if n)} passed")


async def main(runs: int = 3) -> list[Account]:
    """Some runs of the workflow; what happened in each."""
    chance = random.Random(5)

    def answer(call: ChatCall) -> Reply:
        model = MODELS[call.body["model"]]
        figure = "up by 4%" if chance.random() < model.right else "up a lot"
        text = f"{figure} " + "and so on " * (chance.randint(TOKENS // 2, TOKENS) // 3)
        return Reply(text, pace=Pace(first_token=0.05, per_token=model.per_token))

    prices = Prices({name: {"input": "0.10", "output": m.usd} for name, m in MODELS.items()})
    accounts = []
    async with (
        ScriptedServer(answer, models=list(MODELS)) as server,
        Engine(base_url=server.base_url, prices=prices, seed=1) as engine,
    ):
        loop = asyncio.get_running_loop()
        for number in range(1, runs + 1):
            accounts.append(account := Account())
            end = engine.subscribe(account.take)
            began = loop.time()
            try:
                await engine.run(brief, "heat pumps")
            except RunError as error:  # the limits held, and were too tight this time
                print(error)
            end()
            account.show(f"run {number}", loop.time() - began)
    return accounts


if __name__ == "__main__":
    asyncio.run(main())
