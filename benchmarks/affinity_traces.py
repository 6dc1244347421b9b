"""Recorded requests, sent when they were sent: the order is fixed, whoever serves them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from affinity_bounds import Access
from affinity_simulator import Ask, Maker, Served, Simulation

from agentflow.caches.affinity.policies import LeastLoaded
from agentflow.caches.affinity.prompts import Prompt
from agentflow.testing.serving import Serving

CHARS = 4
"""Characters of a token, where a trace counts these."""

TOKENS = 512
"""Tokens of a block, where a trace counts tokens; where it counts characters, as many of these."""

SATURATED = 1e-3
"""Factor of all times at which no server waits for requests."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request; `at` in seconds."""

    at: float
    session: str
    prompt: Prompt
    output: int


@dataclass(frozen=True)
class Trace:
    """Requests in the order of their times, in blocks of so many tokens.

    Attributes:
        agents: Whether the sessions are those of programs, which know when they have ended.
    """

    name: str
    requests: tuple[Recorded, ...]
    block: int
    agents: bool

    @property
    def accesses(self) -> list[Access]:
        """The requests as caches see them."""
        return [Access(findable(its, self.block)) for its in self.requests]

    @property
    def working_set(self) -> int:
        """Blocks of all prompts, each counted once."""
        return len({key for its in self.requests for key in its.prompt.blocks})

    @property
    def tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(its.prompt.tokens for its in self.requests)


def findable(its: Recorded, block: int) -> tuple[Any, ...]:
    """The blocks that a server can find: the last token is always computed."""
    return tuple(its.prompt.blocks[: (its.prompt.tokens - 1) // block])


def read(path: Path, seed: int = 0) -> Trace:
    """A trace: JSON lines, compressed or not.

    A line is ``{id, t_ms, input, output, session, hash_ids}`` with chained blocks of 512 tokens, or
    has ``input_chars`` and ``output_chars`` in place of ``input`` and ``output``, and blocks of
    512 characters. Sessions of the second kind were recorded one after the other: they start at
    random times here, with their own pauses.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    in_chars = "input_chars" in lines[0]
    requests = _in_chars(lines, seed) if in_chars else _in_tokens(lines)
    ordered = sorted(requests, key=lambda its: its.at)
    block = TOKENS // CHARS if in_chars else TOKENS
    return Trace(path.name.partition(".")[0], tuple(ordered), block, in_chars)


def _in_tokens(lines: Iterable[dict[str, Any]]) -> Iterator[Recorded]:
    for line in lines:
        tokens = line["input"]
        prompt = Prompt(tuple(line["hash_ids"][: tokens // TOKENS]), tokens)
        yield Recorded(line["t_ms"] / 1e3, str(line["session"]), prompt, max(1, line["output"]))


def _in_chars(lines: Iterable[dict[str, Any]], seed: int) -> Iterator[Recorded]:
    begun: dict[str, float] = {}
    random, clock = Random(seed), 0.0
    for line in lines:
        name, at = line["session"], line["t_ms"] / 1e3
        if name not in begun:
            clock += random.expovariate(1.0)
            begun[name] = at - clock
        chars = line["input_chars"]
        prompt = Prompt(tuple(line["hash_ids"][: chars // TOKENS]), max(1, chars // CHARS))
        yield Recorded(at - begun[name], name, prompt, max(1, line["output_chars"] // CHARS))


@dataclass(frozen=True)
class Fleet:
    """What serves a trace: so many replicas, KV over the working set, and the rates of each."""

    replicas: int
    memory: float
    prefill: float = 2000.0
    step: float = 0.020
    per_sequence: float = 0.0005

    def serving(self, trace: Trace) -> Serving:
        """Each of the replicas."""
        each = int(self.memory * trace.working_set / self.replicas) * trace.block
        longest = max(its.prompt.tokens + its.output for its in trace.requests)
        capacity = max(each, longest + trace.block)
        return Serving(
            self.prefill, self.step, self.per_sequence, capacity=capacity, block=trace.block
        )


def send(trace: Trace, fleet: Fleet, maker: Maker, pace: float) -> Simulation:
    """All requests, their times multiplied by `pace`; none before the one before it is answered."""
    simulation = Simulation(maker, fleet.serving(trace), fleet.replicas)
    talks: dict[str, list[Recorded]] = {}
    for its in trace.requests:
        talks.setdefault(its.session, []).append(its)
    for requests in talks.values():
        talk = _Talk(simulation, requests, trace.agents, pace)
        simulation.at(pace * requests[0].at, talk.turn)
    simulation.run()
    return simulation


class _Talk:
    def __init__(
        self, simulation: Simulation, requests: list[Recorded], agents: bool, pace: float
    ) -> None:
        self.simulation = simulation
        self.coming = iter(requests)
        self.left = len(requests)
        self.agents = agents
        self.pace = pace
        self.next = next(self.coming)

    def turn(self) -> None:
        its, self.left = self.next, self.left - 1
        returns = self.agents and self.left > 0
        ask = Ask(its.session, its.prompt, its.output, began=its.at, returns=returns)
        self.simulation.ask(ask, self.answered)

    def answered(self, served: Served) -> None:
        if self.left:
            self.next = next(self.coming)
            self.simulation.at(self.pace * self.next.at, self.turn)
        elif self.agents:
            self.simulation.ended(served.ask.session)


def pace(trace: Trace, fleet: Fleet, load: float) -> float:
    """By what to multiply all times so that the fleet is loaded to this part of what it can do.

    What it can do is what it does by the fewest requests, when none has to wait for another.
    """
    ends = send(trace, fleet, lambda servers: LeastLoaded(), SATURATED).now
    return ends / load / (trace.requests[-1].at - trace.requests[0].at)
