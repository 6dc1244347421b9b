"""What runs tell, written down by hand: the events of calls, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from agentflow import events
from agentflow.cli.account.tally import Tally
from agentflow.cli.account.timeline import Timeline, record_of


def planned(at: float, *lines: str, run: str = "r", first: int = 0, **more: Any) -> events.Event:
    """Lines join a plan; the first has the plan id `first`."""
    return events.PlanExtended(run, at, range(first, first + len(lines)), lines, **more)


def made(
    node: int,
    began: float,
    ended: float,
    tool: str = "fetch",
    run: str = "r",
    element: int | None = None,
) -> tuple[events.Event, events.Event]:
    """A call is made."""
    call = node, tool, element
    started = events.NodeStarted(run, began, *call, 1)
    return started, events.NodeFinished(run, ended, *call, node)


def replied(
    began: float, ended: float, run: str = "r", node: int | None = None, **more: Any
) -> events.Event:
    """A model replied."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "cached_tokens": 0, "usd": "0"}
    known: dict[str, Any] = {**usage, "node": node, **more}
    return events.ModelReplied(run, ended, "tiny", seconds=ended - began, **known)


def told(*happened: events.Event | Iterable[events.Event], end: float = 0.0) -> list[events.Event]:
    """All of a run, in the order of time, with its beginning and its end."""
    flat = list(_flat(happened))
    last = max([end, *(event.at for event in flat)])
    inner = sorted(flat, key=lambda event: event.at)
    started = events.RunStarted("r", 0.0, "flow")
    return [started, *inner, events.RunFinished("r", last, None)]


def _flat(happened: Iterable[events.Event | Iterable[events.Event]]) -> Iterator[events.Event]:
    for one in happened:
        if isinstance(one, events.Event):
            yield one
        else:
            yield from one


def timeline_of(happened: Iterable[events.Event]) -> Timeline:
    """The timeline of events."""
    timeline = Timeline()
    for event in happened:
        if (record := record_of(event)) is not None:
            timeline.take(record)
    return timeline


def tally_of(happened: Iterable[events.Event]) -> Tally:
    """The count of events."""
    tally = Tally()
    for event in happened:
        tally.take(event)
    return tally
