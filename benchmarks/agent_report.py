"""Tables and goals of `agent.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import harness
from agent_rows import HAND, OURS, WITHOUT
from agent_scene import Played
from agent_time import BETWEEN, FAILED, PARTS
from harness import Goal

FASTER = 2.0
DEARER = 1.05
HARM = 1.02
"""By how much a mechanism may make the whole worse on a column that it is meant for."""

Runs = Mapping[str, Sequence[Played]]
"""By row, one run for each seed."""


@dataclass(frozen=True)
class Figures:
    """What is known of a row in one run, or of all programs of several."""

    mean: float
    p50: float
    p99: float
    usd: float
    success: float
    wasted: float
    cached: float
    cost_of_pass: float
    pte: float

    @classmethod
    def of(cls, runs: Sequence[Played]) -> Figures:
        """Of all programs of some runs."""
        ends = sorted(o.completion for run in runs for o in run.outcomes)
        passed = sum(o.success for run in runs for o in run.outcomes)
        usd = sum(run.usd for run in runs)
        return cls(
            fmean(ends),
            median(ends),
            ends[min(len(ends) - 1, int(0.99 * len(ends)))],
            usd / len(ends),
            passed / len(ends),
            sum(run.wasted for run in runs) / len(ends),
            fmean(run.cached for run in runs),
            usd / max(1, passed),
            fmean(run.equivalents for run in runs),
        )


COLUMNS: Mapping[str, Callable[[Figures], float]] = {
    "mean": lambda its: its.mean,
    "dollars": lambda its: its.usd,
    "failures": lambda its: 1 - its.success + 1e-9,
    "cost of pass": lambda its: its.cost_of_pass,
    "not cached": lambda its: 1 - its.cached,
    "PTE": lambda its: its.pte,
}
"""Figures of which less is better, by name."""

MEANT = {
    "planning": ("mean", "dollars", "PTE"),
    "partial": ("mean",),
    "speculation": ("mean",),
    "allocation": ("cost of pass", "dollars"),
    "affinity": ("mean", "PTE", "not cached"),
}
"""What each mechanism is meant to make better."""


def rows(runs: Runs) -> str:
    """The table of all ways."""
    lines = []
    for name, its in runs.items():
        f, hand = Figures.of(its), Figures.of(runs[HAND])
        worst = max(fmean(o.completion for o in run.outcomes) for run in its)
        lines.append(
            (name, f.mean, worst, f.p50, f.p99, hand.mean / f.mean, 1e3 * f.usd, 100 * f.success,
             f.wasted, 100 * f.cached, 1e3 * f.cost_of_pass, f.pte,
             fmean(run.cpu / len(run.outcomes) for run in its) * 1e3)
        )  # fmt: skip
    headings = (
        "driven by", "mean, s", "worst seed", "p50", "p99", "x faster", "milliUSD", "success, %",
        "calls wasted", "cached, %", "mUSD a pass", "PTE", "CPU, ms",
    )  # fmt: skip
    return harness.table(headings, lines)


def kinds(runs: Runs) -> str:
    """The mean completion time of each kind of program."""
    names = sorted({o.kind for run in runs[HAND] for o in run.outcomes})
    lines = []
    for row, its in runs.items():
        ends = [
            fmean(o.completion for run in its for o in run.outcomes if o.kind == kind)
            for kind in names
        ]
        lines.append((row, *ends))
    return harness.table(("mean, s", *names), lines)


def times(runs: Runs) -> str:
    """Where the time of each kind of program goes, by hand and with everything."""
    parts = (*PARTS, BETWEEN, FAILED)
    lines = []
    for row in (HAND, OURS):
        outcomes = [o for run in runs[row] for o in run.outcomes]
        for kind in ("all", *sorted({o.kind for o in outcomes})):
            its = [o for o in outcomes if kind in ("all", o.kind)]
            seconds = [fmean(o.parts[part] for o in its) for part in parts]
            lines.append((row, kind, fmean(o.completion for o in its), *seconds))
    return harness.table(("where the time goes, s", "kind", "mean", *parts), lines)


def answers(runs: Runs) -> tuple[int, int]:
    """How many answers were given, and how many of them differ from the right one.

    That a program cannot answer is no answer.
    """
    given = [o for its in runs.values() for run in its for o in run.outcomes if o.answered]
    return len(given), sum(not o.right for o in given)


def failures(runs: Runs) -> str:
    """Why programs have no right answer in time, by row."""
    lines = []
    for name, its in runs.items():
        counts: dict[str, int] = {}
        for o in (o for run in its for o in run.outcomes if not o.success):
            counts[_why(o.why)] = counts.get(_why(o.why), 0) + 1
        told = ", ".join(f"{count} {why}" for why, count in sorted(counts.items()))
        lines.append(f"  {name}: {told or 'none'}")
    return "\n".join(lines)


def _why(why: str) -> str:
    for sign, name in (
        ("BudgetExceeded", "would not fit into the budget"),
        ("Timeout", "late"),
        ("DeadlineExceeded", "late"),
        ("said", "could not answer"),
    ):
        if sign in why:
            return name
    return why[:60] or "over budget or late"


def goals(runs: Runs, named: str = "") -> list[Goal]:
    """The limits that agentflow sets itself; of recorded sessions that no mechanism harms."""
    hand, ours = Figures.of(runs[HAND]), Figures.of(runs[OURS])
    _, wrong = answers({name: runs[name] for name in (HAND, OURS)})
    made = [
        Goal("completion time, times less than by hand", hand.mean / ours.mean, FASTER, "x", False),
        Goal("dollars, beside by hand", ours.usd / hand.usd, DEARER, "x"),
        Goal("answers that differ", wrong, 0, ""),
    ]
    made = [] if named else made
    for mechanism, columns in MEANT.items():
        if WITHOUT[mechanism] not in runs:
            continue
        off = Figures.of(runs[WITHOUT[mechanism]])
        for column in columns:
            value = COLUMNS[column](ours) / COLUMNS[column](off)
            made.append(Goal(f"{named}{mechanism}: {column}, beside without", value, HARM, "x"))
    return made


def results(runs: Runs) -> dict[str, Any]:
    """Everything, as it stands in the JSON object."""
    return {name: vars(Figures.of(its)) for name, its in runs.items()}
