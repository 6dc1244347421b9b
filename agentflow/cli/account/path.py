"""The critical path of a run: what it waited for at every moment, found from its end backwards.

What ended last began when the last of what it needed had ended, and so on to the beginning.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from agentflow.cli.account.spans import Span, Speech, Step
from agentflow.cli.account.timeline import Timeline

EXACT = 2e-6
"""Seconds by which what follows from something may seem to come before it; records are rounded."""

WRITES = ("plan", "act")
"""What replies are for that calls stand in."""

Mark = tuple[float, float, str]
"""When something began and ended, and what it was."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the critical path.

    Attributes:
        kind: ``model`` or ``call`` for work; ``tool``, ``run``, ``rate``, ``guest`` (as in
            `NodeWaited`), ``held`` (in a pool of replicas), ``answer`` or ``retry`` for waiting;
            ``own`` for the program's own code, and ours.
        began: Seconds into the run.
        ended: Likewise.
        what: Whose time it was; None for ``own``.
        element: Of a map.
    """

    kind: str
    began: float
    ended: float
    what: Step | Speech | None = None
    element: int | None = None

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Actor:
    """A call, an element of a map, or a reply of a strategy's model, that has begun."""

    what: Step | Speech
    began: float
    ended: float
    element: int | None = None
    span: Span | None = None


class Causes:
    """Knows of everything in a run what it followed from.

    Args:
        timeline: Of the run and the runs it started.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._lines: dict[str, dict[int, Step]] = {}
        self._calls: dict[str, list[Actor]] = {}
        self._speeches: dict[str, list[Actor]] = {}
        self._inside: dict[tuple[str, int], list[Speech]] = {}
        for step in timeline.steps.values():
            self._lines.setdefault(step.run, {})[step.number] = step
            if not step.joins:
                self._calls.setdefault(step.run, []).extend(self.actors_of(step))
        for speech in timeline.speeches:
            if speech.node is not None:
                self._inside.setdefault((speech.run, speech.node), []).append(speech)
            elif not speech.facts.get("warmed"):
                actor = Actor(speech, speech.began, speech.ended)
                self._speeches.setdefault(speech.run, []).append(actor)
        for actors in (*self._calls.values(), *self._speeches.values()):
            actors.sort(key=lambda actor: actor.ended)

    def actors_of(self, step: Step) -> Iterator[Actor]:
        """What was done for a call; what has not ended goes on to the end."""
        for element, span in step.made().items():
            if span.began is not None:
                ended = self._timeline.seconds if span.ended is None else span.ended
                yield Actor(step, span.began, max(span.began, ended), element, span)

    def calls_of(self, run: str) -> list[Actor]:
        """The calls of a run that have begun, by when they ended."""
        return self._calls.get(run, [])

    def speeches_of(self, step: Step) -> list[Speech]:
        """The model calls that a call made."""
        return self._inside.get((step.run, step.node), [])

    def needs(self, step: Step, numbers: Iterable[int]) -> Iterator[Step]:
        """The calls of these lines; of joins what they gather."""
        lines, wanted, seen = self._lines.get(step.run, {}), list(numbers), {step.number}
        while wanted:
            number = wanted.pop(0)
            if number in seen or (needed := lines.get(number)) is None:
                continue
            seen.add(number)
            if needed.joins:
                wanted += needed.uses
            else:
                yield needed

    def last_need(self, step: Step, element: int | None, by: float) -> Actor | None:
        """Of what a call needed, what ended last, by the time it began."""
        found: Actor | None = None
        ahead, seen = list(self.needs(step, (*step.uses, *step.after))), set[int]()
        while ahead:
            needed = ahead.pop()
            if id(needed) in seen:
                continue
            seen.add(id(needed))
            actors = list(self.actors_of(needed))
            if not actors:  # it was skipped: for what it needed itself
                ahead += self.needs(needed, (*needed.uses, *needed.after))
            same = [actor for actor in actors if actor.element == element]
            for actor in same if element is not None and same else actors:
                if actor.ended <= by + EXACT and (found is None or actor.ended > found.ended):
                    found = actor
        return found

    def cause(self, actor: Actor, but: Collection[int]) -> Actor | None:
        """What something began after; cut where it went on longer. None: the run's beginning."""
        if isinstance(actor.what, Speech):
            return self.latest(actor.what.run, actor.began, but)
        step = actor.what
        need = self.last_need(step, actor.element, actor.began)
        if need is not None and need.ended + EXACT >= step.planned:
            return need
        by = min(step.planned, actor.began)
        return self.author(step, by) or self.latest(step.run, by, but)

    def author(self, step: Step, by: float) -> Actor | None:
        """The reply that a call stands in, up to where it does; None if no model wrote it."""
        said = self._speeches.get(step.run, ())
        found = [one for one in said if one.began < by and one.what.role in WRITES]  # type: ignore[union-attr]  # speeches all
        latest = max(found, key=lambda one: one.began, default=None)
        return latest and Actor(latest.what, latest.began, min(latest.ended, by))

    def latest(self, run: str, by: float, but: Collection[int] = ()) -> Actor | None:
        """What of a run ended last by a time, leaving out what has been met."""
        found: Actor | None = None
        for actors in (self._calls.get(run, []), self._speeches.get(run, [])):
            place = bisect_right(actors, by + EXACT, key=lambda actor: actor.ended)
            while place and id(actors[place - 1]) in but:
                place -= 1
            if place and (found is None or actors[place - 1].ended >= found.ended):
                found = actors[place - 1]
        return found

    def nested(self, actor: Actor) -> str | None:
        """The run that a call was; of several the one that ended last."""
        assert isinstance(actor.what, Step)
        starts = self._timeline.starts
        runs = [
            run
            for run in actor.what.runs
            if actor.began - EXACT <= starts[run] <= actor.ended + EXACT
        ]
        ends = {run: last.ended for run in runs if (last := self.latest(run, actor.ended))}
        return max(ends, key=ends.__getitem__, default=None)


