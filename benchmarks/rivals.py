"""Sources of candidates that the predictor has to beat, and those that bound it."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

from sessions import Call, call_key

from agentflow.caches.speculation.candidates import Candidate, CandidateSource
from agentflow.caches.speculation.trail import Step, Trail

START = ""
"""Comes before the first call."""

SPEECH = ""
"""Comes after the last call before somebody speaks."""

Values = list[tuple[Any, float]]


class Frozen:
    """A source that learns nothing more."""

    def __init__(self, source: CandidateSource) -> None:
        self._source = source

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        """What the source says."""
        return self._source.candidates(trail, limit)

    def learn(self, trail: Trail) -> None:
        """Nothing."""

    def close(self, trail: Trail) -> None:
        """Nothing."""


class Asked(Frozen):
    """A source that learns nothing more and is asked once for the same, by all that share it.

    Args:
        source: The source.
        answers: What it said, shared.
        moment: What the results in a trail depend on besides its steps.
    """

    LIMIT = 10_000

    def __init__(
        self,
        source: CandidateSource,
        answers: dict[Hashable, Sequence[Candidate]],
        moment: Callable[[], Hashable],
    ) -> None:
        super().__init__(source)
        self._answers = answers
        self._moment = moment

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        """What the source says."""
        steps = tuple([step.key or step.actor for step in trail.steps])
        asked = (self._moment(), trail.length, limit, steps)
        if (known := self._answers.get(asked)) is None:
            if len(self._answers) >= self.LIMIT:
                self._answers.clear()
            known = self._answers[asked] = super().candidates(trail, limit)
        return known


class Oracle(Frozen):
    """Knows the next calls.

    Args:
        upcoming: The calls that the model has not made yet, in order.
        ready: Whether what is started now can still count: no write is under way.
    """

    def __init__(self, upcoming: Callable[[], Sequence[Call]], ready: Callable[[], bool]) -> None:
        self._upcoming = upcoming
        self._ready = ready

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        """The next calls, up to the first that writes."""
        found: list[Candidate] = []
        for call in self._upcoming() if self._ready() else ():
            if call.changes or len(found) == limit:
                break
            found.append(Candidate(call.tool, call.arguments, 1.0, 1.0, "it is known"))
        return found


class Markov:
    """First order: which tool follows which, with arguments copied from where they came from.

    The probability of a call is P(tool | last tool) times P(origin of the argument) for each
    argument; of an origin the newest values come first, and values that the tool was given
    before count `USED` times as much.
    """

    USED = 0.3
    VALUES = 5
    COMBINATIONS = 6

    def __init__(self) -> None:
        self._after: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._calls: Counter[str] = Counter()
        self._origins: defaultdict[tuple[str, str], Counter[Hashable]] = defaultdict(Counter)
        self._constants: defaultdict[tuple[str, str], Counter[Hashable]] = defaultdict(Counter)
        self._changing: set[str] = set()

    def learn(self, trail: Trail) -> None:
        """Learn from the last step."""
        if not trail.steps:
            return
        *before, last = trail.steps
        if last.key:
            self._after[_last_tool(before)][last.actor] += 1
            self._learn_arguments(before, last)
        elif last.actor == "user":
            self._after[_last_tool(before)][SPEECH] += 1

    def close(self, trail: Trail) -> None:
        """The session is over."""
        self._after[_last_tool(list(trail.steps))][SPEECH] += 1

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        """The likeliest calls, best first."""
        steps = list(trail.steps)
        followers = self._after[_last_tool(steps)]
        chances: dict[str, Candidate] = {}
        for tool, count in followers.most_common():
            if tool == SPEECH or tool in self._changing:
                continue
            share = count / followers.total()
            for arguments, probability in self._filled(tool, steps):
                key = call_key(tool, arguments)
                if key not in chances or chances[key].probability < share * probability:
                    chances[key] = Candidate(
                        tool, arguments, share * probability, share * probability, f"tool {count}"
                    )
        return sorted(chances.values(), key=lambda found: -found.probability)[:limit]

    def _learn_arguments(self, before: Sequence[Step], call: Step) -> None:
        if call.changes:
            self._changing.add(call.actor)
            return
        self._calls[call.actor] += 1
        for name, value in call.arguments.items():
            place = call.actor, name
            self._origins[place].update(_origins_of(value, before))
            if isinstance(value, Hashable):
                self._constants[place][value] += 1

    def _filled(
        self, tool: str, steps: Sequence[Step]
    ) -> Iterator[tuple[Mapping[str, Any], float]]:
        """The arguments a tool may be given, and how likely they are."""
        names = sorted(name for known, name in self._origins if known == tool)
        values = [self._values(tool, name, steps) for name in names]
        for chosen in islice(product(*values), self.COMBINATIONS):
            probability = 1.0
            for _, share in chosen:
                probability *= share
            yield dict(zip(names, [value for value, _ in chosen], strict=True)), probability

    def _values(self, tool: str, name: str, steps: Sequence[Step]) -> Values:
        place, total = (tool, name), self._calls[tool]
        used = [step.arguments.get(name) for step in steps if step.actor == tool and step.key]
        found: Values = []
        for origin, count in self._origins[place].most_common():
            for value in _values_from(steps, origin):
                if all(value != known for known, _ in found):
                    share = min(1.0, count / total) * (self.USED if value in used else 1.0)
                    found.append((value, share))
            if len(found) >= self.VALUES:
                break
        if not found:
            found = [(value, n / total) for value, n in self._constants[place].most_common(1)]
        return sorted(found, key=lambda item: -item[1])


class Random(Markov):
    """Any tool, with any arguments that such a tool was seen to take its arguments from.

    It is sure of whatever it draws, so that it is started.
    """

    DRAWS = 8

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._chance = random.Random(seed)

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        """As many as may be started, drawn by chance."""
        found: dict[str, Candidate] = {}
        tools = sorted(self._calls)
        for _ in range(min(limit, self.DRAWS) if tools else 0):
            tool = self._chance.choice(tools)
            arguments = self._drawn(tool, list(trail.steps))
            if arguments is not None:
                drawn = Candidate(tool, arguments, 1.0, 1.0, "by chance")
                found[call_key(tool, arguments)] = drawn
        return list(found.values())

    def _drawn(self, tool: str, steps: Sequence[Step]) -> Mapping[str, Any] | None:
        arguments = {}
        for name in sorted(name for known, name in self._origins if known == tool):
            known = [
                value
                for origin in self._origins[tool, name]
                for value in _values_from(steps, origin)
            ]
            if not known:
                return None
            arguments[name] = self._chance.choice(known)
        return arguments


def _last_tool(steps: Sequence[Step]) -> str:
    return next((step.actor for step in reversed(steps) if step.key), START)


def _origins_of(value: Any, steps: Sequence[Step]) -> list[Hashable]:
    """Every kind of place in which a value stands, each once, in order of appearance."""
    found: dict[Hashable, None] = {}
    for step in steps:
        for origin, offers in step.offers.items():
            if any(type(its.value) is type(value) and its.value == value for its in offers):
                found[origin] = None
    return list(found)


def _values_from(steps: Sequence[Step], origin: Any) -> Iterator[Any]:
    """The values in a kind of place, those of the newest step first."""
    for step in reversed(steps):
        for offer in step.offers.get(origin, ()):
            yield offer.value
