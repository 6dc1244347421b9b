"""Events and records tell the same of a run: when its calls began, and what they waited for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentflow import Engine, events
from agentflow.cli.account.path import critical_path
from agentflow.cli.account.reasons import Reasons
from agentflow.cli.account.timeline import Timeline, record_of
from agentflow.errors import RunError
from agentflow.testing.clock import run_virtual

from .conftest import Desk, records
from .programs import Programs

NAMES = list(Programs([], []).all())


def followed(program: Any, path: Path) -> Timeline:
    """Run a program; its timeline, by what it told."""
    timeline = Timeline()

    def take(event: events.Event) -> None:
        if (record := record_of(event)) is not None:
            timeline.take(record)

    async def main() -> None:
        async with Engine(journal=path, seed=1) as engine:
            engine.subscribe(take)
            with suppress(RunError):
                await engine.run(program)

    run_virtual(main())
    return timeline


def read(path: Path) -> Timeline:
    """The timeline of the run, by what was written down."""
    timeline = Timeline()
    for record in records(path):
        timeline.take(record)
    return timeline


def facts(timeline: Timeline) -> dict[tuple[str, int, int | None], Any]:
    """When everything began and ended, and what it waited for, by run, line and element."""
    return {
        (step.run, step.number, element): (
            span.status,
            None if span.began is None else round(span.began, 4),
            None if span.ended is None else round(span.ended, 4),
            [(wait.why, round(wait.began, 4), round(wait.ended, 4)) for wait in span.waits],
        )
        for step in timeline.steps.values()
        if not step.joins
        for element, span in step.made().items()
        if span.began is not None
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_down_explains_a_run_as_its_events_do(name: str, desk: Desk) -> None:
    path = desk.path()
    live = followed(Programs(desk.made, desk.ended).all()[name], path)

    kept = read(path)

    assert facts(kept) == facts(live)
    assert kept.recorded
    reasons = [
        {(s.run, s.number): r.of_step(s).kind for s in r.timeline.steps.values() if not s.joins}
        for r in (Reasons(live), Reasons(kept))
    ]
    assert reasons[0] == reasons[1]
    assert "unknown" not in reasons[0].values()
    (first, second) = (
        [one for one in critical_path(t) if one.seconds > 1e-4] for t in (live, kept)
    )
    assert [one.kind for one in first] == [one.kind for one in second]
    assert sum(one.seconds for one in second) == pytest.approx(live.seconds, abs=1e-3)


def test_queues_are_written_down_with_the_ends_of_calls(desk: Desk) -> None:
    path = desk.path()
    followed(Programs(desk.made, desk.ended).all()["queues"], path)

    waited = [record["waited_tool"] for record in records(path) if "waited_tool" in record]

    assert waited and all(seconds > 0 for seconds in waited)
