"""What a trail says about the situation in which the next call is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from zlib import crc32

from agentflow.caches.speculation.trail import Offer, Step, Trail
from agentflow.caches.speculation.words import words

CALL, WORDS, START = 0, 1, 2

ASKED = 60
"""Words of one text that are looked at, the last ones."""


class History:
    """A trail as the features of a prediction need it, put together once per prediction.

    Attributes:
        trail: The trail.
        calls: The calls in it, oldest first.
        last: Numbers of the last three tools, the youngest first.
        after: What the model answers: `START`, `WORDS` of somebody, or the result of a `CALL`.
        run: How many of the last calls were of one tool.
        made: Position of the last call of each key.
        counts: Calls of each key.
        failed: Keys of the calls that failed when last made.
        changed: Position of the last call that may have changed something; -1 if none did.
        heard: Tokens of what the user said last.
        shown: Tokens of what the model said last.
        told: Tokens of everything that was said.
        now: Words of what the user said last.
        wanted: Words of everything the user said.
        asked: Numbers of the last words of the user.
        answered: Numbers of the last words of the model.
        outcome: Numbers of the signs in the last result.
        followed: Calls, and how often, after which the session stood where it stands now.
        followed_alike: Calls made as often after words, or after a call, as now.
    """

    def __init__(self, trail: Trail) -> None:
        self.trail = trail
        self.calls = [step for step in trail.steps if step.key]
        youngest = self.calls[:-4:-1]
        self.last = tuple(number(step.actor) for step in youngest) + (0,) * (3 - len(youngest))
        self.after = _after(trail)
        self.run = _run(step.actor for step in reversed(self.calls))
        self.repeats = _run(step.key for step in reversed(self.calls))
        self.made: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.failed: set[str] = set()
        self.changed = -1
        for step in self.calls:
            self._count(step)
        self._listen()
        self._recall()

    @property
    def last_key(self) -> str:
        """Key of the last call; empty before the first."""
        return self.calls[-1].key if self.calls else ""

    def near(self, places: Iterable[tuple[Step, Offer]]) -> frozenset[str]:
        """The words of the records in which some values stand."""
        records = {step.words_of(offer.at) for step, offer in places}
        return records.pop() if len(records) == 1 else frozenset().union(*records)

    def _count(self, step: Step) -> None:
        self.made[step.key] = step.position
        self.counts[step.key] = self.counts.get(step.key, 0) + 1
        (self.failed.add if step.failed else self.failed.discard)(step.key)
        if step.changes:
            self.changed = step.position

    def _listen(self) -> None:
        said = [step for step in self.trail.steps if not step.key]
        asked = [step for step in said if step.awaits]
        user = asked[-1] if asked else None
        model = next((step for step in reversed(said) if not step.awaits), None)
        self.heard = user.texts if user else frozenset()
        self.shown = model.texts if model else frozenset()
        self.told = frozenset().union(*(step.texts for step in said))
        self.now = user.words if user else frozenset()
        self.wanted = frozenset().union(*(step.words for step in asked))
        self.asked = _numbers(user)
        self.answered = _numbers(model)
        self.outcome = [number(sign) for sign in self.calls[-1].signs] if self.calls else []

    def _recall(self) -> None:
        """What followed in this session when it last stood where it stands now."""
        followed: dict[object, dict[str, int]] = {}
        before, after = "", START
        for step in self.trail.steps:
            if step.key:
                for state in ((before, after), after):
                    follow = followed.setdefault(state, {})
                    follow[step.key] = follow.get(step.key, 0) + 1
                before, after = step.key, CALL
            elif step.awaits:
                after = WORDS
        self.followed: Mapping[str, int] = followed.get((before, after), {})
        self.followed_alike: Mapping[str, int] = followed.get(after, {})

    def habit(self, key: str) -> float:
        """How surely the session makes a call where it stands, going by itself: 0 to 1."""
        times = self.followed.get(key, 0)
        return times * times / ((times + 1) * sum(self.followed.values())) if times else 0.0


@lru_cache(maxsize=1 << 14)
def number(text: str) -> int:
    """A number for a text, the same in every process."""
    return crc32(text.encode("utf-8", "surrogatepass"))


def _after(trail: Trail) -> int:
    last = next((step for step in reversed(trail.steps) if step.awaits), None)
    if last is None:
        return START
    return CALL if last.key else WORDS


def _run(values: Iterable[str]) -> int:
    count, first = 0, None
    for value in values:
        first = first or value
        if value != first:
            break
        count += 1
    return count


def _numbers(step: Step | None) -> list[int]:
    """Numbers of the words of a step; of a long text only the last ones, which ask."""
    if step is None:
        return []
    last = step.words if len(step.tokens) <= ASKED else words(step.tokens[-ASKED:])
    return [number(word) for word in sorted(last)]
