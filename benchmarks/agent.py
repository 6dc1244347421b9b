"""How much sooner many agents are done, and what it costs, by what drives them.

    python benchmarks/agent.py [--sessions FILE] [--quick] [--json] [--peers .venv-peers/bin/python]

Agents work at the same time, each on one program after another, with a budget and a deadline. All
speak HTTP to the same modelled replicas of a model, whose KV is scarce, and call the same tools,
whose times are declared. What drives them is real: a loop written by hand with asyncio and the
openai client, LangGraph's and pydantic-ai's agents, and agentflow with everything and with each
mechanism off. Everything runs on virtual time, in which processor time is none: it stands beside.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import agent_report as report
import harness
from affinity_contest import ACCELERATORS, FROZEN
from agent_rows import HAND, OURS, PEERS, STICKY, WITHOUT, Case, played, played_by
from agent_scene import Played
from harness import Goal

SEEDS = 3
OWN = (HAND, STICKY, OURS, *WITHOUT.values())
QUICK = Case("", agents=16, replicas=1)
OTHERS = {
    "models that make as many calls at once as the most eager recorded one": Case(
        "", habits="eager"
    ),
    "models that make all calls at once that can be": Case("", habits="all"),
    "KV for a quarter of the conversations, not for half": Case("", memory=0.25),
    "KV for three quarters": Case("", memory=0.75),
    "KV for all of them": Case("", memory=1.0),
    "4 agents per replica": Case("", agents=12),
    "32 agents per replica": Case("", agents=96),
    "64 agents per replica": Case("", agents=192),
    "servers of `affinity.py`: 70B": Case("", servers=ACCELERATORS),
    "servers of `affinity.py`: llama.cpp": Case("", servers=FROZEN),
}
"""Other settings, in which by hand and agentflow are compared."""


def measured(cases: Sequence[Case], jobs: int) -> dict[Case, Played]:
    """All runs of these."""
    with ProcessPoolExecutor(jobs) as pool:
        found = {}
        for case, run in zip(cases, pool.map(played, cases), strict=True):
            print(f"{case.row}, seed {case.seed}: done", file=sys.stderr, flush=True)
            found[case] = run
    return found


def by_row(base: Case, rows: Sequence[str], seeds: int, jobs: int) -> dict[str, list[Played]]:
    """Each row, with all seeds."""
    cases = [replace(base, row=row, seed=seed) for seed in range(seeds) for row in rows]
    found = measured(cases, jobs)
    return {row: [run for case, run in found.items() if case.row == row] for row in rows}


def peers(base: Case, seeds: int, python: Path) -> tuple[dict[str, list[Played]], list[str]]:
    """The rows of peers, and what is left out."""
    rows: dict[str, list[Played]] = {}
    left_out = []
    for name in PEERS:
        for seed in range(seeds):
            found = played_by(python, replace(base, row=name, seed=seed))
            if isinstance(found, str):
                left_out.append(f"{name} is left out: {found}")
                break
            rows.setdefault(name, []).append(found)
    return rows, left_out


def sessions(base: Case, seeds: int, jobs: int) -> report.Runs:
    """Recorded sessions, by hand and by agentflow, without what cannot matter for them."""
    rows = (HAND, STICKY, OURS, *(WITHOUT[name] for name in ("partial", "speculation", "affinity")))
    runs = by_row(base, rows, seeds, jobs)
    print(
        "\nrecorded sessions; the customer's time is left out, nothing is planned or estimated\n\n"
        f"{report.rows(runs)}\n\n{report.failures(runs)}"
    )
    return runs


def told(base: Case, runs: report.Runs, left_out: Sequence[str]) -> None:
    """Print the tables of the main setting."""
    ours = runs[OURS]
    bound = sum(run.bound for run in ours) / len(ours)
    hand = report.Figures.of(runs[HAND]).mean
    count, wrong = report.answers(runs)
    print(
        f"{base.agents} agents, {base.replicas} replicas, {len(ours[0].outcomes)} programs in each "
        f"of {len(ours)} runs; an idle server that has all prompts takes {bound:.1f} s along the "
        f"critical path, in the mean: {hand / bound:.2f} times less than by hand\n"
    )
    print(report.rows(runs))
    print("\n".join(left_out))
    print("\n" + report.kinds(runs))
    print("\n" + report.times(runs))
    print(f"\n{count} answers, {wrong} of them not the right one; no right answer in time:")
    print(report.failures(runs))


def others(seeds: int, jobs: int) -> None:
    """Print how by hand and agentflow compare in other settings."""
    lines = []
    for name, base in OTHERS.items():
        runs = by_row(base, (HAND, OURS), seeds, jobs)
        hand, ours = (report.Figures.of(runs[row]) for row in (HAND, OURS))
        success = f"{hand.success:.0%} to {ours.success:.0%}"
        lines.append(
            (name, hand.mean, ours.mean, hand.mean / ours.mean, ours.usd / hand.usd, success)
        )
    headings = ("other settings", "by hand, s", "agentflow, s", "x faster", "x dollars", "success")
    print("\n" + harness.table(headings, lines))


def options() -> argparse.Namespace:
    """The command line."""
    made = harness.parser((__doc__ or "").partition("\n")[0])
    made.add_argument("--sessions", type=harness.existing, help="recorded ones, played as well")
    made.add_argument("--peers", type=Path, default=Path(".venv-peers/bin/python"))
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    made.add_argument("--seeds", type=int, default=SEEDS, help="runs of each row")
    given = made.parse_args()
    if min(given.seeds, given.jobs) < 1:
        made.error("--seeds and --jobs: write 1 or more")
    return given


def main() -> None:
    """Measure, print the tables and the goals."""
    given = options()
    base, seeds = (QUICK, 1) if given.quick else (Case(""), given.seeds)
    print(f"many agents at once; {harness.environment()}")
    print("modelled: replicas, what models say, tools and their times; the rest is real")
    own = by_row(base, OWN, seeds, given.jobs)
    theirs, left_out = peers(base, seeds, given.peers)
    runs = {HAND: own[HAND], STICKY: own[STICKY], **theirs, **own}
    told(base, runs, left_out)
    if not given.quick:
        others(seeds, given.jobs)
    made: list[Goal] = report.goals(runs)
    found = report.results(runs)
    if given.sessions is not None:
        played_back = sessions(replace(base, sessions=str(given.sessions)), seeds, given.jobs)
        found["sessions"] = report.results(played_back)
        made += report.goals(played_back, "sessions: ")
    harness.report("agent", found, made, given.json)


if __name__ == "__main__":
    main()
