"""How often plans are done within money and time, by who decides what models try.

    python benchmarks/allocation.py [--quick] [--json] [--jobs N] [--episodes N] [--only PART]
        [--pools FILE]

Models are modelled: they take the time, write the tokens and pass or fail as their records say.
All else is the engine's, on virtual time: running, checking, cancelling, reserving, settling.
All policies have the same samples: the n-th of a model at a node is the same whoever asks for it.
Our planning takes virtual time, at the processor time of a step; that of others takes none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import allocation_report as report
import harness
from allocation_contest import (
    CANCEL,
    CHEAPEST,
    MCPP,
    OURS,
    PLANS,
    Error,
    Outcome,
    Part,
    Row,
    fixed,
    parts,
    played,
    step_seconds,
    together,
)
from allocation_engine import through_the_engine
from allocation_optimum import SMALL, Gap, gap
from allocation_report import FULL, ITEMS, KNOWN, Found, Outcomes

MAIN = {KNOWN: Row(), ITEMS: Row(known=False), FULL: Row(refunds=False)}
POLICIES = (OURS, CHEAPEST, MCPP, CANCEL, PLANS)
CHECKED = (OURS, MCPP, CANCEL)
STURDY = (OURS, CANCEL)
PUBLISHED = Row(launch=True, small=True)
PARTS = (*MAIN, "fixed", "engine", "wrong", "optimum")
WRONG = (0.1, 0.3, 0.5)
KINDS = ("passes: too high", "passes: too low", "size: too high", "size: too low", "each model")


def error(kind: str, by: float) -> Error:
    """Estimates that are wrong by a part."""
    if kind == "each model":
        return Error(by, by, each=True)
    by = by if kind.endswith("high") else -by
    return Error(passes=by) if kind.startswith("passes") else Error(size=by)


class Plan:
    """What is asked for on the command line: which parts, how often, in how many processes."""

    def __init__(self, given: Any) -> None:
        self.episodes: int = given.episodes or (1 if given.quick else 3)
        self.few = max(1, self.episodes // 3)
        self.jobs: int = given.jobs
        self.quick: bool = given.quick
        self.pools = str(given.pools or "")
        self._only: list[str] = given.only or ([] if self.pools else list(PARTS))

    def has(self, name: str) -> bool:
        """Whether a part is asked for."""
        return name in self._only


def measure(plan: Plan) -> Found:
    """Play all episodes that are asked for."""
    found = Found(step_seconds())
    engine = partial(played, runner=through_the_engine, step=found.step)
    plain = partial(played, step=found.step)

    def play(work: Iterator[Part], how: partial[dict[str, list[Outcome]]]) -> Outcomes:
        return together(list(work), plan.jobs, how)

    for name, row in MAIN.items():
        if plan.has(name):
            count = plan.few if name == FULL else plan.episodes
            found.rows[name] = play(parts(row, POLICIES, count), engine)
    if plan.pools:
        row = Row(pools=plan.pools)
        found.rows[plan.pools] = play(parts(row, POLICIES, plan.episodes), engine)
    if plan.has("fixed"):
        for name in (KNOWN, ITEMS):
            found.simulated[name] = play(fixed(MAIN[name], plan.episodes), plain)
    if plan.has("engine"):
        found.check = play(parts(MAIN[KNOWN], CHECKED, plan.few), plain)
        found.published = play(parts(PUBLISHED, (OURS, MCPP, CANCEL), plan.few), plain)
    if plan.has("wrong"):
        found.wrong = dict(wrong(plan, play, plain))
    if plan.has("optimum"):
        found.optimum = list(optimum(plan))
    return found


def wrong(
    plan: Plan, play: Callable[..., Outcomes], how: partial[Any]
) -> Iterator[tuple[tuple[str, str], Outcomes]]:
    """The episodes with wrong estimates, and with right ones."""
    yield ("right", "-"), play(parts(Row(small=True), STURDY, 2 * plan.few), how)
    for kind in KINDS:
        for by in WRONG[-1:] if plan.quick else WRONG:
            row = Row(error=error(kind, by), small=True)
            yield (kind, f"{100 * by:.0f} %"), play(parts(row, STURDY, 2 * plan.few), how)


def optimum(plan: Plan) -> Iterator[Gap]:
    """Small plans."""
    episodes = 50 if plan.quick else 300
    with ProcessPoolExecutor(plan.jobs) as pool:
        yield from pool.map(partial(gap, episodes=episodes), SMALL)


def main() -> None:
    """Read the command line, play, and report."""
    options = harness.parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--episodes", type=int, help="of a case and cell (3; with --quick 1)")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options.add_argument("--only", action="append", choices=PARTS, help="a part of it")
    options.add_argument(
        "--pools", metavar="FILE", type=harness.existing, help="records of samples: only these"
    )
    given = options.parse_args()
    found = measure(Plan(given))
    report.show(found)
    harness.report("allocation", report.results(found), list(report.goals(found)), given.json)


if __name__ == "__main__":
    main()