def critical_path(timeline: Timeline) -> list[Stretch]:
    """What a run waited for at every moment, in order; together it is as long as the run."""
    return _within(Causes(timeline), timeline.run, 0.0, timeline.seconds)


def _within(causes: Causes, run: str, low: float, high: float) -> list[Stretch]:
    """The path in one run, from one time to another."""
    found: list[list[Stretch]] = []
    met: set[int] = set()
    at, after = high, None
    actor = causes.latest(run, high)
    while at > low:
        reached = low if actor is None else max(low, min(actor.ended, at))
        found.append(_before(after, reached, at))
        if actor is None:
            break
        met.add(id(actor))
        at = max(low, min(actor.began, reached))
        found.append(_during(causes, actor, at, reached))
        actor, after = causes.cause(actor, met), actor
    return [stretch for part in reversed(found) for stretch in part]


def _before(actor: Actor | None, low: float, high: float) -> list[Stretch]:
    """What something waited for when it needed nothing more."""
    if actor is None or actor.span is None:
        return _filled(low, high, [], "own", None)
    marks = [(wait.began, wait.ended, wait.why) for wait in actor.span.waits]
    return _filled(low, high, marks, "own", actor)


def _during(causes: Causes, actor: Actor, low: float, high: float) -> list[Stretch]:
    """What something consists of."""
    if isinstance(actor.what, Speech):
        held = actor.began + actor.what.facts.get("held", 0.0)
        return _filled(low, high, [(actor.began, held, "held")], "model", actor)
    if (run := causes.nested(actor)) is not None:
        return _within(causes, run, low, high)
    marks: list[Mark] = []
    for said in causes.speeches_of(actor.what):
        held = min(said.ended, said.began + said.facts.get("held", 0.0))
        marks += [(said.began, held, "held"), (held, said.ended, "model")]
    assert actor.span is not None, "calls have one"
    marks += [(wait.began, wait.ended, wait.why) for wait in actor.span.waits]
    return _filled(low, high, marks, "call", actor)


def _filled(
    low: float, high: float, marks: list[Mark], rest: str, actor: Actor | None
) -> list[Stretch]:
    """A time in parts: what is marked, and the rest."""
    found: list[Stretch] = []
    at = low

    def add(until: float, kind: str) -> None:
        nonlocal at
        if until > at:
            whose = None if actor is None or kind == "own" else actor.what
            element = None if actor is None else actor.element
            found.append(Stretch(kind, at, until, whose, element))
            at = until

    for began, ended, kind in sorted(marks):
        add(min(max(began, at), high), rest)
        add(min(ended, high), kind)
    add(high, rest)
    return found
