"""What goes wrong, by chance and yet the same for the same seed, in whatever order calls are made."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

Mood = Literal["calm", "bearable", "hostile"]
"""Nothing goes wrong; only what is to be got over; anything."""

TOOL_FAULTS = (
    "raise", "raise after", "odd error", "base error", "cancelled", "hang", "slow",
    "garbage", "nothing", "lingers", "deaf",
)  # fmt: skip

MODEL_FAULTS = (
    "refused", "hang up", "429", "429 later", "429 much later", "500", "503", "html", "400", "cut",
    "cut differently", "unfinished", "garbage", "error", "stall", "silence", "length", "nonsense",
    "doubled", "shuffled", "damaged",
)  # fmt: skip

BEARABLE = ("hang up", "429", "429 later", "500", "503", "cut", "unfinished")
"""After these the same request is made again, and is answered."""

STORE_FAULTS = ("raises", "hangs", "forgets", "is full")

BLOWS = (
    "cancel", "cancel the waiter", "close", "cancel a call", "leave the stream",
    "jump", "long jump", "wall", "changed", "ruin",
)  # fmt: skip


@dataclass(frozen=True)
class Strike:
    """How one attempt of a tool goes: seconds before and after it does its work, and its fault."""

    before: float
    after: float
    fault: str | None


@dataclass(frozen=True)
class Blow:
    """Something that happens to a run from outside, at an event, at a time, or both at random."""

    kind: str
    event: int
    amount: float


class Fate:
    """Draws what happens to each attempt from the seed, what is attempted, and how often it was."""

    def __init__(self, seed: int, mood: Mood) -> None:
        self.mood = mood
        self.struck: Counter[str] = Counter()
        self._seed = seed
        self._times: Counter[str] = Counter()

    def _draw(self, what: str) -> tuple[random.Random, int]:
        times = self._times[what]
        self._times[what] += 1
        return random.Random(f"{self._seed} {what} {times}"), times

    def of_tool(self, name: str, arguments: Any, *, changes: bool, retried: bool) -> Strike:
        """What happens to the next attempt of a call."""
        chance, times = self._draw(f"{name} {arguments}")
        before, after = (chance.choice((0.0, 0.0, 0.1, 0.5, 2.0)) for _ in range(2))
        fault: str | None = None
        if self.mood == "bearable" and retried and times == 0 and chance.random() < 0.3:
            fault = chance.choice(("slow", "raise") if changes else ("slow", "raise", "hang"))
        elif self.mood == "hostile" and chance.random() < 0.2:
            fault = chance.choice(TOOL_FAULTS)
        if fault is not None:
            self.struck[f"tool: {fault}"] += 1
        return Strike(before, after, fault)

    def of_model(self, request: str) -> tuple[str | None, random.Random]:
        """What happens to the next request with this text."""
        chance, times = self._draw(request)
        fault: str | None = None
        if self.mood == "bearable" and times == 0 and chance.random() < 0.4:
            fault = chance.choice(BEARABLE)
        elif self.mood == "hostile" and chance.random() < 0.3:
            fault = chance.choice(MODEL_FAULTS)
        if fault is not None:
            self.struck[f"model: {fault}"] += 1
        return fault, chance

    def of_store(self) -> str | None:
        """What happens to the next access of the second tier of the cache."""
        chance, _ = self._draw("store")
        if self.mood == "calm" or chance.random() > 0.3:
            return None
        fault = chance.choice(STORE_FAULTS[-2:] if self.mood == "bearable" else STORE_FAULTS)
        self.struck[f"store: {fault}"] += 1
        return fault


def blows(chance: random.Random, mood: Mood) -> list[Blow]:
    """What happens to the runs from outside."""
    if mood == "calm":
        return []
    kinds = ("wall", "changed") if mood == "bearable" else BLOWS
    return [
        Blow(chance.choice(kinds), chance.randrange(30), chance.choice((0.3, 5.0, 3600.0)))
        for _ in range(chance.choice((0, 1, 1, 2)))
    ]
