"""Which seeds are played, and the machine they are played on: virtual time, no sockets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])

if ROOT not in sys.path:  # the parts of the stage are modules beside this one
    sys.path.append(ROOT)

SEEDS = 2000
BATCH = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-seed", type=int, help="play this seed alone")
    parser.addoption("--chaos-seeds", type=int, help=f"how many seeds to play (default {SEEDS})")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Seeds in batches: a test of its own for each would take longer than the seeds do."""
    if "seeds" not in metafunc.fixturenames:
        return
    only = metafunc.config.getoption("--chaos-seed", default=None)
    count = metafunc.config.getoption("--chaos-seeds", default=None) or SEEDS
    batches = [range(at, min(at + BATCH, count)) for at in range(0, count, BATCH)]
    if only is not None:
        batches = [range(only, only + 1)]
    metafunc.parametrize("seeds", batches, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
