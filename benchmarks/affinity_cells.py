"""A trace on one fleet: all policies, what no policy can exceed, and what hindsight finds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

from affinity_bounds import Access, belady, ceiling, lru
from affinity_hindsight import Search, Visit, along
from affinity_rivals import LEAST, OURS, POLICIES, TABLE
from affinity_scoring import quantile
from affinity_simulator import Served
from affinity_traces import SATURATED, Fleet, Trace, findable, pace, read, send

STARTS = 5
"""How often sessions that start at random are started."""

LOAD = 0.7
"""Requests, of those the fleet could serve if each went where the fewest are."""


@dataclass(frozen=True)
class Waits:
    """How long something took, in seconds."""

    mean: float
    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Waits:
        """Of each of several."""
        ordered = sorted(seconds)
        return cls(fmean(ordered), quantile(ordered, 0.5), quantile(ordered, 0.99))


@dataclass(frozen=True)
class Sent:
    """A policy on a trace.

    Attributes:
        cached: Tokens of prompts that servers had.
        own: The same by caches that know the future, if each request goes where it went.
        lru: The same by caches that evict what was used longest ago, without time.
        first: From a request to its first token.
        whole: From a request to its last token.
        work: The requests of a session, together.
        moved: Share of requests that went elsewhere than the one before.
        starts: Mean seconds from a request to its last token, for each start.
    """

    cached: int
    own: int
    lru: int
    first: Waits
    whole: Waits
    work: Waits
    moved: float
    starts: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """A trace on a fleet.

    Attributes:
        memory: KV of all replicas over the working set: no less than the longest request needs.
        pace: By what the times of the trace were multiplied.
        tokens: Of all prompts; here and below, of all starts together.
        ceiling: Of these, what a cache finds that forgets nothing.
        belady: What one finds that is as large as all of them, and knows the future.
        best: What the best assignment of sessions finds that was searched for; 0 if none was.
        sent: By policy.
        ends: By policy, when all was answered if nobody waits for anything to send.
    """

    trace: str
    replicas: int
    asked: float
    memory: float
    pace: float
    tokens: int
    ceiling: int
    belady: int
    best: int
    sent: dict[str, Sent]
    ends: dict[str, float]


@lru_cache(maxsize=8)
def _read(path: Path, seed: int) -> Trace:
    return read(path, seed)


def _all(path: Path) -> list[Trace]:
    """A trace; if its sessions start at random, several times."""
    first = _read(path, 0)
    return [first, *(_read(path, seed) for seed in range(1, STARTS if first.agents else 1))]


def cell(path: Path, replicas: int, memory: float, moves: int = 0) -> Cell:
    """All policies on one fleet; with `moves` for hindsight, it is saturated as well."""
    traces, fleet = _all(path), Fleet(replicas, memory)
    trace = traces[0]
    blocks = fleet.serving(trace).capacity // trace.block
    paces = [pace(each, fleet, LOAD) for each in traces]
    sent = {name: _sent(traces, fleet, name, paces, blocks) for name in POLICIES}
    names = (OURS, LEAST, TABLE) if moves else ()
    return Cell(
        trace.name, replicas, memory, blocks * replicas / trace.working_set, fmean(paces),
        sum(each.tokens for each in traces),
        sum(ceiling(each.accesses) for each in traces) * trace.block,
        sum(belady(each.accesses, blocks * replicas) for each in traces) * trace.block,
        _searched(traces, fleet, sent, blocks, moves) if moves else 0,
        sent,
        {name: send(trace, fleet, POLICIES[name], SATURATED).now for name in names},
    )  # fmt: skip


def _visits(trace: Trace) -> list[Visit]:
    return [Visit(r.session, Access(findable(r, trace.block))) for r in trace.requests]


def _sent(
    traces: Sequence[Trace], fleet: Fleet, name: str, paces: Sequence[float], blocks: int
) -> Sent:
    served: list[Served] = []
    work: list[float] = []
    starts: list[float] = []
    own = aged = 0
    for trace, times in zip(traces, paces, strict=True):
        its = send(trace, fleet, POLICIES[name], times).served
        served += its
        starts.append(fmean(one.finished - one.arrived for one in its))
        work += _work(its)
        if name in (OURS, TABLE):
            visits, whither = _visits(trace), _in_order(trace, its)
            own += along(visits, whither, blocks, belady) * trace.block
            aged += along(visits, whither, blocks, lru) * trace.block
    return Sent(
        sum(its.cached for its in served),
        own,
        aged,
        Waits.of([its.first - its.arrived for its in served]),
        Waits.of([its.finished - its.arrived for its in served]),
        Waits.of(work),
        fmean(its.why not in ("new", "home") for its in served),
        tuple(starts),
    )


def _work(served: Sequence[Served]) -> list[float]:
    """Seconds of the answers of each session, together."""
    work: dict[str, float] = defaultdict(float)
    for its in served:
        work[its.ask.session] += its.finished - its.arrived
    return list(work.values())


def _in_order(trace: Trace, served: Sequence[Served]) -> list[str]:
    """Where each request went, in the order of the trace."""
    went: dict[str, list[Served]] = defaultdict(list)
    for its in sorted(served, key=lambda its: its.arrived):
        went[its.ask.session].append(its)
    turns = {session: iter(every) for session, every in went.items()}
    return [next(turns[its.session]).replica for its in trace.requests]


def _searched(
    traces: Sequence[Trace], fleet: Fleet, sent: dict[str, Sent], blocks: int, moves: int
) -> int:
    """The best of what the policies found and what a search from their homes finds."""
    names, found = [f"r{index}" for index in range(fleet.replicas)], 0
    for trace in traces:
        served = send(trace, fleet, POLICIES[TABLE], 1.0).served
        home = {its.ask.session: its.replica for its in served}
        found += Search(_visits(trace), names, blocks, home).improve(moves) * trace.block
    return max(found, *(its.lru for its in sent.values()), *(its.cached for its in sent.values()))
