"""What a pool of replicas gains by where it sends what, and when: all policies side by side.

    python benchmarks/affinity.py [--quick] [--json] [--jobs N] [--seeds N] [--only PART]

Replicas are modelled (`agentflow.testing.serving`); the package's own dispatcher decides.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial

import harness
from affinity_agents import Setting, lives, play
from affinity_rivals import POLICIES
from affinity_scoring import Figures, figures, together

PARTS = ("closed",)


def measured(setting: Setting, seed: int, name: str) -> Figures:
    """One run of one policy."""
    return figures(setting, lives(setting, seed), play(setting, POLICIES[name], seed))


def closed(
    setting: Setting, names: Iterable[str], seeds: int, jobs: int
) -> dict[str, list[Figures]]:
    """All policies in one setting."""
    tasks = [(name, seed) for name in names for seed in range(seeds)]
    with ProcessPoolExecutor(jobs) as pool:
        runs = [pool.submit(measured, setting, seed, name) for name, seed in tasks]
        found: dict[str, list[Figures]] = {name: [] for name, _ in tasks}
        for (name, _), run in zip(tasks, runs, strict=True):
            found[name].append(run.result())
    return found


def ways(found: Mapping[str, list[Figures]]) -> str:
    """The table of a setting."""
    lines = []
    for name, runs in found.items():
        its = together(runs)
        lines.append(
            [name, its.mean, its.p50, its.p99, its.makespan, 100 * its.cached, 100 * its.again,
             its.bound, its.held, its.first, 100 * its.moved]
        )  # fmt: skip
    headings = ("policy", "task, s", "p50", "p99", "all, s", "cached, %", "again, % busy", "bound",
                "held, s", "first token, s", "moved, %")  # fmt: skip
    return harness.table(headings, lines)


def main() -> None:
    """Read the command line, play, and report."""
    options = harness.parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--seeds", type=int, help="runs of each (5; with --quick 2)")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options.add_argument("--only", action="append", choices=PARTS, help="a part of it")
    options.add_argument("--policy", action="append", choices=POLICIES, help="only these")
    given = options.parse_args()
    seeds = given.seeds or (2 if given.quick else 5)
    found = closed(Setting(), given.policy or POLICIES, seeds, given.jobs)
    print(ways(found))


if __name__ == "__main__":
    main()
