"""A trace on one fleet: all policies, what no policy can exceed, and what hindsight finds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from affinity_bounds import Access, belady, ceiling
from affinity_hindsight import Search, Visit, along
from affinity_rivals import LEAST, OURS, POLICIES, TABLE
from affinity_scoring import quantile
from affinity_simulator import Served
from affinity_traces import SATURATED, Fleet, Trace, findable, pace, read, send

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
    """

    cached: int
    own: int
    lru: int
    first: Waits
    whole: Waits
    work: Waits
    moved: float


@dataclass(frozen=True)
class Cell:
    """A trace on a fleet.

    Attributes:
        memory: KV of all replicas over the working set: no less than the longest request needs.
        pace: By what the times of the trace were multiplied.
        tokens: Of all prompts.
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


@lru_cache(maxsize=2)
def _read(path: str) -> Trace:
    return read(path)


def cell(path: str, replicas: int, memory: float, moves: int = 0) -> Cell:
    """All policies on one fleet; with `moves` for hindsight, it is saturated as well."""
    trace, fleet = _read(path), Fleet(replicas, memory)
    blocks = fleet.serving(trace).capacity // trace.block
    times = pace(trace, fleet, LOAD)
    sent = {name: _sent(trace, fleet, name, times, blocks) for name in POLICIES}
    names = (OURS, LEAST, TABLE) if moves else ()
    return Cell(
        trace.name, replicas, memory, blocks * replicas / trace.working_set, times, trace.tokens,
        ceiling(trace.accesses) * trace.block,
        belady(trace.accesses, blocks * replicas) * trace.block,
        _searched(trace, fleet, sent, blocks, moves) if moves else 0,
        sent,
        {name: send(trace, fleet, POLICIES[name], SATURATED).now for name in names},
    )  # fmt: skip


def _visits(trace: Trace) -> list[Visit]:
    return [Visit(r.session, Access(findable(r, trace.block))) for r in trace.requests]


def _sent(trace: Trace, fleet: Fleet, name: str, times: float, blocks: int) -> Sent:
    served = send(trace, fleet, POLICIES[name], times).served
    work: dict[str, float] = defaultdict(float)
    for its in served:
        work[its.ask.session] += its.finished - its.arrived
    whither = _in_order(trace, served)
    visits = _visits(trace)
    parts: dict[str, list[Access]] = defaultdict(list)
    for visit, replica in zip(visits, whither, strict=True):
        parts[replica].append(visit.access)
    known = name in (OURS, TABLE)
    return Sent(
        sum(its.cached for its in served),
        sum(belady(part, blocks) for part in parts.values()) * trace.block if known else 0,
        along(visits, whither, blocks) * trace.block if known else 0,
        Waits.of([its.first - its.arrived for its in served]),
        Waits.of([its.finished - its.arrived for its in served]),
        Waits.of(list(work.values())),
        fmean(its.why not in ("new", "home") for its in served),
    )


def _in_order(trace: Trace, served: Sequence[Served]) -> list[str]:
    """Where each request went, in the order of the trace."""
    went: dict[str, list[Served]] = defaultdict(list)
    for its in sorted(served, key=lambda its: its.arrived):
        went[its.ask.session].append(its)
    turns = {session: iter(every) for session, every in went.items()}
    return [next(turns[its.session]).replica for its in trace.requests]


def _searched(trace: Trace, fleet: Fleet, sent: dict[str, Sent], blocks: int, moves: int) -> int:
    """The best of what the policies found and what a search from their homes finds."""
    visits = _visits(trace)
    names = [f"r{index}" for index in range(fleet.replicas)]
    served = send(trace, fleet, POLICIES[TABLE], 1.0).served
    home = {its.ask.session: its.replica for its in served}
    found = Search(visits, names, blocks, home).improve(moves) * trace.block
    return max(found, *(its.lru for its in sent.values()), *(its.cached for its in sent.values()))
