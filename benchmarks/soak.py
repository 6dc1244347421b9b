"""What an engine holds after thousands of runs, and how fast it still is.

    python benchmarks/soak.py [--quick] [--json]

Workflows, plans and agent tasks, 200 at a time, through one engine with everything on, in one
process without a journal and in one with it. The models are scripted, in a process of their own,
behind two endpoints; one call of a tool, one reply and one reader of a run's events in a hundred
goes wrong. The last tenth of the runs is compared with the second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import harness
from harness import Goal

HERE = Path(__file__).parent
MB = 1e6

TRACED = 4
"""One in so many runs is made again while allocations are traced, which takes three times as long."""

Figures: TypeAlias = dict[str, Any]
"""What a process said of itself; see `soak_subject.py`."""


def measure(kind: str, runs: int) -> Figures:
    """All runs, in a process of their own."""
    print(f"{runs:,} runs, {kind} ...", file=sys.stderr, flush=True)
    command = [sys.executable, str(HERE / "soak_subject.py"), kind, "--runs", str(runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def tenths(found: Figures) -> list[dict[str, float]]:
    """Means over each tenth of the runs, and the latencies in it."""
    samples, seconds = found["samples"], found["seconds"]
    size, part = len(samples) // 10, len(seconds) // 10
    return [
        {
            **means(samples[size * n : size * (n + 1)]),
            **latencies(seconds[part * n : part * (n + 1)]),
            "cpu_ms": 1e3 * work(samples, size, n) / part,
            "pace_ms": 1e3 * statistics.median(one["pace"] for one in samples[size * n :][:size]),
        }
        for n in range(10)
    ]


def means(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What was held on average."""
    names = ("rss", "blocks", "traced", "descriptors", "threads", "tasks")
    return {name: statistics.fmean(one[name] for one in samples) for name in names}


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Quantiles of the runs' times, in seconds."""
    ordered = sorted(seconds)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[len(ordered) * 99 // 100],
        "worst": ordered[-1],
    }


def work(samples: Sequence[Mapping[str, float]], size: int, tenth: int) -> float:
    """Seconds of the processor in a tenth."""
    before = samples[size * tenth - 1]["cpu"] if tenth else samples[0]["cpu"]
    last: float = samples[size * (tenth + 1) - 1]["cpu"]
    return last - before


def table(found: Figures) -> str:
    """A process, a tenth of its runs in each line."""
    headings = (
        "tenth", "RSS MB", "blocks, k", "Python MB", "files", "threads", "tasks",
        "p50 s", "p99 s", "worst s", "CPU ms a run", "pace ms",
    )  # fmt: skip
    rows = [
        (
            number,
            one["rss"] / MB,
            one["blocks"] / 1e3,
            one["traced"] / MB or None,
            *(round(one[name]) for name in ("descriptors", "threads", "tasks")),
            *(one[name] for name in ("p50", "p99", "worst", "cpu_ms", "pace_ms")),
        )
        for number, one in enumerate(tenths(found), 1)
    ]
    return harness.table(headings, rows)


def told(found: Figures) -> str:
    """How the runs ended."""
    ended = ", ".join(f"{count:,} {how}" for how, count in sorted(found["ended"].items()))
    struck = ", ".join(f"{count} {how}" for how, count in sorted(found["struck"].items()))
    kept = f"\njournal: {found['journal_bytes'] / MB:,.0f} MB" if found["journal_bytes"] else ""
    return f"ended: {ended}\nfaults of tools: {struck}{kept}"


def growth(found: Figures, name: str, per: str = "") -> float:
    """How many percent more of it there is in the last tenth than in the second.

    Args:
        found: The process.
        name: Of the figure.
        per: Another figure by which it is divided; empty for none.
    """
    early, late = (
        tenth[name] / (tenth[per] if per else 1.0) for tenth in itemgetter(1, -1)(tenths(found))
    )
    more: float = late / early - 1.0
    return 100.0 * more


def more(found: Figures, name: str) -> float:
    """How many more of it there are in the last tenth than in the second."""
    change: float = tenths(found)[-1][name] - tenths(found)[1][name]
    return change


def goals(processes: Mapping[str, Figures]) -> list[Goal]:
    """Nothing grows, nothing is left, nothing is wrong."""
    out = []
    for kind, found in processes.items():
        if kind == "traced":
            out.append(Goal("bytes that Python holds, growth", growth(found, "traced"), 5, "%"))
        else:
            by_pace = growth(found, "cpu_ms", per="pace_ms")
            out += [
                Goal(f"resident memory, growth, {kind}", growth(found, "rss"), 5, "%"),
                Goal(f"blocks that Python holds, growth, {kind}", growth(found, "blocks"), 5, "%"),
                Goal(f"descriptors, more of them, {kind}", more(found, "descriptors"), 10, ""),
                Goal(f"p99 of latency, growth, {kind}", growth(found, "p99"), 15, "%"),
                Goal(f"work of a run by pace, growth, {kind}", by_pace, 10, "%"),
            ]
        bad = len(found["wrong"]) + len(found["unexplained"])
        out.append(Goal(f"wrong answers and failures without a fault, {kind}", bad, 0, "runs"))
        left = sum(map(abs, found["left"].values()))
        out.append(Goal(f"files, threads and tasks left at the end, {kind}", left, 0, ""))
    return out


def show(kind: str, found: Figures) -> None:
    """The table of a process, and what went wrong in it."""
    print(f"\n{kind}\n{table(found)}\n{told(found)}")
    for problem in (*found["wrong"], *found["unexplained"])[:10]:
        print(f"  run {problem}")
    for line, size in found["grown"].items():
        print(f"  {size / 1e3:9,.0f} kB more than after a tenth: {line}")


def options() -> argparse.Namespace:
    """The command line."""
    made = harness.parser((__doc__ or "").partition("\n")[0])
    made.add_argument("--runs", type=int, help="how many (default: 10,000; with --quick 1,000)")
    return made.parse_args()


def main() -> None:
    """Run, print the tables and the goals."""
    given = options()
    runs = given.runs or (1_000 if given.quick else 10_000)
    print(f"soak, {runs:,} runs, 200 at a time, 1 % faults; {harness.environment()}")
    processes = {}
    for kind, share in (("plain", 1), ("kept", 1), ("traced", TRACED)):
        processes[kind] = measure(kind, runs // share)
        show(kind, processes[kind])
    results = {
        kind: {**found, "tenths": tenths(found), "seconds": None, "samples": None}
        for kind, found in processes.items()
    }
    harness.report("soak", results, goals(processes), given.json)


if __name__ == "__main__":
    main()
