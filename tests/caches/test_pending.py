"""Writes between the loop and the thread: readable at every moment, newest first."""

from __future__ import annotations

from agentflow.caches.pending import Pending
from agentflow.caches.store import Entry


def entry(size: int, mark: bytes = b"x") -> Entry:
    return Entry(mark * size)


def pending(limit: int = 100, batch: int = 3, batch_bytes: int = 50) -> Pending:
    return Pending(limit, batch, batch_bytes)


def test_a_write_is_readable_while_it_waits_and_while_it_is_written() -> None:
    waiting = pending()
    waiting.put("a", entry(1))
    before = waiting.find(["a", "b"])
    batch = waiting.take()

    assert before == waiting.find(["a", "b"]) == {"a": entry(1)}

    waiting.done(batch)
    assert waiting.find(["a"]) == {}
    assert len(waiting) == 0


def test_a_deletion_is_known_and_is_no_entry() -> None:
    waiting = pending()
    waiting.put("a", None)

    assert waiting.find(["a"]) == {"a": None}


def test_a_newer_write_goes_before_the_one_that_is_being_written() -> None:
    waiting = pending()
    waiting.put("a", entry(1))
    batch = waiting.take()
    waiting.put("a", entry(2))

    assert waiting.find(["a"]) == {"a": entry(2)}

    waiting.done(batch)
    assert waiting.take() == {"a": entry(2)}


def test_a_batch_that_could_not_be_written_is_taken_again_before_newer_ones() -> None:
    waiting = pending()
    waiting.put("a", entry(1))
    first = waiting.take()
    waiting.put("a", None)
    waiting.put("b", entry(1))

    assert waiting.take() == first

    waiting.done(first)
    assert waiting.take() == {"a": None, "b": entry(1)}


def test_to_forget_a_key_does_not_undo_a_newer_write() -> None:
    waiting = pending()
    waiting.put("a", entry(1))
    waiting.forget("a")
    waiting.forget("b")

    assert waiting.take() == {"a": entry(1), "b": None}


def test_a_batch_is_bounded_by_number_and_by_bytes() -> None:
    waiting = pending()
    for key, size in {"a": 1, "b": 1, "c": 1, "d": 40, "e": 20}.items():
        waiting.put(key, entry(size))

    batches = []
    while batch := waiting.take():
        batches.append(list(batch))
        waiting.done(batch)

    assert batches == [["a", "b", "c"], ["d"], ["e"]]


def test_a_value_larger_than_a_batch_goes_alone() -> None:
    waiting = pending()
    waiting.put("large", entry(90))
    waiting.put("small", entry(1))

    assert list(waiting.take()) == ["large"]


def test_no_more_bytes_wait_than_may() -> None:
    waiting = pending(limit=100)

    assert waiting.put("a", entry(60))
    assert not waiting.put("b", entry(60))
    assert waiting.put("a", entry(100))  # takes the place of the earlier one
    assert waiting.put("c", None)
    assert list(waiting.find("abc")) == ["a", "c"]

    waiting.take()
    assert waiting.put("b", entry(60))


def test_what_is_cleared_is_not_written() -> None:
    waiting = pending()
    waiting.put("a", entry(60))
    waiting.take()
    waiting.put("b", entry(60))
    waiting.clear()
    waiting.clear_taken()

    assert waiting.take() == {}
    assert waiting.put("c", entry(100))
