"""What survives when the process of a run dies, and what that costs.

    python benchmarks/durability.py [--quick] [--json] [--folder FOLDER]

Runs of 200 calls are killed with SIGKILL, again and again, and gone on with in new processes. Their
effects are counted by a server in a process of its own: executions, not keys. Then the power is cut
after any byte that the journal wrote; then time is measured: of a node, of a chain beside one
commit of SQLite a step, and of going on with a run of 10,000 calls.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import durability_cost as cost
import durability_cuts as cuts
import durability_effects as effects
import durability_kills as kills
import durability_recovery as recovery
import harness


def options() -> argparse.Namespace:
    """The command line."""
    made = harness.parser((__doc__ or "").partition("\n")[0])
    made.add_argument("--kills", type=int, help="how many (default: 300; with --quick 20)")
    made.add_argument("--folder", type=Path, help="on the disk that is measured")
    return made.parse_args()


def main() -> None:
    """Kill, cut, measure, print the tables and the goals."""
    given = options()
    count = given.kills or (20 if given.quick else 300)
    print(f"durability; {harness.environment()}\n", flush=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        folder = Path(made)
        with effects.world() as world:
            killer = kills.Killer(world, folder / "kills.db")
            killer.kill(count)
        print(kills.told(killer.tally) + "\n", flush=True)
        cut = cuts.measure(folder, given.quick)
        print(cuts.told(cut) + "\n", flush=True)
        again = recovery.measure(folder, given.quick)
        print(recovery.told(again) + "\n", flush=True)
        costs = asyncio.run(cost.measure(folder, 3 if given.quick else 11))
        print(cost.told(costs))
    harness.report(
        "durability",
        {"kills": kills.results(killer.tally), "cuts": vars(cut), "cost": costs, "again": again},
        [
            *kills.goals(killer.tally, count),
            *cuts.goals(cut, given.quick),
            *recovery.goals(again),
            *cost.goals(costs),
        ],
        given.json,
    )


if __name__ == "__main__":
    main()
