"""How a run, or one call of it, is explained to people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from agentflow.cli.account.explained import Explained, Place, Row
from agentflow.cli.account.losses import shares
from agentflow.cli.account.spans import Speech
from agentflow.cli.journals import words_for
from agentflow.cli.listing import described
from agentflow.cli.output import counted, duration, stdout_is_terminal
from agentflow.cli.progress import costs, price
from agentflow.cli.screen import columns, fit, terminal_width
from agentflow.cli.story import Sentence
from agentflow.cli.summary import limiting
from agentflow.executor.journal.rows import RunRow

OLD = (
    "It was kept by an older version of agentflow: what calls waited for besides what they need, "
    "and what began while a model wrote, is not recorded."
)

_LINE = 60  # columns of a call
_WIDE = 120  # columns of a terminal that shows reasons beside calls
_STATES = {"done": "", "running": "running", "asked": "asks", "waiting": "-"}


def table(explained: Explained, row: RunRow, damage: str, options: Any) -> Iterator[str]:
    """All calls of a run, in the order they began."""
    yield from _heading(explained, row)
    rows = list(explained.rows())
    if rows:
        yield ""
        yield from _rows(explained, rows)
        limits = limiting(shares(explained.path), explained.timeline.seconds)
        yield ""
        yield from _folded("", f"* the run waited for these: {limits or 'nothing took any time'}")
        yield f"{words_for('explain', row.id, options, chr(36) + '1')} tells all of one call"
    if not explained.timeline.recorded:
        yield from _folded("", OLD)
    if damage:
        yield f"damaged: {damage}"


def sentences(
    explained: Explained, place: Place, told: Sequence[Sentence], row: RunRow, damage: str
) -> Iterator[str]:
    """The story of one call."""
    step = place.step
    above = explained.timeline.parent_of(step.run)
    within = "" if above is None else f", within {explained.name_of(above)} {above.tool}"
    yield f"{row.id}  {described(row)}{within}"
    yield step.line
    critical = "the run waited for it" if explained.is_critical(place) else ""
    facts = explained.as_dict(place)
    took = duration(facts["ended"] - facts["began"]) if None not in (
        facts["ended"], facts["began"]
    ) else ""  # fmt: skip
    paid = price(explained.usd(place)) if explained.usd(place) else ""
    yield ", ".join(filter(None, [facts["status"], took, paid, critical]))
    yield ""
    times = [moment(one.at, explained.timeline.seconds) for one in told]
    width = max(map(columns, times), default=0)
    for at, one in zip(times, told, strict=True):
        yield from _folded(f"{at:>{width}}  ", one.text)
    if not explained.timeline.recorded:
        yield ""
        yield from _folded("", OLD)
    if damage:
        yield f"damaged: {damage}"


def _heading(explained: Explained, row: RunRow) -> Iterator[str]:
    yield f"{row.id}  {described(row)}"
    began = datetime.fromtimestamp(row.began, UTC).astimezone()
    timeline = explained.timeline
    facts = [row.state, f"began {began:%Y-%m-%d %H:%M}", duration(timeline.seconds)]
    facts += [price(row.usd)] if float(row.usd or 0) else []
    if timeline.executions > 1:
        facts.append(f"gone on with {counted(timeline.executions - 1, 'time')}")
    yield ", ".join(facts)


def _rows(explained: Explained, rows: Sequence[Row]) -> Iterator[str]:
    """A line for each; on a narrow terminal the reasons stand below."""
    width = terminal_width() if stdout_is_terminal() else 0
    narrow = 0 < width < _WIDE
    cells = [("", "at", "took", "what", "why then, and where")]
    cells += [_cells(explained, row) for row in rows]
    most = max(24, width - 24) if narrow else _LINE
    widths = [max(columns(fit(line[place], most)) for line in cells) for place in range(4)]
    for mark, at, took, what, why in cells:
        head = f"{mark:<1} {at:>{widths[1]}}  {took:>{widths[2]}}  "
        name = fit(what, most)
        if narrow:
            yield f"{head}{name}"
            yield from _folded(" " * (columns(head) + 2), why)
        else:
            yield from _folded(f"{head}{name}{' ' * (widths[3] - columns(name))}  ", why)


def _cells(explained: Explained, row: Row) -> tuple[str, str, str, str, str]:
    mark = "*" if explained.is_critical(row) else ""
    name = f"the model: {row.label}" if isinstance(row, Speech) else row.step.line
    what = "  " * explained.depth(row) + name
    why = "; ".join([explained.why(row).text, *_facts(explained, row), *explained.where(row)])
    at = partial(moment, of=explained.timeline.seconds)
    if isinstance(row, Speech):
        return mark, at(row.began), duration(row.ended - row.began), what, why
    began, ended, status = row.step.began, row.step.ended, row.step.status
    if began is None:
        return mark, "", _STATES.get(status, status), what, why
    took = _STATES.get(status, status) if ended is None else duration(ended - began)
    return mark, at(began), took, what, why


def _facts(explained: Explained, row: Row) -> Iterator[str]:
    """How it ended if not well, how many it is, and what it cost."""
    if isinstance(row, Place):
        elements = [place for place in row.step.spans if place is not None]
        if elements:
            yield counted(len(elements), "element")
        if row.step.status in ("failed", "cancelled") and row.step.began is not None:
            yield row.step.status
    if cost := costs(explained.usd(row)).removeprefix(", "):
        yield cost


def moment(seconds: float | None, of: float) -> str:
    """A time in a run that took so long, as exact as tells calls apart."""
    if seconds is None:
        return ""
    return f"{seconds:.3f} s" if of < 100 else f"{seconds:,.1f} s"


def _folded(head: str, text: str) -> Iterator[str]:
    """A text behind what stands before it; where a person looks, in lines that fit."""
    if not stdout_is_terminal():
        yield f"{head}{text}"
        return
    room = max(24, terminal_width() - 1 - columns(head))
    first, *further = textwrap.wrap(text, room, break_long_words=False) or [""]
    yield f"{head}{first}"
    for line in further:
        yield f"{' ' * columns(head)}{line}"
