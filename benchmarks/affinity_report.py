"""The tables and the goals of `affinity.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, overload

import affinity_llama
import harness
from affinity_cells import Cell
from affinity_contest import AMPLE, FROZEN, ONE, Runs
from affinity_decisions import Thinking
from affinity_fairness import Fairness
from affinity_llama import Llama
from affinity_rivals import HASH, LEAST, OURS, TABLE
from affinity_scoring import Figures, together
from affinity_wire import Way
from harness import Goal

GAP = 0.01
"""Share of the tokens of all prompts below which there is no gap to speak of."""

AMPLY = 1.0
"""KV over the working set from which it is called ample."""


@dataclass
class Found:
    """What was measured.

    Attributes:
        closed: By setting.
        cells: By trace and fleet.
        fair: By policy, with tenants of unequal appetite.
        wire: By policy, what the simulator says and what the real pool does.
        thinking: How long decisions took.
        llama: What real servers did.
    """

    closed: dict[str, Runs] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    fair: dict[str, Fairness] = field(default_factory=dict)
    wire: dict[str, tuple[Way, Way]] = field(default_factory=dict)
    thinking: Thinking | None = None
    llama: Llama | None = None


@overload
def _percent(share: float) -> float: ...
@overload
def _percent(share: None) -> None: ...
def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def figures(runs: Runs, name: str) -> Figures:
    """The medians of a policy."""
    return together([run.figures for run in runs[name]])


def others(runs: Runs) -> dict[str, Figures]:
    """The medians of all policies but ours."""
    return {name: figures(runs, name) for name in runs if name != OURS}


def best(runs: Runs) -> str:
    """The other policy whose sessions take least."""
    means = {name: its.mean for name, its in others(runs).items()}
    return min(means, key=means.__getitem__)


def sticky(runs: Runs) -> str:
    """The better of the sticky ones."""
    return min((HASH, TABLE), key=lambda name: figures(runs, name).mean)


def speedups(runs: Runs, other: str) -> list[float]:
    """By how much sessions take longer with another policy, seed by seed."""
    pairs = zip(runs[other], runs[OURS], strict=True)
    return [theirs.figures.mean / ours.figures.mean for theirs, ours in pairs]


def closes(runs: Runs) -> float | None:
    """What share ours closes of the gap in cached tokens between the table and the future."""
    shares = []
    for theirs, ours in zip(runs[TABLE], runs[OURS], strict=True):
        gap = (theirs.future or 0.0) - theirs.figures.cached
        if gap < GAP:
            return None
        shares.append((ours.figures.cached - theirs.figures.cached) / gap)
    return median(shares)


def ways(runs: Runs) -> str:
    """The table of a setting."""
    lines = []
    for name in runs:
        its, worst = figures(runs, name), max(run.figures.mean for run in runs[name])
        lines.append(
            [name, its.mean, worst, its.p50, its.p99, its.makespan, its.first, its.held,
             _percent(its.cached), _percent(its.ceiling), _percent(its.again), its.bound,
             _percent(its.moved)]
        )  # fmt: skip
    headings = (
        "policy", "task, s", "worst seed", "p50", "p99", "all, s", "first token, s", "held, s",
        "cached, %", "ceiling, %", "again, % of busy", "bound", "moved, %",
    )  # fmt: skip
    return harness.table(headings, lines)


def sweep(closed: dict[str, Runs]) -> str:
    """The table of all settings."""
    lines = []
    for name, runs in closed.items():
        ours, rival, table = figures(runs, OURS), best(runs), sticky(runs)
        lines.append(
            [name, ours.mean, figures(runs, table).mean, median(speedups(runs, table)),
             min(speedups(runs, table)), figures(runs, table).bound, rival,
             median(speedups(runs, rival)), _percent(figures(runs, TABLE).cached),
             _percent(ours.cached), _percent(median(run.future or 0 for run in runs[TABLE])),
             _percent(ours.ceiling), _percent(closes(runs))]
        )  # fmt: skip
    headings = (
        "setting", "ours, s", "sticky, s", "faster, x", "worst seed", "bound", "best other",
        "faster, x", "cached: table, %", "ours", "the future", "ceiling", "gap closed, %",
    )  # fmt: skip
    return harness.table(headings, lines)


def trace(cell: Cell) -> str:
    """The table of a trace on a fleet."""
    lines = [
        [name, _percent(its.cached / cell.tokens), _percent(its.cached / cell.ceiling),
         _percent(its.cached / cell.belady), its.first.mean, its.first.p50, its.first.p99,
         its.whole.mean, its.whole.p50, its.whole.p99, its.work.mean, its.work.p99,
         _percent(its.moved)]
        for name, its in cell.sent.items()
    ]  # fmt: skip
    headings = (
        "policy", "cached, %", "of the ceiling", "of Bélády", "first token, s", "p50", "p99",
        "answer, s", "p50", "p99", "session's answers, s", "p99", "moved, %",
    )  # fmt: skip
    return harness.table(headings, lines)


def rival(cell: Cell) -> str:
    """The other policy whose answers take least, in the median of all starts."""
    means = {name: median(its.starts) for name, its in cell.sent.items() if name != OURS}
    return min(means, key=means.__getitem__)


def gains(cell: Cell) -> list[float]:
    """By how much that policy's answers take longer than ours, start by start."""
    pairs = zip(cell.sent[rival(cell)].starts, cell.sent[OURS].starts, strict=True)
    return [theirs / ours for theirs, ours in pairs]


