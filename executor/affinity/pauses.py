"""How long a program will be busy with its tools, before it asks its model again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from agentflow.caches.affinity.jobs import Pause
from agentflow.tools.effects import Effect
from agentflow.tools.tool import Tool

ENOUGH = 8
"""Calls of a tool after which their own quantiles count alone."""

COMPUTES = Pause(0.18, 2.4)
FILES = Pause(0.045, 0.32)
DATABASE = Pause(0.12, 0.89)
WEB = Pause(0.85, 4.5)
"""What calls take of tools of which nothing is known: SAGA's (2026) quantiles, Table 2."""

MODEL = Pause(2.0, 20.0)
"""The same of a tool that asks a model itself."""

_KINDS = (
    (("file", "folder", "dir", "disk"), FILES),
    (("db", "sql", "database", "table", "store"), DATABASE),
)


def expected(tool: Tool[..., Any], seconds: Sequence[float]) -> Pause:
    """How long one call of a tool takes.

    Args:
        tool: What is called.
        seconds: What its last calls took, sorted.
    """
    prior = _prior(tool.effect)
    if not seconds:
        return prior
    middle = _quantile(seconds, 0.5)
    if len(seconds) >= ENOUGH:
        return Pause(middle, _quantile(seconds, 0.95))
    return Pause(middle, max(seconds[-1], middle * prior.p95 / prior.p50))


def slowest(pauses: Iterable[Pause]) -> Pause | None:
    """How long calls take that run side by side, all of them; None if there are none."""
    counts = Counter(pauses)
    if counts.total() <= 1:
        return next(iter(counts), None)
    return Pause(_all_done(counts, 0.5), _all_done(counts, 0.95))


def _prior(effect: Effect) -> Pause:
    """What calls of a tool with such effects take, if nothing is known of it."""
    if effect.kind == "samples":
        return MODEL
    if effect.kind == "pure":
        return COMPUTES
    words = " ".join(effect.resources).lower()
    return next((pause for names, pause in _KINDS if any(name in words for name in names)), WEB)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _all_done(counts: Counter[Pause], share: float) -> float:
    """Seconds after which, with this probability, the last of several calls has ended."""
    low = math.log(max(max(pause.p50 for pause in counts), 1e-6))
    high = math.log(max(max(pause.p95 for pause in counts), 1e-6)) + 3.0
    while high - low > 0.01:
        middle = (low + high) / 2
        ended = math.prod(_ended(pause, middle) ** count for pause, count in counts.items())
        low, high = (middle, high) if ended < share else (low, middle)
    return math.exp((low + high) / 2)


def _ended(pause: Pause, log_seconds: float) -> float:
    """Probability that a call has ended by then; its time is log-normal, as in `Pause`."""
    mu = math.log(max(pause.p50, 1e-6))
    sigma = max(1e-3, (math.log(max(pause.p95, pause.p50, 1e-6)) - mu) / 1.6449)
    return 0.5 * math.erfc((mu - log_seconds) / (sigma * math.sqrt(2.0)))
