"""Validation: a model is stopped at an argument that cannot be, wherever in its reply that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from partial_bound import Pair, Stopped, Timing
from partial_engines import Engines, Turn
from partial_server import Endpoint
from partial_wire import Written

from agentflow import tool
from agentflow.testing.replies import Call, Pace, Reply
from agentflow.testing.tokens import tokens

WORDS = 200
"""How many the reply has around the argument; each is a token."""

PACES = {
    "5 ms a token": Pace(0.05, 0.005),
    "1 ms a token": Pace(0.05, 0.001),
    "1 ms a token, 8 a chunk": Pace(0.05, 0.001, 8),
}

PLACE = "Atlantis"


@tool(check={"place": lambda place: place != PLACE or "there is no such place"})
async def forecast(reason: str, place: str, details: str) -> str:
    """Forecast the weather of a place."""
    return f"rain in {place}, {details}, because {reason}"


@dataclass(frozen=True)
class Rejection:
    """The same reply with a wrong argument, stopped there and read to its end.

    Attributes:
        on: Stopped, as the client saw it.
        off: Read to its end.
        sent: What the server sent of the one that was stopped.
        whole: What it sent of the other.
    """

    on: Turn
    off: Turn
    sent: Written
    whole: Written

    @property
    def earliest(self) -> float:
        """Seconds from the first token until the wrong argument had reached the client."""
        return self.on.written.at(f'"{PLACE}"')

    @property
    def stopped(self) -> Stopped:
        """What became of its tokens."""
        seen = self.on.written.began + self.earliest
        late = _after(self.sent)
        return Stopped(
            after=_count(_after(self.whole)),
            decoded=_count(late),
            in_flight=_count([(at, text) for at, text in late if at <= seen]),
        )


def _after(reply: Written) -> Sequence[tuple[float, str]]:
    """What was sent after the wrong argument."""
    return reply.pieces[reply.until(f'"{PLACE}"') :]


def _count(pieces: Sequence[tuple[float, str]]) -> int:
    return sum(len(tokens(text)) for _, text in pieces)


def together(found: Sequence[Rejection]) -> Pair:
    """All positions as one turn of mean length, which could have ended with its wrong argument."""
    decoded = fmean(it.off.written.ended - it.off.written.began for it in found)
    earliest = fmean(it.earliest for it in found)
    on, off = fmean(it.on.latency for it in found), fmean(it.off.latency for it in found)
    return Pair(Timing(on, decoded, earliest, ()), Timing(off, decoded, decoded, ()))


async def rejections(
    server: Endpoint, engines: Engines, pace: Pace, positions: int
) -> list[Rejection]:
    """The wrong argument at so many places, uniform over the reply."""
    server.served()
    found = []
    for number in range(positions):
        before = round(WORDS * (number + 0.5) / positions)
        reply = Reply(Call("forecast", _arguments(before)), pace=pace)
        order = (True, False) if number % 2 else (False, True)
        turns, sent = {}, {}
        for on in order:
            server.say(reply)
            turns[on] = await engines.turn(partial=on, strategy="react")
            sent[on] = Written.read(server.served()[0].sent)
        found.append(Rejection(turns[True], turns[False], sent[True], sent[False]))
    return found


def _arguments(before: int) -> str:
    texts = {"reason": " word" * before, "place": PLACE, "details": " word" * (WORDS - before)}
    return json.dumps(texts)
