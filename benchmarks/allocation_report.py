"""The tables and the goals of `allocation.py`."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import harness
from allocation_cases import CODERS, SHAPES
from allocation_contest import CANCEL, MCPP, OURS, PLANS, Outcome
from allocation_optimum import Gap
from allocation_scoring import (
    READY,
    Comparison,
    by_group,
    compare,
    hindsight,
    quantiles,
    score,
    significant,
)
from harness import Goal

KNOWN, ITEMS, FULL = "known nodes", "items of a kind", "billed in full"
Outcomes = Mapping[str, list[Outcome]]


@dataclass
class Found:
    """What was measured.

    Attributes:
        step: Seconds charged for a step of ours.
        rows: By row and policy, the episodes through the engine.
        simulated: By row, the policies that are chosen after the fact; without an engine.
        published: With the money rules of the published simulator.
        check: Some of the first row, without an engine.
        wrong: By kind and size of error, with wrong estimates.
        optimum: Small cases beside their optimum.
    """

    step: float
    rows: dict[str, Outcomes] = field(default_factory=dict)
    simulated: dict[str, Outcomes] = field(default_factory=dict)
    published: Outcomes = field(default_factory=dict)
    check: Outcomes = field(default_factory=dict)
    wrong: dict[tuple[str, str], Outcomes] = field(default_factory=dict)
    optimum: list[Gap] = field(default_factory=list)


def _percent(share: float) -> float:
    return 100 * share


def _cell(outcome: Outcome) -> Hashable:
    return outcome.cell


def _family(outcome: Outcome) -> Hashable:
    return SHAPES[outcome.case][1] is CODERS


def _family_and_cell(outcome: Outcome) -> Hashable:
    return _family(outcome), outcome.cell


def figures(outcomes: list[Outcome]) -> dict[str, float]:
    """What a policy came to."""
    its = asdict(score(outcomes))
    for name, ready in (("decision", READY), ("any_decision", None)):
        its[f"{name}_p50_ms"], its[f"{name}_p99_ms"] = quantiles(outcomes, ready)
    return its


def ways(row: Outcomes) -> str:
    """The table of a row."""
    lines = []
    for name, outcomes in row.items():
        its = figures(outcomes)
        other = compare(row[OURS], outcomes)
        lines.append(
            [
                name, _percent(its["success"]),
                f"{_percent(its['low']):.1f} - {_percent(its['high']):.1f}",
                None if name == OURS else f"{_percent(other.difference):+.1f} ± "
                f"{_percent(other.error):.1f}",
                1e3 * its["usd_per_success"], 1e3 * its["usd"], its["samples"],
                its["decision_p50_ms"], its["decision_p99_ms"], its["any_decision_p99_ms"],
            ]
        )  # fmt: skip
    headings = (
        "policy", "success, %", "95 %", "ours, points", "USD/1000 a success", "a run", "samples",
        "decision, p50 ms", "p99", "p99 of all",
    )  # fmt: skip
    return harness.table(headings, lines)


def worst(row: Outcomes) -> dict[str, tuple[Hashable, Comparison, int]]:
    """By opponent, the worst cell, the comparison there, and in how many cells ours is worse."""
    found = {}
    for name, outcomes in row.items():
        if name != OURS:
            cells = by_group(row[OURS], outcomes, _cell)
            least = min(cells, key=lambda cell: (cells[cell].difference, -cells[cell].worse))
            found[name] = (least, cells[least], len(significant(cells)))
    return found


def cells(row: Outcomes) -> str:
    """The table of worst cells."""
    lines = [
        [name, str(cell), _percent(its.difference), its.better, its.worse, its.worse_p, count]
        for name, (cell, its, count) in worst(row).items()
    ]
    headings = (
        "beside", "worst cell (USD, s)", "ours, points", "only ours", "only theirs", "p",
        "cells significantly worse",
    )  # fmt: skip
    return harness.table(headings, lines)


def after_the_fact(played: Outcomes) -> dict[str, float]:
    """Success of the best fixed policies, chosen when all outcomes are known."""
    again = {name: its for name, its in played.items() if name.startswith("retry ")}
    once = {name: its for name, its in played.items() if name.startswith("uniform ")}
    return {
        "uniform, best model": hindsight(once, _family),
        "retry, best": hindsight(again, _family),
        "retry, best for every cell": hindsight(again, _family_and_cell),
    }


def show(found: Found) -> None:
    """Print the tables."""
    print(harness.environment())
    print(f"a step of our planning takes {1e6 * found.step:.0f} µs of virtual time")
    for name, row in found.rows.items():
        print(f"\n{name}, through the engine\n{ways(row)}\n\n{cells(row)}")
    for name, played in found.simulated.items():
        lines = [[key, _percent(share)] for key, share in after_the_fact(played).items()]
        print(f"\n{name}, chosen after the fact, simulated")
        print(harness.table(("policy", "success, %"), lines))
    if found.check:
        print(f"\n{KNOWN}, simulated\n{ways(found.check)}")
    if found.published:
        print(f"\npaid when it begins, as in the published simulator\n{ways(found.published)}")
    if found.wrong:
        print(f"\nestimates that are wrong, simulated\n{sturdy(found.wrong)}")
    if found.optimum:
        print(f"\nsmall plans, simulated, success in %\n{small(found.optimum)}")


def sturdy(wrong: Mapping[tuple[str, str], Outcomes]) -> str:
    """The table of wrong estimates."""
    names = list(next(iter(wrong.values())))
    lines = [
        [f"{kind}, {by}", *(_percent(score(row[name]).success) for name in names)]
        + [1e3 * score(row[name]).usd_per_success for name in names]
        for (kind, by), row in wrong.items()
    ]
    headings = ("estimates", *(f"{name}, %" for name in names), *(f"USD/1000, {n}" for n in names))
    return harness.table(headings, lines)


def small(gaps: list[Gap]) -> str:
    """The table of the optimum."""
    names = list(gaps[0].shares)
    lines = [
        [gap.name, _percent(gap.optimum), *(_percent(gap.shares[name]) for name in names)]
        for gap in gaps
    ]
    return harness.table(("plan", "optimum", *names), lines)


def goals(found: Found) -> Iterator[Goal]:
    """The limits."""
    main = {name: row for name, row in found.rows.items() if name != FULL}
    for name, row in main.items():
        yield from _beats(name, row)
    if main:
        yield from _nowhere_worse(main)
    if FULL in found.rows:
        row = found.rows[FULL]
        yield Goal(f"{FULL}: over MCPP", _points(row, MCPP), 0, "points", False)
        yield Goal(f"{FULL}: over MCPP that cancels", _points(row, CANCEL), 0, "points", False)
    if found.rows:
        rows = list(found.rows.values())
        decisions = [outcome for row in rows for outcome in row[OURS]]
        median, last = quantiles(decisions, READY)
        yield Goal("a decision, p50, up to 4 ready", median, 20, "ms")
        yield Goal("a decision, p99, up to 4 ready", last, 100, "ms")
        over = sum(score(its).overdrawn for row in rows for its in row.values())
        yield Goal("runs that overdrew", over, 0, "runs")
    if found.optimum:
        gap = fmean(its.optimum - its.shares[OURS] for its in found.optimum)
        yield Goal("below the optimum, small plans, mean", _percent(gap), 2, "points")


def _points(row: Outcomes, other: str) -> float:
    return _percent(compare(row[OURS], row[other]).difference)


def _beats(name: str, row: Outcomes) -> Iterator[Goal]:
    """What one row has to show."""
    ours, mcpp = score(row[OURS]), score(row[MCPP])
    yield Goal(f"{name}: over MCPP", _points(row, MCPP), 10, "points", False)
    share = _percent(ours.usd_per_success / mcpp.usd_per_success)
    yield Goal(f"{name}: USD a success, of MCPP's", share, 55, "%")
    yield Goal(f"{name}: over MCPP that cancels", _points(row, CANCEL), 4, "points", False)
    yield Goal(f"{name}: over one that plans for it", _points(row, PLANS), 4, "points", False)


def _nowhere_worse(rows: Mapping[str, Outcomes]) -> Iterator[Goal]:
    """In no cell of the main rows ours may be significantly worse, all cells taken together."""
    for other in (MCPP, CANCEL, PLANS):
        every: dict[Hashable, Comparison] = {}
        for name, row in rows.items():
            its = by_group(row[OURS], row[other], _cell)
            every.update({(name, cell): comparison for cell, comparison in its.items()})
        episodes = sum(len(row[other]) for row in rows.values())
        name = f"cells worse than {other} ({episodes:,} episodes)"
        yield Goal(name, len(significant(every)), 0, "cells")


def results(found: Found) -> dict[str, Any]:
    """Everything, as it stands in the JSON object."""

    def row(its: Outcomes) -> dict[str, Any]:
        return {name: figures(outcomes) for name, outcomes in its.items()}

    return {
        "step_us": 1e6 * found.step,
        "rows": {name: row(its) for name, its in found.rows.items()},
        "worst": {
            name: {
                other: {"cell": cell, "cells_worse": count, **asdict(comparison)}
                for other, (cell, comparison, count) in worst(its).items()
            }
            for name, its in found.rows.items()
        },
        "after_the_fact": {name: after_the_fact(its) for name, its in found.simulated.items()},
        "published_rules": row(found.published),
        "simulated": row(found.check),
        "wrong": {f"{kind}, {by}": row(its) for (kind, by), its in found.wrong.items()},
        "optimum": [asdict(gap) for gap in found.optimum],
    }
