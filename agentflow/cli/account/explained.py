"""A run with the reasons of all that happened in it, and how its calls are named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from agentflow.cli.account.path import Stretch, critical_path
from agentflow.cli.account.reasons import Reason, Reasons, place_of, places_of
from agentflow.cli.account.spans import Speech, Step, value_of
from agentflow.cli.account.timeline import Timeline
from agentflow.errors import DefinitionError, JournalError
from agentflow.wording import nearest

_NAMED = re.compile(r"\$?(\d+)(?:\[(\d+)\])?")
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A call, or one element of a map."""

    step: Step
    element: int | None = None


Row: TypeAlias = Place | Speech
"""What has a row of its own: a call, or a reply to a run's strategy."""


class Explained:
    """A run, its critical path, and the reasons of everything.

    Args:
        timeline: Of the run.
        blob: Gives a large value by its digest.

    Attributes:
        timeline: As given.
        reasons: Why things began.
        path: The critical path.
    """

    def __init__(self, timeline: Timeline, blob: Callable[[str], bytes]) -> None:
        self.timeline = timeline
        self.reasons = Reasons(timeline)
        self.path: list[Stretch] = critical_path(timeline)
        self._critical = {id(stretch.what) for stretch in self.path if stretch.what is not None}
        self._blob = blob

    def is_critical(self, row: Row) -> bool:
        """Whether the run waited for it."""
        what = row.step if isinstance(row, Place) else row
        return id(what) in self._critical

    def told(self, value: Any) -> Any:
        """A value as it is kept, large ones too."""
        try:
            return value_of(value, self._blob)
        except JournalError:
            return None

    # Rows

    def rows(self) -> Iterator[Row]:
        """Calls and replies in the order they began; runs within stand behind the call they are."""
        yield from self._of(self.timeline.run)

    def places(self) -> Iterator[Place]:
        """The calls alone."""
        return (row for row in self.rows() if isinstance(row, Place))

    def depth(self, row: Row) -> int:
        """How many runs lie above the one that it is of."""
        run, depth = row.step.run if isinstance(row, Place) else row.run, 0
        while (above := self.timeline.parents.get(run)) is not None:
            run, depth = above[0], depth + 1
        return depth

    def _of(self, run: str) -> Iterator[Row]:
        rows: list[tuple[float, int, Row]] = []
        for step in self.timeline.of(run):
            if not step.joins:
                began = step.planned if step.began is None else step.began
                rows.append((began, step.number, Place(step)))
        for said in self.timeline.speeches:
            if said.run == run and said.node is None:
                rows.append((said.began, 0, said))
        for _, _, row in sorted(rows, key=lambda row: row[:2]):
            yield row
            if isinstance(row, Place):
                for nested in row.step.runs:
                    yield from self._of(nested)

    # Facts of one

    def why(self, row: Row) -> Reason:
        """Why it began when it did."""
        if isinstance(row, Place):
            return self.reasons.of_step(row.step, row.element)
        return self.reasons.of_speech(row)

    def where(self, row: Row) -> list[str]:
        """Where it was made, as far as that is out of the ordinary."""
        if isinstance(row, Place):
            return places_of(row.step, self.reasons.causes, row.element)
        return [place_of(row)]

    def usd(self, row: Row) -> Decimal:
        """What its model calls cost."""
        if not isinstance(row, Place):
            return Decimal(row.facts["usd"])
        said = self.reasons.causes.speeches_of(row.step)
        return sum((Decimal(one.facts["usd"]) for one in said), Decimal(0))

    def as_dict(self, place: Place) -> dict[str, Any]:
        """A call as plain data."""
        step = place.step
        spans = [span for at, span in step.made().items() if place.element in (None, at)]
        began = min((s.began for s in spans if s.began is not None), default=None)
        ended = step.ended if place.element is None else spans[0].ended if spans else None
        return {
            "run": step.run,
            "id": step.number,
            "element": place.element,
            "elements": len(step.made()) if None not in step.made() else 0,
            "call": step.line,
            "tool": step.tool,
            "status": step.status if place.element is None else spans[0].status,
            "planned": round(step.planned, 6),
            "began": None if began is None else round(began, 6),
            "ended": None if ended is None else round(ended, 6),
            "why": self.why(place).as_dict(),
            "where": self.where(place),
            "usd": f"{self.usd(place):f}",
            "critical": self.is_critical(place),
            "kept_waiting": [other.label for other in self.reasons.keeps_waiting(step)],
        }

    # Names

    def find(self, name: str) -> Place:
        """The call that is meant: ``$3``, ``3``, ``$3[0]``, ``$1/$2`` within ``$1``, or a tool.

        Raises:
            DefinitionError: There is none, or there are several.
        """
        above, _, last = name.rpartition("/")
        if above:
            runs = self.find(above).step.runs
            steps = [step for run in runs for step in self.timeline.of(run)]
            return self._pick(name, last, steps)
        steps = list(self.timeline.of(self.timeline.run))
        every = list(self.timeline.steps.values())
        return self._pick(name, last, steps if _matching(last, steps) else every)

    def _pick(self, name: str, last: str, steps: list[Step]) -> Place:
        found = _matching(last, steps)
        if len(found) == 1:
            return self._element(name, last, found[0])
        if found:
            shown = ", ".join(self.name_of(step) for step in found[:_LISTED])
            more = ", ..." if len(found) > _LISTED else ""
            raise DefinitionError(f"{name!r} could be {shown}{more}: say which")
        names = sorted({step.tool for step in self.timeline.steps.values() if not step.joins})
        known = [f"${step.number}" for step in steps if not step.joins]
        lines = f" Its calls are {known[0]} to {known[-1]}." if known else " It made no calls."
        raise DefinitionError(
            f"run {self.timeline.run} has no call {name!r}.{lines} {nearest(name, names)}".strip()
        )

    def _element(self, name: str, last: str, step: Step) -> Place:
        match = _NAMED.fullmatch(last)
        if match is None or match[2] is None:
            return Place(step)
        element = int(match[2])
        if element not in step.spans:
            number = len([one for one in step.spans if one is not None])
            raise DefinitionError(f"{name}: ${step.number} has {number} elements that began")
        return Place(step, element)

    def name_of(self, step: Step) -> str:
        """A call, by the lines that lead to it: ``$1/$2``."""
        above = self.timeline.parent_of(step.run)
        return f"{f'{self.name_of(above)}/' if above is not None else ''}${step.number}"


def _matching(name: str, steps: list[Step]) -> list[Step]:
    match = _NAMED.fullmatch(name)
    if match is not None:
        found = [step for step in steps if step.number == int(match[1])]
    else:
        found = [step for step in steps if name in (step.tool, step.name)]
    return [step for step in found if not step.joins]
