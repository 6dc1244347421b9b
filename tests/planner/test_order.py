"""Order by effects, against the definition: every two calls that conflict are ordered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.planner.order import EffectOrder
from agentflow.tools.effects import Resource, conflict

SEGMENTS = st.sampled_from(["a", "b", "*"])
RESOURCES = st.lists(SEGMENTS, min_size=1, max_size=3).map(tuple)
TOUCHES = st.tuples(st.booleans(), st.lists(RESOURCES, min_size=1, max_size=2))


def ordered(calls: list[tuple[bool, list[Resource]]]) -> list[set[int]]:
    """For each call all calls that come before it, directly or not."""
    order = EffectOrder()
    before: list[set[int]] = []
    for index, (writes, resources) in enumerate(calls):
        note = order.write if writes else order.read
        after = note(index, resources)
        before.append(set(after).union(*(before[i] for i in after)))
    return before


@settings(max_examples=300)
@given(st.lists(TOUCHES, max_size=14))
def test_two_calls_are_ordered_whenever_they_conflict(
    calls: list[tuple[bool, list[Resource]]],
) -> None:
    before = ordered(calls)
    for late, (late_writes, late_touches) in enumerate(calls):
        for early, (early_writes, early_touches) in enumerate(calls[:late]):
            meets = any(conflict(a, b) for a in late_touches for b in early_touches)
            if meets and (late_writes or early_writes):
                assert early in before[late], (early, late, calls)


@settings(max_examples=300)
@given(st.lists(TOUCHES, max_size=14))
def test_a_call_directly_follows_only_what_it_conflicts_with(
    calls: list[tuple[bool, list[Resource]]],
) -> None:
    order = EffectOrder()
    for late, (writes, touches) in enumerate(calls):
        for early in (order.write if writes else order.read)(late, touches):
            early_writes, early_touches = calls[early]
            assert writes or early_writes
            assert any(conflict(a, b) for a in touches for b in early_touches)


def test_reads_stay_parallel() -> None:
    order = EffectOrder()
    assert [order.read(i, [("web",)]) for i in range(3)] == [(), (), ()]


def test_unrelated_writes_stay_parallel() -> None:
    order = EffectOrder()
    assert order.write(0, [("orders", "1")]) == ()
    assert order.write(1, [("orders", "2")]) == ()
    assert order.read(2, [("users", "1")]) == ()


@pytest.mark.parametrize("other", [("orders",), ("orders", "1"), ("orders", "1", "items")])
def test_a_write_meets_ancestors_and_descendants(other: Resource) -> None:
    order = EffectOrder()
    order.write(0, [("orders", "1")])
    assert order.read(1, [other]) == (0,)


def test_a_segment_that_is_not_known_yet_meets_every_other() -> None:
    order = EffectOrder()
    order.write(0, [("orders", "*")])
    assert order.write(1, [("orders", "7")]) == (0,)
    assert order.read(2, [("orders", "8")]) == (0,)


def test_a_chain_of_writes_has_one_edge_each() -> None:
    order = EffectOrder()
    assert [order.write(i, [("log",)]) for i in range(4)] == [(), (0,), (1,), (2,)]


def test_a_write_over_all_orders_stands_for_those_before_it() -> None:
    order = EffectOrder()
    for index in range(3):
        order.write(index, [("orders", str(index))])
    assert order.write(3, [("orders", "*")]) == (0, 1, 2)
    assert order.write(4, [("orders", "*")]) == (3,)
    assert order.read(5, [("orders", "1")]) == (4,)


def test_listing_after_each_write_keeps_the_edges_few() -> None:
    order = EffectOrder()
    edges = 0
    for index in range(0, 200, 2):
        edges += len(order.write(index, [("orders", str(index))]))
        edges += len(order.read(index + 1, [("orders",)]))
    assert edges < 6000  # without forgetting the reads that are passed: 99 * 100 / 2 more
