"""What of a history is shown, for any history: it only grows within an epoch, and it is sound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentflow.executor.sessions.fitting import (
    AIM,
    ENOUGH,
    by_reference,
    by_summary,
    to_be_summarised,
    wholly_by_reference,
)
from agentflow.executor.sessions.history import History, Message, is_long
from tests.sessions.conftest import check_sound


def exchange(number: int, calls: list[int], asks: bool) -> list[Message]:
    """One thing that is said: by the user, answered; or calls, of which some give much."""
    ids = [f"c{number}.{place}" for place in range(len(calls))]
    said: list[Message] = []
    if asks:
        said.append({"role": "user", "content": f"question {number}"})
    if ids:
        made = [{"id": each, "type": "function", "function": {"name": "f"}} for each in ids]
        said.append({"role": "assistant", "content": None, "tool_calls": made})
        for each, length in zip(ids, calls, strict=True):
            said.append({"role": "tool", "tool_call_id": each, "content": "x" * length})
    if asks or not ids:
        said.append({"role": "assistant", "content": f"answer {number}"})
    return said


lengths = st.lists(st.integers(0, 3_000), max_size=4)


@st.composite
def histories(draw: st.DrawFn) -> History:
    messages: list[Message] = [{"role": "user", "content": "first"}]
    open_question = True
    for number, calls in enumerate(draw(st.lists(lengths, max_size=8))):
        asks = not open_question or draw(st.booleans())
        if asks and open_question:
            messages.append({"role": "assistant", "content": "so far"})
        messages += exchange(number, calls, asks)
        open_question = not asks and bool(calls)
    return History(messages)


def size(messages: Any) -> float:
    return float(sum(len(message.get("content") or "") + 20 for message in messages))


@given(histories(), st.integers(200, 20_000))
def test_outputs_by_reference_are_as_few_as_it_takes(history: History, room: int) -> None:
    way = by_reference(history, room, size, readable=True)
    whole = history.shown()
    if way is None:
        return
    less = history.as_compacted(way)
    check_sound(less)
    assert len(less) == len(whole)
    assert size(less) <= ENOUGH * room
    changed = [place for place, message in enumerate(less) if message != whole[place]]
    assert all(is_long(whole[place]) for place in changed)
    assert max(changed) == way.cut - 1
    history.compact(way)
    assert set(history.outputs()) >= {f"m{place}" for place in changed}
    if size(less) > AIM * room:
        assert by_reference(history, room, size, readable=True) is None


@given(histories(), st.integers(200, 20_000), histories())
def test_a_summary_leaves_what_is_sound_and_goes_on(
    history: History, room: int, more: History
) -> None:
    way = by_summary(history, room, size, readable=False)
    if way is None:
        assert len(history) == 1
        return
    asked = to_be_summarised(history, way.since, room, size)
    check_sound(asked)
    assert asked[0] == history.messages[0]
    history.compact(replace(way, summary="all of it"))
    shown = history.shown()
    check_sound(shown)
    assert shown[2]["role"] == "user"
    assert shown[-1] == history.messages[-1]

    history.say(*more.messages)
    assert history.shown()[: len(shown)] == shown
    check_again = by_summary(history, room, size, readable=False)
    assert check_again is None or check_again.since > way.since


@given(histories(), st.lists(histories(), max_size=3))
def test_within_an_epoch_what_is_shown_only_grows(history: History, later: list[History]) -> None:
    history.compact(wholly_by_reference(history))
    for each in later:
        before = history.shown()
        history.say(*each.messages)
        assert history.shown()[: len(before)] == before


@given(histories(), histories())
def test_what_is_taken_back_leaves_no_trace(history: History, more: History) -> None:
    messages, epoch, shown = history.messages, history.epoch, history.shown()
    history.say(*more.messages)
    history.compact(wholly_by_reference(history))
    history.rewind(len(messages), epoch)
    assert (history.messages, history.epoch, history.shown()) == (messages, epoch, shown)