def fleets(cells: list[Cell]) -> str:
    """The table of all traces and fleets."""
    lines = []
    for its in cells:
        ours = its.sent[OURS]
        lines.append(
            [f"{its.trace}, {its.replicas}", _percent(its.asked), _percent(its.memory),
             _percent(its.ceiling / its.tokens), _percent(its.belady / its.tokens),
             _percent(ours.cached / its.tokens), _percent(ours.cached / ours.own),
             _percent(its.best / its.tokens) if its.best else None,
             _percent((its.best - ours.cached) / its.best) if its.best else None,
             ours.whole.mean, rival(its), median(gains(its)), min(gains(its))]
        )  # fmt: skip
    headings = (
        "trace, replicas", "KV asked, %", "KV, %", "ceiling, %", "Bélády, %", "ours, %",
        "of its own Bélády", "hindsight, %", "regret, %", "answer, s", "best other", "faster, x",
        "worst start",
    )  # fmt: skip
    return harness.table(headings, lines)


def fair(found: dict[str, Fairness]) -> str:
    """The table of tenants."""
    tenants = sorted(next(iter(found.values())).shares)
    lines = [
        [name, *(_percent(its.shares[t]) for t in tenants), *(its.mean[t] for t in tenants),
         its.ahead or None, its.bound]
        for name, its in found.items()
    ]  # fmt: skip
    headings = (
        "policy", *(f"{t}, %" for t in tenants), *(f"{t}, s" for t in tenants),
        "ahead at most, tokens", "bound",
    )  # fmt: skip
    return harness.table(headings, lines)


def wire(found: dict[str, tuple[Way, Way]]) -> str:
    """The table of the simulator and the pool."""
    lines = [
        [name, model.seconds, real.seconds, _percent(model.cached), _percent(real.cached)]
        for name, (model, real) in found.items()
    ]
    headings = ("policy", "simulated, s", "pool, s", "simulated: cached, %", "pool: cached, %")
    return harness.table(headings, lines)


def show(found: Found) -> None:
    """Print the tables."""
    print(harness.environment())
    for name, runs in found.closed.items():
        print(f"\nagents, {name}\n{ways(runs)}")
    if len(found.closed) > 1:
        print(f"\nagents, all settings\n{sweep(found.closed)}")
    for cell in found.cells:
        kv = f"KV {_percent(cell.memory):.0f} % of the working set"
        print(f"\n{cell.trace}, {cell.replicas} replicas, {kv}\n{trace(cell)}")
        for name, ends in cell.ends.items():
            print(f"saturated, {name}: all answered after {ends:,.0f} s")
    if found.cells:
        print(f"\ntraces, all fleets\n{fleets(found.cells)}")
    if found.fair:
        print(f"\ntenants of unequal appetite\n{fair(found.fair)}")
    if found.wire:
        print(f"\nsimulated, and through the pool\n{wire(found.wire)}")
    if (its := found.thinking) is not None:
        print(
            f"\n{its.calls:,} decisions, {its.sessions:,} sessions, {its.replicas} replicas:"
            f" p50 {1e3 * its.p50:.3f} ms, p99 {1e3 * its.p99:.3f} ms,"
            f" worst {1e3 * its.worst:.1f} ms"
        )
    if found.llama is not None:
        print(f"\n{affinity_llama.show(found.llama)}")


