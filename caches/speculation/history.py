"""What a trail says about the situation in which the next call is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from zlib import crc32

from agentflow.caches.speculation.trail import Offer, Step, Trail

WORDS = 60
"""Words of one text that are looked at, the last ones."""

VALUES = 40
"""Short values of the last result that are looked at."""

SHORT = 24
"""Characters of such a value at most."""


class History:
    """A trail as the features of a prediction need it, put together once per prediction.

    Attributes:
        trail: The trail.
        calls: The calls in it, oldest first.
        last: Numbers of the last three tools, the youngest first.
        spoken: Whether somebody other than the model spoke since the last call.
        run: How many of the last calls were of one tool.
        made: Position of the last call of each key.
        counts: Calls of each key.
        failed: Keys of the calls that failed when last made.
        changed: Position of the last call that may have changed something; -1 if none did.
        heard: Tokens of the last words of the user.
        shown: Tokens of the last words of the model.
        told: Tokens of everything that was said.
    """

    def __init__(self, trail: Trail) -> None:
        self.trail = trail
        self.calls = [step for step in trail.steps if step.key]
        youngest = self.calls[:-4:-1]
        self.last = tuple(number(step.actor) for step in youngest) + (0,) * (3 - len(youngest))
        self.spoken = _spoken(trail)
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
        return frozenset().union(*(self._record(step, offer.at) for step, offer in places))

    def _record(self, step: Step, at: tuple[int, ...]) -> frozenset[str]:
        if (words := self._records.get((step.position, at))) is None:
            words = self._records[step.position, at] = frozenset(_words_near(step, at))
        return words

    def _count(self, step: Step) -> None:
        self.made[step.key] = step.position
        self.counts[step.key] = self.counts.get(step.key, 0) + 1
        (self.failed.add if step.failed else self.failed.discard)(step.key)
        if step.changes:
            self.changed = step.position

    def _listen(self) -> None:
        said = [step for step in self.trail.steps if not step.key]
        user = next((step for step in reversed(said) if step.actor != "model"), None)
        model = next((step for step in reversed(said) if step.actor == "model"), None)
        self.heard = _texts(user)
        self.shown = _texts(model)
        self.told = frozenset(token.text for step in said for token in step.tokens)
        self.words = _words(user)
        self.answered = _words(model)
        self.now = (
            frozenset(token.word for token in user.tokens if token.word) if user else frozenset()
        )
        self.wanted = frozenset(
            token.word
            for step in said
            if step.actor != "model"
            for token in step.tokens
            if token.word
        )
        self._records: dict[tuple[int, tuple[int, ...]], frozenset[str]] = {}

    def _recall(self) -> None:
        """What followed in this session when it last stood where it stands now."""
        followed: dict[object, dict[str, int]] = {}
        before, spoken = "", True
        for step in self.trail.steps:
            if step.key:
                for state in ((before, spoken), spoken):
                    follow = followed.setdefault(state, {})
                    follow[step.key] = follow.get(step.key, 0) + 1
                before, spoken = step.key, False
            elif step.awaits:
                spoken = True
        self.followed: Mapping[str, int] = followed.get((before, spoken), {})
        self.followed_alike: Mapping[str, int] = followed.get(spoken, {})

    def habit(self, key: str) -> float:
        """How surely the session makes a call where it stands, going by itself: 0 to 1."""
        times = self.followed.get(key, 0)
        return times * times / ((times + 1) * sum(self.followed.values())) if times else 0.0

    def outcome(self) -> list[int]:
        """Numbers of the short values in the last result; ids are left out."""
        found: list[int] = []
        if not self.calls:
            return found
        for origin, offers in self.calls[-1].offers.items():
            if origin.kind == "result":
                for offer in offers[:4]:
                    if _telling(offer.value):
                        found.append(number(f"{origin.what}={offer.value}"))
            if len(found) >= VALUES:
                break
        return found


@lru_cache(maxsize=1 << 14)
def number(text: str) -> int:
    """A number for a text, the same in every process."""
    return crc32(text.encode("utf-8", "surrogatepass"))


def _spoken(trail: Trail) -> bool:
    last = next((step for step in reversed(trail.steps) if step.awaits), None)
    return last is None or not last.key


def _run(values: Iterable[str]) -> int:
    count, first = 0, None
    for value in values:
        first = first or value
        if value != first:
            break
        count += 1
    return count


def _texts(step: Step | None) -> frozenset[str]:
    return frozenset(token.text for token in step.tokens) if step else frozenset()


def _words(step: Step | None) -> list[int]:
    if step is None:
        return []
    return [number(word) for word in sorted({token.word for token in step.tokens[-WORDS:]}) if word]


def _telling(value: object) -> bool:
    if isinstance(value, str):
        return len(value) < SHORT and not any(character.isdigit() for character in value)
    return value is None or isinstance(value, bool)


def _words_near(step: Step, at: tuple[int, ...]) -> Iterable[str]:
    if not at:
        return
    for origin, offers in step.offers.items():
        if origin.kind == "result":
            for offer in offers:
                if offer.at[: len(at)] == at and isinstance(offer.value, str):
                    yield from offer.value.lower().split()
