"""Events on their way to one reader: the run never waits for it, and what waits is bounded."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import replace
from io import StringIO

from agentflow import events

TEXT = 1_000_000
"""Characters of replies that are kept for a reader who has fallen behind."""

_KEPT = (events.RunStarted, events.TextRetracted, *events.TERMINAL)


class Backlog:
    """What a reader has not taken yet; beyond a limit it is summed up.

    From then on, until the reader has caught up, the pieces of a reply become one event, and how
    runs begin and end is kept, in order. All else is counted in one `EventsDropped`, which stands
    where the first of it is missing.

    Args:
        limit: Events that are kept as they are.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._run = ""  # whose events come first: the others are of runs that it started
        self._whole: deque[events.Event] = deque()
        self._gap: _Gap | None = None
        self._arrived = asyncio.Event()

    def put(self, event: events.Event) -> None:
        """Take an event in."""
        if self._gap is None and len(self._whole) < self._limit:
            self._whole.append(event)
        else:
            if self._gap is None:
                self._gap = _Gap(self._limit)
            self._gap.take(event)
        self._run = self._run or event.run
        self._arrived.set()

    async def get(self) -> events.Event:
        """The next event; waits for it."""
        while not self._whole:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._whole.popleft()
        if self._gap is not None and not self._whole:
            self._whole.extend(self._gap.summary(self._run))
            self._gap = None
        return event


class _Text:
    """The pieces of one reply."""

    def __init__(self, first: events.TextDelta) -> None:
        self._first = first
        self._text = StringIO()

    def add(self, text: str) -> None:
        self._text.write(text)

    def whole(self) -> events.TextDelta:
        return replace(self._first, text=self._text.getvalue())


class _Gap:
    """What came while the reader had fallen behind."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[events.Event | _Text] = []
        self._texts: dict[tuple[str, int | None, str], _Text] = {}  # that may still grow
        self._characters = 0
        self._missing: Counter[str] = Counter()
        self._place = 0  # of the first that is missing, among those that are kept
        self._at = 0.0  # and when it came

    def take(self, event: events.Event) -> None:
        if isinstance(event, events.TextDelta) and self._merged(event):
            return
        if not isinstance(event, _KEPT):
            self._leave_out(event)
            return
        if isinstance(event, events.TextRetracted):
            for key in [key for key in self._texts if key[:2] == (event.run, event.node)]:
                del self._texts[key]
        self._kept.append(event)

    def _merged(self, event: events.TextDelta) -> bool:
        """Add a piece to the reply it is of, while there is room."""
        self._characters += len(event.text)
        if self._characters > TEXT:
            return False
        key = event.run, event.node, event.role
        if (text := self._texts.get(key)) is None:
            if len(self._texts) >= self._limit:
                return False
            text = self._texts[key] = _Text(event)
            self._kept.append(text)
        text.add(event.text)
        return True

    def _leave_out(self, event: events.Event) -> None:
        if not self._missing:
            self._place, self._at = len(self._kept), event.at
        self._missing[events.event_name(type(event))] += 1

    def summary(self, run: str) -> list[events.Event]:
        """All of it, for the reader."""
        told = [kept.whole() if isinstance(kept, _Text) else kept for kept in self._kept]
        if self._missing:
            count, kinds = self._missing.total(), dict(self._missing)
            told.insert(self._place, events.EventsDropped(run, self._at, count, kinds))
        return told