def goals(found: Found) -> Iterator[Goal]:
    """The limits."""
    if FROZEN in found.closed:
        runs = found.closed[FROZEN]
        gain = speedups(runs, sticky(runs))
        yield Goal("agents, frozen: faster than sticky", median(gain), 1.64, "x", False)
        yield Goal("agents, frozen: in the worst seed", min(gain), 1.64, "x", False)
    for name in (ONE, FROZEN):
        if name in found.closed and (share := closes(found.closed[name])) is not None:
            name = f"agents, {name}: gap to the future closed"
            yield Goal(name, _percent(share), 60, "%", False)
    if AMPLE in found.closed:
        its = figures(found.closed[AMPLE], OURS)
        share = _percent(its.cached / its.ceiling)
        yield Goal(f"agents, {AMPLE}: cached, of the ceiling", share, 95, "%", False)
    yield from _nowhere_worse(found)
    yield from _traces(found.cells)
    if OURS in found.fair:
        part = found.fair[OURS].ahead / found.fair[OURS].bound
        yield Goal("a tenant ahead of another, of the bound", _percent(part), 100, "%")
    if found.wire:
        off = max(abs(model.seconds / real.seconds - 1) for model, real in found.wire.values())
        yield Goal("the simulator's sessions, off the pool's at most", _percent(off), 5, "%")
    if found.thinking is not None:
        yield Goal("a decision, p99", 1e3 * found.thinking.p99, 1, "ms")
    if found.llama is not None:
        yield from affinity_llama.goals(found.llama)


def _nowhere_worse(found: Found) -> Iterator[Goal]:
    """How much slower ours is than the best other policy, where it is slowest."""
    if found.closed:
        slower = {n: median(speedups(runs, best(runs))) for n, runs in found.closed.items()}
        yield _worst("agents", slower)
    if found.cells:
        slower = {
            f"{c.trace}, {c.replicas} replicas, KV {_percent(c.asked):.0f} %": median(gains(c))
            for c in found.cells
        }
        yield _worst("traces", slower)


def _worst(what: str, faster: dict[str, float]) -> Goal:
    where = min(faster, key=faster.__getitem__)
    name = f"{what}: slower than the best other at worst ({where})"
    return Goal(name, _percent(1 / faster[where] - 1), 3, "%")


def _traces(cells: list[Cell]) -> Iterator[Goal]:
    ample = [c.sent[OURS].cached / c.ceiling for c in cells if c.memory >= AMPLY]
    if ample:
        name = "traces, ample KV: cached, of the ceiling, at worst"
        yield Goal(name, _percent(min(ample)), 95, "%", False)
    for cell in cells:
        if cell.ends:
            part = _percent(cell.ends[LEAST] / cell.ends[OURS])
            name = f"{cell.trace}: throughput when saturated, of least loaded"
            yield Goal(name, part, 95, "%", False)


def results(found: Found) -> dict[str, Any]:
    """Everything, as it stands in the JSON object."""
    return {
        "agents": {
            name: {
                "gap_closed": closes(runs),
                "policies": {policy: asdict(figures(runs, policy)) for policy in runs},
                "means": {p: [run.figures.mean for run in its] for p, its in runs.items()},
            }
            for name, runs in found.closed.items()
        },
        "traces": [asdict(cell) for cell in found.cells],
        "tenants": {name: asdict(its) for name, its in found.fair.items()},
        "pool": {name: [asdict(way) for way in ways] for name, ways in found.wire.items()},
        "thinking": None if found.thinking is None else asdict(found.thinking),
        "llama": None if found.llama is None else affinity_llama.results(found.llama),
    }
