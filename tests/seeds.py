"""Tests that play random cases from seeds: which seeds, in batches that leave nothing behind."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest


def add_options(parser: pytest.Parser, name: str, count: int) -> None:
    """Add ``--NAME-seed`` and ``--NAME-seeds``; `count` seeds are played by default."""
    parser.addoption(f"--{name}-seed", type=int, help="play this seed alone")
    parser.addoption(f"--{name}-seeds", type=int, help=f"how many seeds to play (default {count})")


def parametrize(metafunc: pytest.Metafunc, name: str, count: int, batch: int) -> None:
    """Seeds in batches: a test of its own for each would take longer than the seeds do."""
    if "seeds" not in metafunc.fixturenames:
        return
    only = metafunc.config.getoption(f"--{name}-seed", default=None)
    count = metafunc.config.getoption(f"--{name}-seeds", default=None) or count
    batches = [range(at, min(at + batch, count)) for at in range(0, count, batch)]
    if only is not None:
        batches = [range(only, only + 1)]
    metafunc.parametrize("seeds", batches, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")


class Stuck(KeyboardInterrupt):
    """Raised where a seed does not come to its end; no part of the engine holds it up."""


@contextmanager
def leaving_nothing(patience: int) -> Iterator[None]:
    """Check that seeds leave no threads or descriptors, and that none runs for ever.

    Args:
        patience: Real seconds after which they are broken off.
    """

    def stuck(_number: int, frame: FrameType | None) -> None:
        place = "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno}"
        raise Stuck(f"a batch takes more than {patience} s{place}")

    descriptors, threads = _descriptors(), set(threading.enumerate())
    before: Any = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(patience)
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


def _descriptors() -> int:
    """How many files and sockets are open, where the system says it."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0
