"""The three clocks, and the only module that reads them.

Durations and deadlines use the event loop's own time, so that a virtual-time loop
(`agentflow.testing.VirtualLoop`) governs everything. Wall time is for what is
persisted or shown to a person. The monotonic clock is for the watchdog and for CPU cost.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

wall: Callable[[], float] = time.time
"""Wall-clock seconds since the epoch."""

monotonic: Callable[[], float] = time.monotonic
"""Seconds of a clock that is not the loop's; never for decisions of a run."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_DURATIONS = re.compile(rf"(?:{_DURATION.pattern}\s*)+")


def now() -> float:
    """Seconds on the running loop's clock."""
    return asyncio.get_running_loop().time()


def seconds(duration: float | str) -> float:
    """Read a duration: a number of seconds, or text such as ``"250ms"``, ``"8s"``, ``"1h 30m"``.

    Raises:
        ValueError: The text is not a duration, or it is negative.
    """
    if isinstance(duration, str):
        text = duration.strip()
        if _DURATIONS.fullmatch(text):
            parts = _DURATION.findall(text)
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
        try:
            duration = float(text)
        except ValueError:
            raise ValueError(
                f"{text[:40]!r} is not a duration: write seconds, or '250ms', '8s', '10m', '1h 30m'"
            ) from None
    if not duration >= 0:
        raise ValueError(f"a duration cannot be {duration}")
    return float(duration)
