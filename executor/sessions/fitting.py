"""What becomes of a history that is too long for its model: decided here, without I/O.

First the outputs of tools, from the oldest on, are shown by reference; the model can read them
again. If that is not enough, what is older is told by a summary. Either goes well below the
limit, because each time the prompt is computed anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from agentflow.executor.sessions.history import BRIEF, Compaction, History, Message, is_long
from agentflow.planner.prompting import shown

AIM = 0.5
"""Share of the room for a prompt that a compaction leaves filled."""

ENOUGH = 0.75
"""The same where all outputs by reference leave more than that, but a summary is spared."""

RECENT = 0.25
"""Share of that room which the messages take that no summary replaces."""

Size: TypeAlias = "Callable[[Sequence[Message]], float]"
"""Tokens of the prompt that these messages make, about."""


def by_reference(history: History, room: float, size: Size, *, readable: bool) -> Compaction | None:
    """Outputs by reference, as few as it takes; None if all of them are not enough.

    Those that the model has not answered yet stay.

    Args:
        history: What was said.
        room: Tokens that a prompt may have.
        size: Of a prompt.
        readable: See `Compaction`.
    """
    before = history.latest or Compaction()
    ways = [replace(before, cut=cut, readable=readable) for cut in _cuts(history)]
    first = bisect_left(ways, True, key=lambda way: size(history.as_compacted(way)) <= AIM * room)
    if first < len(ways):
        return ways[first]
    return ways[-1] if ways and size(history.as_compacted(ways[-1])) <= ENOUGH * room else None


def by_summary(history: History, room: float, size: Size, *, readable: bool) -> Compaction | None:
    """What stays beside a summary that is still to be written: what was said last, as it was said.

    Args:
        history: What was said.
        room: Tokens that a prompt may have.
        size: Of a prompt.
        readable: See `Compaction`.

    Returns:
        None if there is nothing older.
    """
    places, messages = _boundaries(history), history.messages
    if not places:
        return None

    def is_short(place: int) -> bool:
        return size(history.as_compacted(Compaction(since=place))) <= RECENT * room

    first = bisect_left(places, True, key=lambda place: size(messages[place:]) <= RECENT * room)
    # Where these begin within a turn, its question stands before them, however long it is.
    since = next(filter(is_short, places[first:]), places[-1])
    return Compaction(since, since, readable=readable)


def wholly_by_reference(history: History) -> Compaction:
    """What holds now, with the outputs by reference, too, that the model has not answered yet."""
    return replace(history.latest or Compaction(), cut=len(history))


def to_be_summarised(history: History, until: int, room: float, size: Size) -> Sequence[Message]:
    """The messages that a summary is made of: as they are shown, if there is room for them.

    Otherwise outputs stand by reference, and if that is not enough, the oldest are left out but
    for the first, of which as much is told as there is room for.

    Args:
        history: What was said.
        until: The first message that the summary does not replace.
        room: Tokens that the prompt may have which asks for it.
        size: Of that prompt.
    """
    whole = history.shown(until)
    if size(whole) <= room:
        return whole
    before = history.latest or Compaction()
    first, *rest = History(history.messages[:until]).as_compacted(replace(before, cut=until))
    text, limit = first["content"], len(first["content"])
    while size([first]) > room and limit > BRIEF:
        limit //= 2
        first = {**first, "content": shown(text, limit)}
    places = range(len(rest))
    start = bisect_left(places, True, key=lambda place: size([first, *rest[place:]]) <= room)
    while start < len(rest) and rest[start]["role"] != "assistant":
        start += 1  # calls and their results stay together
    return [first, *rest[start:]]


def _cuts(history: History) -> list[int]:
    """Places up to which outputs can be shown by reference, the oldest first."""
    latest = history.latest
    start = max(latest.cut, latest.since) if latest is not None else 0
    seen = _seen(history)
    places = enumerate(history.messages[start:seen], start)
    return [place + 1 for place, message in places if is_long(message)]


def _seen(history: History) -> int:
    """The first of the messages that the model has not answered."""
    messages = history.messages
    places = range(len(messages) - 1, -1, -1)
    return next((place for place in places if messages[place]["role"] == "assistant"), 0)


def _boundaries(history: History) -> list[int]:
    """Places between which calls and their results stay together, behind what is summarised now."""
    latest = history.latest
    start = latest.since + 1 if latest is not None else 1
    places = enumerate(history.messages[start:], start)
    return [place for place, message in places if message["role"] != "tool"]
