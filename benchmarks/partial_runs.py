"""The measurements of `partial.py`, one after the other."""

from __future__ import annotations

import gc
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import argument_cpu
import partial_light
from partial_abort import PACES, Rejection, forecast, rejections, together
from partial_bound import Fragment, Pair, Timing
from partial_cases import Work, Workload, empty_program, tools, workloads
from partial_engines import Engines
from partial_server import Endpoint, endpoint
from planning import prioritise

RATIOS = (0.5, 1.0, 2.0)
"""Tool time by decoding time."""

VALIDATION = "validation"


@dataclass
class Found:
    """Everything that was measured.

    Attributes:
        pairs: By workload and ratio; of validation, all positions together, by pace.
        rejections: By pace, of all rounds.
        light: Seconds that turns of light tools took longer, by turn.
        through: Microseconds of processor time a character of an argument, through the engine.
        readers: The same, by reader.
    """

    pairs: dict[tuple[str, str], list[Pair]] = field(default_factory=lambda: defaultdict(list))
    rejections: dict[str, list[Rejection]] = field(default_factory=lambda: defaultdict(list))
    light: dict[str, list[float]] = field(default_factory=dict)
    through: dict[str, float] = field(default_factory=dict)
    readers: argument_cpu.Costs = field(default_factory=dict)


class Bench:
    """Runs workloads with partial execution and without.

    Args:
        server: Says what they say.
        **http: Anything that an HTTP client takes.
    """

    def __init__(self, server: Endpoint, **http: Any) -> None:
        self._server = server
        self._work = Work()
        self._engines = Engines(server.base_url, tools(self._work), **http)

    async def pair(self, workload: Workload, *, on_first: bool) -> Pair:
        """One run of each."""
        gc.collect()
        found = {on: await self._timed(workload, on) for on in (on_first, not on_first)}
        return Pair(found[True], found[False])

    async def _timed(self, workload: Workload, on: bool) -> Timing:
        self._work.plan(workload.costs)
        self._server.say(workload.reply(whole=not on and not workload.streamed))
        turn = await self._engines.turn(
            partial=on or not workload.streamed, strategy=workload.strategy
        )
        written, took = turn.written, self._work.took
        assert len(took) == len(workload.marks) or not workload.modelled, "every step, once"
        steps = [
            Fragment(written.at(mark), took.get(number, workload.costs[number]))
            for number, mark in enumerate(workload.marks)
        ]
        decoded, ended = written.at(workload.end), written.ended - written.began
        return Timing(turn.latency, decoded, ended, steps)

    async def aclose(self) -> None:
        """Close the engines."""
        await self._engines.aclose()


async def measure(rounds: int, *, quick: bool) -> Found:
    """All of it; what comes first only warms up."""
    found = Found()
    with endpoint() as server:
        prioritise()
        await measure_workloads(server, found, RATIOS[1:2] if quick else RATIOS, rounds)
        await measure_validation(server, found, 5 if quick else 20, rounds)
        engines = Engines(server.base_url, partial_light.TOOLS)
        found.light = await partial_light.added(engines, server, 10 if quick else 100)
        found.through = await partial_light.processor(engines, server, 1 if quick else 5)
        await engines.aclose()
    found.readers = await argument_cpu.measure(quick)
    return found


async def measure_workloads(
    server: Endpoint, found: Found, ratios: Sequence[float], rounds: int
) -> None:
    """Every workload at every ratio."""
    nothing = statistics.median([await empty_program() for _ in range(5)])
    chosen = {ratio: workloads(ratio, nothing) for ratio in ratios}
    bench = Bench(server)
    await bench.pair(chosen[ratios[0]][0], on_first=True)
    gc.collect()
    gc.freeze()  # what is loaded by now is not looked through in the middle of a run
    for number in range(rounds):
        for ratio, its in chosen.items():
            for workload in its:
                tell(number, f"{workload.name}, E/D {ratio:g}")
                pair = await bench.pair(workload, on_first=number % 2 == 0)
                found.pairs[workload.name, f"{ratio:g}"].append(pair)
    await bench.aclose()


async def measure_validation(server: Endpoint, found: Found, positions: int, rounds: int) -> None:
    """Wrong arguments, uniform over the reply."""
    engines = Engines(server.base_url, [forecast])
    await rejections(server, engines, PACES["1 ms a token"], 1)
    for number in range(rounds):
        for name, pace in PACES.items():
            tell(number, f"{VALIDATION}, {name}")
            its = await rejections(server, engines, pace, positions)
            found.pairs[VALIDATION, name].append(together(its))
            found.rejections[name] += its
    await engines.aclose()


def tell(number: int, what: str) -> None:
    """Say what is being done, to whoever waits."""
    print(f"round {number + 1}: {what} ...", file=sys.stderr, flush=True)
