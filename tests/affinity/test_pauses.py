"""How long programs are taken to be busy with their tools."""

from __future__ import annotations

import math
from random import Random

import pytest

from agentflow.caches.affinity.jobs import Pause
from agentflow.executor.affinity.pauses import (
    COMPUTES,
    DATABASE,
    FILES,
    MODEL,
    WEB,
    expected,
    slowest,
)
from agentflow.llms import llm
from agentflow.tools.tool import Tool, tool


@tool(pure=True)
def compute() -> int:
    return 1


@tool(reads="files")
def read_file() -> str:
    return ""


@tool(writes="db/orders")
def order() -> str:
    return ""


@tool(reads="web")
def fetch() -> str:
    return ""


@tool
def whatever() -> str:
    return ""


@llm
async def ask() -> str:
    """What?"""
    raise AssertionError("the body is not run")


@pytest.mark.parametrize(
    ("called", "pause"),
    [
        (compute, COMPUTES),
        (read_file, FILES),
        (order, DATABASE),
        (fetch, WEB),
        (whatever, WEB),
        (ask, MODEL),
    ],
)
def test_a_tool_of_which_nothing_is_known_is_like_others_of_its_kind(
    called: Tool[..., object], pause: Pause
) -> None:
    assert expected(called, ()) == pause


def test_what_is_known_of_a_tool_counts_alone_once_it_is_enough() -> None:
    seconds = [n / 10 for n in range(1, 101)]

    pause = expected(fetch, seconds)

    assert pause == Pause(5.1, 9.6)


def test_of_few_calls_the_slow_ones_are_not_among_them() -> None:
    pause = expected(fetch, [2.0])

    assert pause.p50 == 2.0
    assert pause.p95 == pytest.approx(2.0 * WEB.p95 / WEB.p50)
    assert expected(fetch, [1.0, 1.0, 60.0]).p95 == 60.0


def test_nothing_is_waited_for_where_nothing_runs() -> None:
    assert slowest([]) is None
    assert slowest([WEB]) == WEB


def test_calls_side_by_side_take_as_long_as_the_slowest() -> None:
    chance = Random(1)
    pauses = [WEB, WEB, WEB, FILES]
    draws = sorted(
        max(chance.lognormvariate(*_log_normal(pause)) for pause in pauses) for _ in range(20_000)
    )

    both = slowest(pauses)

    assert both is not None
    assert both.p50 == pytest.approx(draws[10_000], rel=0.05)
    assert both.p95 == pytest.approx(draws[19_000], rel=0.05)


def test_a_quick_call_beside_a_slow_one_changes_nothing() -> None:
    both = slowest([Pause(10.0, 20.0), Pause(0.001, 0.002)])

    assert both is not None
    assert (both.p50, both.p95) == pytest.approx((10.0, 20.0), rel=0.01)


def _log_normal(pause: Pause) -> tuple[float, float]:
    return math.log(pause.p50), math.log(pause.p95 / pause.p50) / 1.6449
