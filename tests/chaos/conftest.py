"""Which seeds are played, and the machine they are played on: virtual time, no sockets."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = str(Path(__file__).parents[2])

if ROOT not in sys.path:  # the parts of the stage are modules beside this one
    sys.path.append(ROOT)

SEEDS = 2000
BATCH = 100

PATIENCE = 120
"""Seconds that a batch may take; one takes about two."""


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


class Stuck(KeyboardInterrupt):
    """Raised where a seed does not come to its end; no part of the engine holds it up."""


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No seed leaves threads or descriptors, and none runs for ever."""
    descriptors, threads = _descriptors(), set(threading.enumerate())
    before: Any = signal.signal(signal.SIGALRM, _stuck)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    for thread in set(threading.enumerate()) - threads:
        thread.join(5.0)
        assert not thread.is_alive(), f"{thread} is left"
    gc.collect()
    assert _descriptors() <= descriptors, "descriptors are left"


def _stuck(_number: int, frame: FrameType | None) -> None:
    place = "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno}"
    raise Stuck(f"a batch takes more than {PATIENCE} s{place}")


def _descriptors() -> int:
    """How many files and sockets are open, where the system says it."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0
