"""Epochs of one process: they rise with every write that touches a resource, and never fall."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.epochs import Epochs, LocalEpochs
from agentflow.tools.effects import Resource, conflict

ROOT: Resource = ()
ORDERS: Resource = ("orders",)
ONE: Resource = ("orders", "1")
TWO: Resource = ("orders", "2")
ITEMS: Resource = ("orders", "1", "items")
ALL: Resource = ("orders", "*")
USERS: Resource = ("users",)
EVERYTHING = [ROOT, ORDERS, ONE, TWO, ITEMS, ALL, USERS]


def touched_by(write: Resource) -> list[Resource]:
    """Which of the resources above have another epoch after a write."""
    epochs = LocalEpochs()
    before = epochs.now(EVERYTHING)
    epochs.rise([write])
    after = epochs.now(EVERYTHING)
    return [r for r, b, a in zip(EVERYTHING, before, after, strict=True) if a != b]


def test_a_write_touches_what_is_above_and_below_it() -> None:
    assert touched_by(ONE) == [ROOT, ORDERS, ONE, ITEMS, ALL]
    assert touched_by(ITEMS) == [ROOT, ORDERS, ONE, ITEMS, ALL]
    assert touched_by(USERS) == [ROOT, USERS]


def test_a_write_of_an_unknown_resource_touches_all_it_may_be() -> None:
    assert touched_by(ALL) == [ROOT, ORDERS, ONE, TWO, ITEMS, ALL]
    assert touched_by(("*",)) == EVERYTHING
    assert touched_by(("orders", "*", "items")) == [ROOT, ORDERS, ONE, TWO, ITEMS, ALL]


def test_an_undeclared_call_touches_everything() -> None:
    assert touched_by(ROOT) == EVERYTHING


def test_two_engines_never_share_an_epoch() -> None:
    assert LocalEpochs().now([ONE]) != LocalEpochs().now([ONE])


def test_the_paths_counted_one_by_one_are_bounded() -> None:
    epochs = LocalEpochs(limit=100)
    for n in range(10_000):
        epochs.rise([("orders", str(n), "items")])
        assert len(epochs) <= 103


async def test_without_a_shared_store_nothing_has_to_be_waited_for() -> None:
    epochs = Epochs()
    before = epochs.now([ONE, USERS])
    assert before == epochs.here([ONE, USERS]) == await epochs.look([ONE, USERS])

    epochs.left([TWO])()
    assert epochs.now([ONE, USERS]) == before

    await epochs.raised([ONE])
    after = epochs.now([ONE, USERS])
    assert after is not None
    assert before is not None
    assert (after[0] > before[0], after[1]) == (True, before[1])
    await epochs.aclose()


paths = st.lists(st.sampled_from(["a", "b", "c", "*"]), max_size=3).map(tuple)


@given(st.lists(st.lists(paths, min_size=1, max_size=3), max_size=60), st.sampled_from([4, 8, 64]))
def test_no_write_goes_unnoticed_and_no_epoch_falls(
    writes: list[list[Resource]], limit: int
) -> None:
    epochs = LocalEpochs(limit)
    names = ("a", "b", "c", "*")
    reads = [(), *((x,) for x in names), *((x, y) for x in names for y in names)]
    for write in writes:
        before = epochs.now(reads)
        epochs.rise(write)
        after = epochs.now(reads)
        for read, old, new in zip(reads, before, after, strict=True):
            assert new >= old
            if any(conflict(read, path) for path in write):
                assert new > old


@given(st.lists(paths.filter(lambda path: "*" not in path), max_size=40))
def test_with_few_paths_only_what_overlaps_is_touched(writes: list[Resource]) -> None:
    epochs = LocalEpochs()
    reads = [(), *((x,) for x in "abc"), *((x, y) for x in "abc" for y in "abc")]
    for write in writes:
        before = epochs.now(reads)
        epochs.rise([write])
        for read, old, new in zip(reads, before, epochs.now(reads), strict=True):
            assert (new != old) == conflict(read, write)
