"""How slow is slow, and how many calls have a second attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from agentflow.executor.calls.hedging import ENOUGH, WINDOW, Hedge, Latencies
from agentflow.executor.speculation.guesses import Unasked
from agentflow.executor.state.gates import Gate
from agentflow.tools.policy import DEFAULT


@pytest.mark.parametrize(
    "draw",
    [
        lambda chance: chance.lognormvariate(0, 1),
        lambda chance: chance.lognormvariate(0, 2),
        lambda chance: chance.paretovariate(1.1),
        lambda chance: chance.random(),
    ],
    ids=["lognormal", "wide lognormal", "pareto", "uniform"],
)
async def test_about_one_call_in_twenty_is_hedged(draw: Callable[[Random], float]) -> None:
    chance, hedged = Random(7), 0

    async def attempt(*_: Any) -> None:
        await asyncio.sleep(draw(chance))

    class Site(Unasked):
        def hedged(self, after: float) -> None:
            nonlocal hedged
            hedged += 1

    policy = DEFAULT.revised(hedge=True)
    call = Hedge(attempt, policy, Gate(2), None, Latencies(), _task)
    for _ in range(4000):
        await call([], {}, Site("run", None))
        await asyncio.sleep(0)  # who lost ends
        await asyncio.sleep(0)
    assert 0.04 < hedged / 4000 <= 0.05


def _task(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work, name=name)


def test_a_quantile_is_of_the_last_attempts_only() -> None:
    latencies = Latencies()
    for seconds in range(WINDOW):
        latencies.note(float(seconds))
    assert latencies.quantile(0.0) == 0
    assert latencies.quantile(0.5) == WINDOW / 2
    assert latencies.quantile(1.0) == WINDOW - 1
    assert latencies.mean == (WINDOW - 1) / 2
    for _ in range(WINDOW):
        latencies.note(7.0)
    assert {latencies.quantile(share / 10) for share in range(11)} == {7.0}


def test_a_few_attempts_have_a_mean_and_no_quantile() -> None:
    assert Latencies().mean is None
    latencies = Latencies()
    for _ in range(ENOUGH - 1):
        latencies.note(2.0)
    assert latencies.quantile(0.5) is None
    assert latencies.mean == 2.0
