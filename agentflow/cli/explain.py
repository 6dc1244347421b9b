"""``agentflow explain``: why each call of a run began when it did, where, and what it held up."""

from __future__ import annotations

from typing import Any

from agentflow.cli import codes
from agentflow.cli.account.accounts import stretch_dict
from agentflow.cli.account.explained import Explained, Place
from agentflow.cli.account.timeline import Timeline
from agentflow.cli.journals import reading
from agentflow.cli.listing import described
from agentflow.cli.output import print_json
from agentflow.cli.screen import Screen, show
from agentflow.cli.story import story
from agentflow.cli.telling import sentences, table
from agentflow.errors import JournalError
from agentflow.executor.journal.rows import RunRow
from agentflow.executor.journal.store import JournalStore


def command(options: Any, _screen: Screen) -> int:
    """Explain the run, or the call, that the options name; the exit code."""
    with reading(options) as store:
        row = store.run(options.run)
        explained, damage = read_explained(store, row)
        if options.node is None:
            _tell_run(explained, row, damage, options)
        else:
            _tell_call(explained, explained.find(options.node), row, damage, options)
    return codes.FAILED if damage else codes.OK


def read_explained(store: JournalStore, row: RunRow) -> tuple[Explained, str]:
    """A run as its records tell it, and why they could not be read to their end."""
    timeline, damage = Timeline(row.id), ""
    try:
        for number, record in enumerate(store.records(row.id), 1):
            try:
                timeline.take(record)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                what = f"{type(error).__name__}: {error}"
                damage = f"record {number} is not one of a run ({what})"
    except JournalError as error:
        damage = str(error)
    return Explained(timeline, store.blob), damage


def _tell_run(explained: Explained, row: RunRow, damage: str, options: Any) -> None:
    if not options.json:
        show("\n".join(table(explained, row, damage, options)))
        return
    nodes = [explained.as_dict(place) for place in explained.places()]
    path = [stretch_dict(stretch) for stretch in explained.path]
    print_json({**_head(explained, row, damage), "nodes": nodes, "path": path})


def _tell_call(explained: Explained, place: Place, row: RunRow, damage: str, options: Any) -> None:
    told = story(explained.reasons, place.step, place.element, explained.told)
    if not options.json:
        show("\n".join(sentences(explained, place, told, row, damage)))
        return
    node = {**explained.as_dict(place), "story": [one.as_dict() for one in told]}
    print_json({**_head(explained, row, damage), "node": node})


def _head(explained: Explained, row: RunRow, damage: str) -> dict[str, Any]:
    timeline = explained.timeline
    return {
        "ok": not damage,
        "run": row.id,
        "what": described(row),
        "state": row.state,
        "seconds": round(timeline.seconds, 6),
        "executions": timeline.executions,
        "recorded": timeline.recorded,
        "damage": damage or None,
    }
