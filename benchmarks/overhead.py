"""What an engine costs for each node: asyncio by hand, agentflow, and its peers.

    python benchmarks/overhead.py [--quick] [--json] [--peers .venv-peers/bin/python]

Four programs of tools that do nothing (`shapes.py`): a chain, a fan-out, layers with three
dependencies each, and 200 tools that sleep for 50 ms. Times of the first three are
processor time, so that a busy machine matters less; the sleeps are wall time. Nothing is
modelled: every figure is a run, and every run's result is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import harness
import scaling
from harness import Goal
from shapes import Engine, Shape, standard

HERE = Path(__file__).parent
FLOOR = "asyncio, dataflow by hand"
HAND_WRITTEN = {"asyncio, TaskGroup a wave": "floor:waves", FLOOR: "floor:dataflow"}
OURS = {
    "agentflow, bare": "ours:bare",
    "agentflow, armed": "ours:armed",
    "agentflow, decorators": "ours:handles",
}
PEERS = {
    "Hamilton async": "peers.hamilton_async:engine",
    "Burr": "peers.burr_actions:engine",
    "pydantic-graph": "peers.pydantic_graph_builder:engine",
    "LangGraph graph": "peers.langgraph_graph:engine",
    "LangGraph functional": "peers.langgraph_functional:engine",
    "LlamaIndex Workflows": "peers.llama_workflows:engine",
    "Dask": "peers.dask_async:engine",
}
TIMES = ("chain", "fan-out", "layers")

Figures: TypeAlias = dict[str, Any]
"""What is known of an engine: ``shapes`` by name and ``rss_mb``, or why there is nothing."""


def load(name: str) -> Engine:
    """The engine behind ``module:attribute``."""
    module, _, attribute = name.partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)
    return engine


async def together(
    engines: Mapping[str, Engine], shape: Shape, rounds: int
) -> dict[str, dict[str, float]]:
    """Figures of several engines in this process, measured in turn."""
    async with AsyncExitStack() as stack:
        runs = {
            name: await stack.enter_async_context(engine(shape)) for name, engine in engines.items()
        }
        found = await harness.interleave(runs, rounds, shape.expected)
    return {name: samples.as_dict(len(shape.needs)) for name, samples in found.items()}


def alone(python: Path, name: str, rounds: int, only: str | None = None) -> Figures:
    """Figures of one engine in a process of its own."""
    command = [str(python), str(HERE / "subject.py"), name, "--rounds", str(rounds)]
    done = subprocess.run(
        [*command, "--only", only] if only else command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LANGSMITH_TRACING": "false", "HAMILTON_TELEMETRY_ENABLED": "false"},
    )
    if done.returncode:
        return {"missing": done.stderr.strip().splitlines()[-1]}
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure_here(rounds: int) -> dict[str, Figures]:
    """The floor and agentflow, interleaved, and the memory of each in its own process."""
    engines = {name: load(where) for name, where in (HAND_WRITTEN | OURS).items()}
    found: dict[str, Figures] = {name: {"shapes": {}} for name in engines}
    for shape in standard():
        for name, figures in asyncio.run(together(engines, shape, rounds)).items():
            found[name]["shapes"][shape.name] = figures
    for name, where in (HAND_WRITTEN | OURS).items():
        found[name]["rss_mb"] = alone(Path(sys.executable), where, 1, "fan-out").get("rss_mb")
    return found


def measure_peers(python: Path, rounds: int) -> dict[str, Figures]:
    """The peers, each in its own process; those that are not installed say so."""
    if not python.exists():
        return {name: {"missing": f"no {python} (make peers)"} for name in PEERS}
    found = {}
    for name, where in PEERS.items():
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        found[name] = alone(python, where, rounds)
    return found


def time_of(figures: Figures, shape: str) -> float | None:
    """Microseconds of processor time a node; wall milliseconds for the sleeps."""
    cell = figures.get("shapes", {}).get(shape, {})
    if shape == "sleeps":
        return cell["wall_us"] * 200 / 1e3 if "wall_us" in cell else None
    value: float | None = cell.get("cpu_us")
    return value


def rows(found: Mapping[str, Figures]) -> list[list[object]]:
    """The table: times, how often the floor they are, and memory."""
    out = []
    for name, figures in found.items():
        if "missing" in figures:
            continue
        row: list[object] = [name]
        for shape in TIMES:
            value = time_of(figures, shape)
            floor = time_of(found[FLOOR], shape)
            row += [value, f"{value / floor:.1f}x" if value and floor else "-"]
            row.append(figures["shapes"].get(shape, {}).get("cpu_us_worst"))
        out.append([*row, time_of(figures, "sleeps"), figures.get("rss_mb")])
    return out


def ratio(found: Mapping[str, Figures], name: str, base: str) -> float:
    """How many times the time of one row another needs, in the worst shape."""
    return max(
        (time_of(found[name], shape) or 0.0) / (time_of(found[base], shape) or 1.0)
        for shape in TIMES
    )


def best(found: Mapping[str, Figures], prefix: str, shape: str) -> float | None:
    """The fastest of the rows whose names start with a word."""
    times = [time_of(figures, shape) for name, figures in found.items() if name.startswith(prefix)]
    return min((time for time in times if time is not None), default=None)


def goals(found: Mapping[str, Figures]) -> list[Goal]:
    """The limits that agentflow sets itself."""
    bare, armed, decorated = OURS
    slowest = max(time_of(found[armed], shape) or 0.0 for shape in TIMES)
    sleeps = max(time_of(found[name], "sleeps") or 0.0 for name in OURS)
    memory = max(found[name].get("rss_mb") or 0.0 for name in OURS)
    out = [
        Goal("bare over dataflow by hand", ratio(found, bare, FLOOR), 1.5, "x"),
        Goal("armed over dataflow by hand", ratio(found, armed, FLOOR), 3.0, "x"),
        Goal("armed, a node", slowest, 15.0, "us"),
        Goal("decorators over dataflow by hand", ratio(found, decorated, FLOOR), 4.0, "x"),
        Goal("200 sleeps of 50 ms, default settings", sleeps, 57.0, "ms"),
        Goal("peak memory of the fan-out", memory, 40.0, "MB"),
    ]
    for shape in TIMES:
        mine = time_of(found[decorated], shape) or 0.0
        others = [best(found, name, shape) for name in PEERS]
        known = [time for time in others if time is not None]
        if known:
            out.append(
                Goal(f"decorators over the fastest peer, {shape}", mine / min(known), 1, "x")
            )
        graph = best(found, "LangGraph", shape)
        if graph is not None:
            share = graph / (time_of(found[bare], shape) or 1.0)
            out.append(Goal(f"LangGraph's best over bare, {shape}", share, 10, "x", at_most=False))
    return out


def options() -> argparse.Namespace:
    """The command line."""
    made = harness.parser((__doc__ or "").partition("\n")[0])
    made.add_argument(
        "--peers",
        type=Path,
        default=HERE.parent / ".venv-peers" / "bin" / "python",
        metavar="PYTHON",
        help="the interpreter that has the peers (default: of make peers)",
    )
    return made.parse_args()


def main() -> None:
    """Measure, print the tables and the goals."""
    given = options()
    print(f"overhead of an engine, no-op tools; {harness.environment()}\n")
    found = measure_here(3 if given.quick else 11)
    found |= measure_peers(given.peers, 1 if given.quick else 5)
    headings = ["median, us CPU a node"]
    for shape in TIMES:
        headings += [shape, "x floor", "worst"]
    print(harness.table([*headings, "sleeps ms", "fan-out MB"], rows(found)))
    for name, figures in found.items():
        if "missing" in figures:
            print(f"not measured: {name}: {figures['missing']}")
    scale = asyncio.run(scaling.measure(load(OURS["agentflow, bare"]), given.quick))
    print("\n" + scaling.table(scale))
    harness.report(
        "overhead", {"rows": found, "scale": scale}, [*goals(found), *scaling.goals(scale)],
        given.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
