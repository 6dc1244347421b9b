"""Which entries to evict: GDSF against LRU, LFU and what a clairvoyant could save.

The traces are synthetic: Zipf popularity, sizes and costs drawn log-uniformly and
independently. The figure is the share of the cost of all requests that hits save.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any, Protocol

from harness import Goal, table

from agentflow.caches.gdsf import Gdsf

RATIOS = (1, 10, 100)
SKEW = 0.9
SIZES = (200, 20_000)
CAPACITY = 0.05  # of the bytes of all objects


@dataclass(frozen=True)
class Trace:
    """Requests in order, and the size and cost of every object."""

    requests: Sequence[int]
    sizes: Sequence[int]
    costs: Sequence[float]
    capacity: int

    @property
    def total(self) -> float:
        return sum(self.costs[key] for key in self.requests)


class Policy(Protocol):
    """What decides who stays."""

    def hit(self, key: int) -> None: ...

    def add(self, key: int, size: int, cost: float) -> list[int]: ...


class Lru:
    """The least recently used goes first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.sizes: OrderedDict[int, int] = OrderedDict()

    def hit(self, key: int) -> None:
        self.sizes.move_to_end(key)

    def add(self, key: int, size: int, cost: float) -> list[int]:
        out = []
        while self.used + size > self.limit:
            victim, freed = self.sizes.popitem(last=False)
            self.used -= freed
            out.append(victim)
        self.sizes[key] = size
        self.used += size
        return out


class Lfu:
    """The least frequently used goes first; the longest held of equals. It never forgets."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.sizes: dict[int, int] = {}
        self.uses: dict[int, int] = {}
        self.heap: list[tuple[int, int, int]] = []
        self.serial = 0

    def hit(self, key: int) -> None:
        self.uses[key] = self.uses.get(key, 0) + 1
        self.serial += 1
        heappush(self.heap, (self.uses[key], self.serial, key))

    def add(self, key: int, size: int, cost: float) -> list[int]:
        out = []
        while self.used + size > self.limit:
            uses, _, victim = heappop(self.heap)
            if victim in self.sizes and uses == self.uses[victim]:
                self.used -= self.sizes.pop(victim)
                out.append(victim)
        self.sizes[key] = size
        self.used += size
        self.hit(key)
        return out


def zipf(objects: int, length: int, ratio: int, seed: int, shifts: int = 0) -> Trace:
    """A trace; with `shifts`, popularity is dealt anew that many times."""
    chance = random.Random(seed)
    sizes = [round(log_uniform(chance, *SIZES)) for _ in range(objects)]
    costs = [log_uniform(chance, 1, ratio) for _ in range(objects)]
    weights = list(accumulate(1 / (rank + 1) ** SKEW for rank in range(objects)))
    keys = list(range(objects))
    requests: list[int] = []
    for _ in range(shifts + 1):
        chance.shuffle(keys)
        requests += chance.choices(keys, cum_weights=weights, k=length // (shifts + 1))
    return Trace(requests, sizes, costs, int(sum(sizes) * CAPACITY))


def log_uniform(chance: random.Random, low: float, high: float) -> float:
    return math.exp(chance.uniform(math.log(low), math.log(high)))


def saved(policy: Policy, trace: Trace) -> float:
    """The share of the cost that a policy saves."""
    held: set[int] = set()
    gain = 0.0
    for key in trace.requests:
        if key in held:
            gain += trace.costs[key]
            policy.hit(key)
        else:
            held.add(key)
            held.difference_update(policy.add(key, trace.sizes[key], trace.costs[key]))
    return gain / trace.total


def clairvoyant(trace: Trace) -> float:
    """The share that is saved by evicting what is worth least until its next use.

    Bélády's rule (the farthest next use goes first), weighted by cost and size; where
    these are all equal it is optimal. What is not used again is not kept at all.
    """
    following = next_uses(trace.requests)
    until: dict[int, int] = {}
    used, gain = 0, 0.0
    for at, key in enumerate(trace.requests):
        if key in until:
            gain += trace.costs[key]
            used -= trace.sizes[key]
            del until[key]
        if following[at] == math.inf:
            continue
        until[key] = int(following[at])
        used += trace.sizes[key]
        while used > trace.capacity:
            victim = min(until, key=lambda k: worth(trace, k, until[k] - at))
            used -= trace.sizes[victim]
            del until[victim]
    return gain / trace.total


def bound(trace: Trace) -> float:
    """A share that no policy can exceed, however clairvoyant.

    Keeping an object from one use to the next takes its size for that long and saves its
    cost. Taking the best of these until the cache's bytes times its whole life are used up
    relaxes the limit at each moment to one over all of them.

    Source: D. S. Berger, N. Beckmann, M. Harchol-Balter, "Practical bounds on optimal caching
    with variable object sizes", POMACS 2(2), 2018, section 5 (PFOO-U).
    """
    following = next_uses(trace.requests)
    stays = [
        (worth(trace, key, following[at] - at), trace.sizes[key] * (following[at] - at), key)
        for at, key in enumerate(trace.requests)
        if following[at] != math.inf
    ]
    left = float(trace.capacity * len(trace.requests))
    gain = 0.0
    for _, space, key in sorted(stays, reverse=True):
        gain += trace.costs[key] * min(1.0, left / space)
        left -= space
        if left <= 0:
            break
    return gain / trace.total


def worth(trace: Trace, key: int, distance: float) -> float:
    """Cost saved for each byte and request."""
    return trace.costs[key] / (trace.sizes[key] * distance)


def next_uses(requests: Sequence[int]) -> list[float]:
    """Where each request's object is asked for next; infinity for never."""
    following = [math.inf] * len(requests)
    last: dict[int, int] = {}
    for at in range(len(requests) - 1, -1, -1):
        following[at] = last.get(requests[at], math.inf)
        last[requests[at]] = at
    return following


def measure(quick: bool) -> dict[str, dict[str, float]]:
    """The shares saved by each policy, by trace."""
    objects, length = (1_000, 20_000) if quick else (4_000, 120_000)
    found = {}
    for shifts in (0, 4):
        for ratio in RATIOS:
            trace = zipf(objects, length, ratio, seed=ratio, shifts=shifts)
            name = f"cost 1 to {ratio}" + (", shifting" if shifts else "")
            found[name] = {
                "LRU": saved(Lru(trace.capacity), trace),
                "LFU": saved(Lfu(trace.capacity), trace),
                "GDSF": saved(Gdsf(trace.capacity), trace),
                "clairvoyant": clairvoyant(trace),
                "bound": bound(trace),
            }
    return found


def show(found: dict[str, dict[str, float]]) -> str:
    """The table, in percent."""
    headings = ("share of cost saved, %", "LRU", "LFU", "GDSF", "clairvoyant", "no policy above")
    rows: list[list[Any]] = [
        [name, *(100 * share for share in shares.values())] for name, shares in found.items()
    ]
    return table(headings, rows)


def goals(found: dict[str, dict[str, float]]) -> list[Goal]:
    """GDSF saves no less than LRU and LFU anywhere."""
    worst = min(s["GDSF"] / max(s["LRU"], s["LFU"]) for s in found.values())
    near = min(s["GDSF"] / s["bound"] for s in found.values())
    return [
        Goal("GDSF over the better of LRU and LFU, worst trace", worst, 1.0, "x", at_most=False),
        Goal("GDSF over what no policy exceeds, worst trace", near, 0.6, "x", at_most=False),
    ]
