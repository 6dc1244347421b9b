"""What every benchmark shares: options, interleaved rounds, medians, tables, goals.

A benchmark prints a table for people and, with ``--json``, one object on its last line:
``{"benchmark", "results", "goals": [{"name", "value", "target", "unit", "holds"}]}``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

monotonic = time.perf_counter


def parser(description: str) -> argparse.ArgumentParser:
    """The options every benchmark has: ``--quick`` and ``--json``."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure")
    made.add_argument("--json", action="store_true", help="print one JSON object last")
    return made


def existing(path: str) -> Path:
    """The file that an option names.

    Raises:
        argparse.ArgumentTypeError: There is none.
    """
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return Path(path)


@dataclass
class Samples:
    """What several runs of the same work cost, in seconds."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    async def take(self, run: Callable[[], Awaitable[Any]]) -> Any:
        """Run once, note the processor time and the wall time, and give the result."""
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        result = await run()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        return result

    def without_the_first(self) -> Samples:
        """The samples after the warm-up, if there are any."""
        return Samples(self.cpu[1:], self.wall[1:]) if len(self.cpu) > 1 else self

    def as_dict(self, per: int = 1) -> dict[str, float]:
        """Median and worst in microseconds, divided by a number of operations."""
        scale = 1e6 / per
        return {
            "cpu_us": round(statistics.median(self.cpu) * scale, 3),
            "cpu_us_worst": round(max(self.cpu) * scale, 3),
            "wall_us": round(statistics.median(self.wall) * scale, 3),
            "wall_us_worst": round(max(self.wall) * scale, 3),
        }


async def interleave(
    runs: Mapping[str, Callable[[], Awaitable[Any]]], rounds: int, expected: Any = None
) -> dict[str, Samples]:
    """Measure several ways to do the same work, in turn, so that noise hits all alike.

    The first round only warms up. Every result is compared with `expected`, if given.
    """
    found = {name: Samples() for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            result = await found[name].take(run)
            if expected is not None and result != expected:
                raise AssertionError(f"{name} gave {result!r}, not {expected!r}")
            await asyncio.sleep(0)
    return {name: samples.without_the_first() for name, samples in found.items()}


@dataclass(frozen=True)
class Goal:
    """A figure and its limit; `at_most` says on which side of it the figure has to be."""

    name: str
    value: float
    target: float
    unit: str
    at_most: bool = True

    @property
    def holds(self) -> bool:
        """Whether the figure keeps the limit."""
        return self.value <= self.target if self.at_most else self.value >= self.target

    def as_dict(self) -> dict[str, Any]:
        """The goal as it stands in the JSON object."""
        return {
            "name": self.name,
            "value": round(self.value, 3),
            "target": round(self.target, 3),
            "unit": self.unit,
            "holds": self.holds,
        }


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A text table: the first column to the left, figures to the right."""
    lines = [list(headings), *([show(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    out = []
    for line in lines:
        first, *others = zip(line, widths, strict=True)
        out.append("  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]))
    out.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(out)


def show(cell: object) -> str:
    """A figure with three significant digits, anything else as it is."""
    if not isinstance(cell, float):
        return "-" if cell is None else str(cell)
    digits = 2 if abs(cell) < 10 else 1 if abs(cell) < 100 else 0
    return f"{cell:,.{digits}f}"


def environment() -> str:
    """The machine, in a line: figures of different machines do not compare."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {load}"
    )


def peak_rss_mb() -> float | None:
    """The most memory this process has held, in MB; None where the system does not say.

    Linux's ``ru_maxrss`` counts what the parent held before the program was loaded, so
    the high-water mark of the process itself is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def report(
    benchmark: str, results: Mapping[str, Any], goals: Sequence[Goal], as_json: bool
) -> None:
    """Print the goals for people and, if asked, everything as one JSON object, last."""
    if goals:
        rows = [
            (g.name, g.value, ("<= " if g.at_most else ">= ") + show(g.target), g.unit,
             "holds" if g.holds else "MISSED")
            for g in goals
        ]  # fmt: skip
        print("\n" + table(("goal", "value", "target", "unit", ""), rows))
    if as_json:
        data = {
            "benchmark": benchmark,
            "results": {"environment": environment(), **results},
            "goals": [goal.as_dict() for goal in goals],
        }
        print(json.dumps(data))
    sys.stdout.flush()
