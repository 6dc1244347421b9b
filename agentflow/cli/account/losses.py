"""What a run did in vain, and what it waited for: counted from what its events say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from agentflow.cli.account.path import Stretch
from agentflow.cli.account.spans import Speech, Step
from agentflow.cli.account.tally import Tally
from agentflow.cli.account.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Loss:
    """Work that was of no use.

    Attributes:
        kind: ``speculation``, ``partial``, ``samples``, ``retries`` or ``prewarm``.
        number: Of guesses, calls, samples, attempts or prompts.
        seconds: Of work, and of pauses between attempts.
        usd: Its price.
    """

    kind: str
    number: int
    seconds: float
    usd: Decimal = Decimal(0)


def losses(tally: Tally) -> Iterator[Loss]:
    """What was in vain."""
    savings, parts, samples = tally.savings, tally.parts, tally.samples
    retries, ahead = _retries(tally.timeline), _unasked(tally.timeline)
    cancelled = samples.outcomes()["cancelled"]
    paid = sum((Decimal(one.facts["usd"]) for one in ahead), Decimal(0))
    found = (
        Loss("speculation", savings.wasted, savings.seconds_wasted, savings.usd_wasted),
        Loss("partial", parts.retracted, parts.seconds_wasted),
        Loss("samples", cancelled, *samples.lost),
        Loss("retries", len(retries), sum(retries)),
        Loss("prewarm", len(ahead), sum(one.ended - one.began for one in ahead), paid),
    )
    return (loss for loss in found if loss.number)


def _retries(timeline: Timeline) -> list[float]:
    """Of attempts that failed and were followed by another, the seconds with the pause after."""
    found = []
    for step in timeline.steps.values():
        for span in step.made().values():
            at = span.began or 0.0
            for wait in span.waits:
                if wait.why == "retry":
                    found.append(max(0.0, wait.ended - at))
                    at = wait.ended
    return found


def _unasked(timeline: Timeline) -> list[Speech]:
    """Prompts that were computed ahead, and that no request of their conversation followed."""
    last: dict[str, float] = {}
    for said in timeline.speeches:
        if not said.facts["warmed"]:
            session = said.facts["session"]
            last[session] = max(said.ended, last.get(session, 0.0))
    return [
        said
        for said in timeline.speeches
        if said.facts["warmed"] and last.get(said.facts["session"], -1.0) < said.ended
    ]


def shares(path: Sequence[Stretch]) -> Counter[str]:
    """Seconds of the critical path by kind."""
    found: Counter[str] = Counter()
    for stretch in path:
        found[stretch.kind] += stretch.seconds  # type: ignore[assignment]  # seconds are counted too
    return found


@dataclass(frozen=True, slots=True)
class Link:
    """Stretches of the critical path that are one thing's.

    Attributes:
        what: Whose.
        seconds: How long together.
    """

    what: Step | Speech
    seconds: float


def links(path: Sequence[Stretch]) -> list[Link]:
    """The chain that took the time, in order."""
    found: list[Link] = []
    for stretch in path:
        if stretch.what is None:
            continue
        if found and found[-1].what is stretch.what:
            found[-1] = Link(stretch.what, found[-1].seconds + stretch.seconds)
        else:
            found.append(Link(stretch.what, stretch.seconds))
    return found
