"""What a pool of replicas gains by where it sends what, and when: all policies side by side.

    python benchmarks/affinity.py [--quick] [--json] [--jobs N] [--seeds N] [--only PART]
        [--policy NAME] [--setting NAME] [--trace FILE] [--llama]

Replicas are modelled (`agentflow.testing.serving`); the package's own dispatcher decides. All
policies have the same agents, who do the same whoever serves them, and the same recorded requests.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path

import affinity_llama
import affinity_report as report
import harness
from affinity_cells import Cell, cell
from affinity_contest import FROZEN, ONE, QUICK, SETTINGS, Runs, contest
from affinity_decisions import thinking
from affinity_fairness import SEEDS as FAIR_SEEDS
from affinity_fairness import Fairness, fairness, least_fair
from affinity_report import Found
from affinity_rivals import CHANCE, HASH, LEAST, OURS, POLICIES, SAGA, TABLE, TURNS
from affinity_traces import Fleet, read
from affinity_wire import COMPARED, agreement

PARTS = ("closed", "sweep", "trace", "tenants", "pool", "decisions")
FAIR = (LEAST, TABLE, SAGA, OURS)
REPLICAS = (2, 4, 8, 16)
MEMORY = (0.10, 0.25, 0.50, 1.00)
SEEDS, SEEDS_ELSEWHERE = 5, 3

MAIN = (FROZEN, ONE)
"""Settings with all policies and more seeds."""

BLIND = (TURNS, CHANCE)
"""Policies that the other settings do without: they see nothing of what they decide about."""

MOVES = 1500
"""Moves that hindsight tries."""

CLOSER = (8, 0.10)
"""The fleet that is looked at more closely: with hindsight, and saturated."""

QUICK_CELLS = ((8, 0.10), (8, 1.00))


def parsed() -> argparse.Namespace:
    """The command line."""
    options = harness.parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--seeds", type=int, help="runs of each setting")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options.add_argument("--only", action="append", choices=PARTS, help="a part of it")
    options.add_argument("--policy", action="append", choices=POLICIES, help="only these and ours")
    options.add_argument("--setting", action="append", choices=SETTINGS, help="only these")
    options.add_argument("--llama", action="store_true", help="two real llama.cpp servers as well")
    options.add_argument(
        "--trace", action="append", default=[], metavar="FILE", type=harness.existing,
        help="requests",
    )  # fmt: skip
    return options.parse_args()


def measure(given: argparse.Namespace) -> Found:
    """Everything that was asked for."""
    parts = given.only or PARTS
    found = Found()
    with ProcessPoolExecutor(given.jobs) as pool:
        fair = tenants(given, pool) if "tenants" in parts else {}
        wire = {name: pool.submit(agreement, name) for name in COMPARED if "pool" in parts}
        if "closed" in parts or "sweep" in parts:
            found.closed = closed(given, pool, "sweep" in parts)
        if "trace" in parts:
            found.cells = traces(given, pool)
        found.fair = {n: least_fair(run.result() for run in runs) for n, runs in fair.items()}
        found.wire = {name: run.result() for name, run in wire.items()}
    if "decisions" in parts:
        found.thinking = thinking()
    if given.llama:
        found.llama = affinity_llama.measure(given.quick)
    return found


def tenants(given: argparse.Namespace, pool: Executor) -> dict[str, list[Future[Fairness]]]:
    """Tenants of unequal appetite; ours in several runs, of which the least fair counts."""
    seeds = {OURS: 1 if given.quick else FAIR_SEEDS}
    names = [name for name in FAIR if not (given.quick and name == SAGA)]
    return {
        name: [pool.submit(fairness, name, seed=seed) for seed in range(seeds.get(name, 1))]
        for name in names
    }


def closed(given: argparse.Namespace, pool: Executor, swept: bool) -> dict[str, Runs]:
    """Agents in a closed loop."""
    names = given.setting or ((QUICK if given.quick else tuple(SETTINGS)) if swept else (FROZEN,))
    policies = tuple(dict.fromkeys((*(given.policy or POLICIES), HASH, TABLE, OURS)))
    known = tuple(name for name in policies if name not in BLIND)
    seeds = given.seeds or (1 if given.quick else None)
    chosen = {
        name: (policies, seeds or SEEDS) if name in MAIN else (known, seeds or SEEDS_ELSEWHERE)
        for name in names
    }
    return dict(contest(pool, chosen))


def traces(given: argparse.Namespace, pool: Executor) -> list[Cell]:
    """Recorded requests, on every fleet."""
    moves = MOVES // 10 if given.quick else MOVES
    runs = [
        pool.submit(cell, path, *fleet, moves if fleet == CLOSER else 0)
        for path in given.trace
        for fleet in fleets(path, given.quick)
    ]
    return [run.result() for run in runs]


def fleets(path: Path, quick: bool) -> list[tuple[int, float]]:
    """Replicas and KV, leaving out what has room for no more than the longest request either way."""
    trace = read(path)
    grid = QUICK_CELLS if quick else [(r, m) for r in REPLICAS for m in MEMORY]
    sizes = {(r, Fleet(r, m).serving(trace).capacity): (r, m) for r, m in reversed(grid)}
    return sorted(sizes.values())


def main() -> None:
    """Read the command line, measure, and report."""
    given = parsed()
    found = measure(given)
    report.show(found)
    harness.report("affinity", report.results(found), list(report.goals(found)), given.json)


if __name__ == "__main__":
    main()
