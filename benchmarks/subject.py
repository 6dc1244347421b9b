"""Measure one engine in a process of its own: time for each shape, and peak memory.

    python benchmarks/subject.py floor:dataflow
    .venv-peers/bin/python benchmarks/subject.py peers.hamilton:engine

Prints one JSON object. A peer that is not installed is said to be ``missing``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
from typing import Any

import harness
from shapes import Engine, Shape, standard

PATIENCE = 10.0  # seconds


async def measure(engine: Engine, shape: Shape, rounds: int) -> dict[str, float]:
    """Median and worst, in microseconds a node, after a warm-up that is not counted.

    An engine that needs seconds for one run is not made to run for minutes: there are no
    further rounds after `PATIENCE`, and then the warm-up may be all there is.
    """
    samples, began = harness.Samples(), harness.monotonic()
    async with engine(shape) as run:
        for _ in range(rounds + 1):
            result = await samples.take(run)
            if result != shape.expected:
                raise AssertionError(f"gave {result!r}, not {shape.expected!r}")
            if harness.monotonic() - began > PATIENCE:
                break
    return samples.without_the_first().as_dict(len(shape.needs))


def subject(name: str, rounds: int, only: str | None) -> dict[str, Any]:
    """Everything there is to know of an engine; shapes it cannot do say why."""
    module, _, attribute = name.partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        return {"missing": error.name or str(error)}
    out: dict[str, Any] = {"shapes": {}}
    # The fan-out goes first: the peak after it is the memory of the fan-out.
    for shape in sorted(standard(), key=lambda shape: shape.name != "fan-out"):
        if only not in (None, shape.name):
            continue
        try:
            out["shapes"][shape.name] = asyncio.run(measure(engine, shape, rounds))
        except Exception as error:  # noqa: BLE001  # a peer's failure is a result
            out["shapes"][shape.name] = {"error": f"{type(error).__name__}: {error}"[:200]}
        out.setdefault("rss_mb", harness.peak_rss_mb())
    return out


def main() -> None:
    """Read the command line, measure, and print the object."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("name", help="module:attribute of the engine")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", help="one shape: chain, fan-out, layers or sleeps")
    given = options.parse_args()
    print(json.dumps(subject(given.name, given.rounds, given.only)))


if __name__ == "__main__":
    main()
