"""What a run saved against one call after another, and by what: no second is claimed twice.

The measure is a run that makes every call itself, one after the other, when its plan is complete.
What was done on a guess, or while its call was still written, is done beside what the run did then,
whatever that was. Of everything else that goes on at the same moment all but one is saved: one
where calls go on beside a plan that is still written, the rest because they go on side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agentflow.cli.account.spans import Span, Step
from agentflow.cli.account.timeline import Timeline

MECHANISMS = ("parallel", "streaming", "cache", "speculation", "partial", "resume")
"""What saves seconds, in the order it is told."""

Work = tuple[float, float, str]
"""When work began and ended, and what it was: ``call``, ``plan``, ``guess`` or ``part``."""


@dataclass(slots=True)
class Gains:
    """What was saved.

    Attributes:
        sequential: Seconds that the same would have taken one after the other.
        taken: Seconds that it took.
        by: Seconds that each mechanism saved; together they are the difference.
        at_once: How much went on at the same time at most.
    """

    sequential: float = 0.0
    taken: float = 0.0
    by: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MECHANISMS, 0.0))
    at_once: int = 0


def gains(timeline: Timeline) -> Gains:
    """What a run saved."""
    found = Gains(taken=timeline.seconds)
    for span in _spans(timeline):
        if span.source in ("memory", "disk", "shared"):
            found.by["cache"] += span.saved
        elif span.source == "journal":
            found.by["resume"] += span.saved
    for seconds, active in _moments(_works(timeline)):
        found.at_once = max(found.at_once, active["call"])
        for mechanism, number in _surplus(active):
            found.by[mechanism] += seconds * number
    found.sequential = found.taken + sum(found.by.values())
    return found


def _spans(timeline: Timeline) -> Iterator[Span]:
    for step in timeline.steps.values():
        yield from step.made().values()


def _works(timeline: Timeline) -> Iterator[Work]:
    """All work; of calls that are runs of their own, what those do."""
    for step in timeline.steps.values():
        if not (step.runs or step.joins):
            for span in step.made().values():
                yield from _work_of(span, step, timeline.seconds)
    for speech in timeline.speeches:
        if speech.node is None and not speech.facts.get("warmed"):
            kind = "plan" if speech.role in ("plan", "act") else "call"
            yield speech.began, speech.ended, kind
    for began, ended in timeline.ahead:
        yield began, ended, "guess"


def _work_of(span: Span, step: Step, end: float) -> Iterator[Work]:
    """The work of one call, without the time for answers."""
    if span.began is None or span.source == "shared":
        return  # what it waited for is an equal call's work
    at, ended = span.began, end if span.ended is None else span.ended
    if span.hidden:
        yield max(0.0, at - span.hidden), at, "part"
    for wait in sorted(span.waits, key=lambda wait: wait.began):
        if wait.why == "answer" and at <= wait.began <= ended:
            yield at, wait.began, "call"
            at = min(max(at, wait.ended), ended)
    yield at, ended, "call"


def _moments(works: Iterable[Work]) -> Iterator[tuple[float, Counter[str]]]:
    """How long how much went on at the same time."""
    edges: list[tuple[float, int, str]] = []
    for began, ended, kind in works:
        if ended > began:
            edges += [(began, 1, kind), (ended, -1, kind)]
    active: Counter[str] = Counter()
    before = 0.0
    for at, change, kind in sorted(edges, key=lambda edge: (edge[0], edge[1])):
        if at > before and active.total() > 0:
            yield at - before, active
        active[kind] += change
        before = at


def _surplus(active: Counter[str]) -> Iterator[tuple[str, int]]:
    """Of what goes on at one moment, how much is saved by what."""
    yield "speculation", active["guess"]
    yield "partial", active["part"]
    beside = int(active["plan"] > 0 and active["call"] > 0)
    yield "streaming", beside
    yield "parallel", max(0, active["plan"] + active["call"] - 1 - beside)
