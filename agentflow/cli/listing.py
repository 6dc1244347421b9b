"""Runs that are kept, as they are listed and told of to people."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from agentflow import clock
from agentflow.cli.journals import words_for
from agentflow.cli.kept import KeptRun
from agentflow.cli.output import as_json, counted, duration, size, stdout_is_terminal
from agentflow.cli.progress import price
from agentflow.cli.recipe import Recipe, recipe_of
from agentflow.cli.screen import columns, fit, terminal_width
from agentflow.errors import DefinitionError
from agentflow.executor.asking.answering import Ask, handle, place
from agentflow.executor.journal.rows import RunRow

DENIED = "what was denied stays so: to be asked again, run it anew"
"""What is to be done about a run that failed because a call was denied."""

STATES = ("running", "paused", "interrupted", "finished", "failed", "cancelled", "damaged")
"""What a run can be."""

GOES_ON = ("paused", "interrupted", "failed", "cancelled")
"""What a run can be that may be gone on with."""

_LINE = 60  # columns of a call

_MARKS = {
    "done": "✓",
    "failed": "✗",
    "skipped": "↷",
    "cancelled": "✗",
    "begun": "?",
    "asked": "?",
    "open": "·",
    "waiting": "·",
}
_WORDS = {
    "begun": "may have been made: nobody knows",
    "asked": "asks",
    "open": "not finished",
    "cancelled": "cancelled",
    "waiting": "not made",
}


def table(rows: Sequence[RunRow], options: Any) -> Iterator[str]:
    """A line for each run, and one for each thing that it asks."""
    cells = [("run", "state", "age", "took", "cost", "what")]
    cells += [_cells(row) for row in rows]
    widths = [max(columns(line[place]) for line in cells) for place in range(5)]
    first, *lines = ["  ".join([*map(str.ljust, line, widths), line[5]]) for line in cells]
    yield _fitted(first)
    for row, line in zip(rows, lines, strict=True):
        yield _fitted(line)
        for ask in row.asks:
            yield _fitted(f"  asks: {ask_line(ask)}")
            names = [handle(ask, row.asks)] if len(row.asks) > 1 else []
            yield f"  {words_for('approve', row.id, options, *names)}"


def told(row: RunRow, kept: KeptRun, options: Any) -> Iterator[str]:
    """All that is to be said of one run."""
    yield f"{row.id}  {described(row)}"
    began = datetime.fromtimestamp(row.began, UTC).astimezone()
    spent = filter(None, [_spent(row), _cost(row), size(row.size)])
    yield f"{row.state}, began {began:%Y-%m-%d %H:%M}, {', '.join(spent)}"
    if kept.sessions > 1:
        yield f"gone on with {counted(kept.sessions - 1, 'time')}"
    if (begun := _begun(row)) is not None:
        yield f"in {begun.folder}: agentflow run {shlex.join(begun.words)}"
    if kept.calls:
        yield ""
        yield from (_fitted(line) for line in _calls(kept))
    if row.note and row.state != "paused":
        yield ""
        yield _note(row)
    if kept.damage:
        yield f"damaged: {kept.damage}"
    yield from asks_of(row.id, row.asks, options)
    if row.state == "failed" and kept.denied:
        begun = _begun(row)
        command = f": agentflow run {shlex.join(begun.words)}" if begun is not None else ""
        yield f"{DENIED}{command}"
    elif row.state in GOES_ON:
        yield f"to go on: {words_for('resume', row.id, options)}"


def asks_of(run: str, asks: Iterable[Ask], options: Any) -> Iterator[str]:
    """What a run asks, with what to type."""
    asks = list(asks)
    for ask in asks:
        name = handle(ask, asks)
        yield f"asks: {ask_line(ask)}"
        yield f"  {words_for('approve', run, options, name)}"
        yield f"  {words_for('deny', run, options, name)}"


def ask_line(ask: Ask) -> str:
    """A question in one line."""
    doubt = " (it may have been made already)" if ask.get("kind") == "doubt" else ""
    return f"{place(ask)} {ask['call']}{doubt}: {ask['why']}"


def is_ask(ask: Mapping[str, Any]) -> bool:
    """Whether a question that was read can be put."""
    texts = all(isinstance(ask.get(name), str) for name in ("question", "call", "why", "tool"))
    return texts and isinstance(ask.get("node"), int)


def described(row: RunRow) -> str:
    """What a run is of, in one line."""
    try:
        text = _described(row)
    except (AttributeError, TypeError):  # it is no target of ours
        text = row.name
    return " ".join(text.split())


def _described(row: RunRow) -> str:
    if (begun := _begun(row)) is not None:
        return begun.target[0] if row.kind == "task" else shlex.join(begun.target)
    if row.kind == "task":
        return str(row.target.get("fields", {}).get("question", row.name))
    if row.kind == "plan":
        return str(row.target.get("text", row.name)).partition("\n")[0]
    given = row.target.get("arguments", {})
    named = [f"{name}={as_json(value)}" for name, value in given.get("kwargs", {}).items()]
    return f"{row.name}({', '.join([*map(as_json, given.get('args', [])), *named])})"


def age(seconds: float) -> str:
    """How long ago something was, in its largest unit."""
    for unit, length in (("day", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return counted(number, unit) if unit == "day" else f"{number} {unit}"
    return f"{max(0, int(seconds))} s"


def _begun(row: RunRow) -> Recipe | None:
    with suppress(DefinitionError):
        return recipe_of(row)
    return None


def _cells(row: RunRow) -> tuple[str, str, str, str, str, str]:
    what = described(row)
    if row.note and row.state not in ("running", "paused"):
        what = f"{what}: {row.note}" if row.state == "finished" else f"{what} ({_note(row)})"
    ago = age(clock.wall() - row.began)
    return row.id, row.state, ago, _spent(row), _cost(row), what


def _note(row: RunRow) -> str:
    return row.note.removeprefix("RunFailed: ").removeprefix("RunCancelled: ")


def _spent(row: RunRow) -> str:
    """How long it ran; nobody knows of one whose process died."""
    return duration(row.seconds) if row.seconds else ""


def _cost(row: RunRow) -> str:
    try:
        return price(row.usd) if float(row.usd) else ""
    except ValueError:
        return ""


def _calls(kept: KeptRun) -> Iterator[str]:
    calls = list(kept.calls.values())
    named = [fit("  " * call.depth + call.line, _LINE) for call in calls]
    width = max(map(columns, named))
    for call, name in zip(calls, named, strict=True):
        spent = duration(call.seconds) if call.status in ("done", "failed") else ""
        spent += f", {price(call.usd)}" if call.usd else ""
        elements = counted(call.elements, "element") if call.elements else ""
        words = [elements, _WORDS.get(call.status), *call.answers, call.told]
        what = ", ".join(filter(None, words))
        padding = " " * (width - columns(name))
        yield f"{_MARKS[call.status]} {name}{padding}  {spent:>8}  {what}"


def _fitted(line: str) -> str:
    """A line that fits, where a person looks at it."""
    return fit(line.rstrip(), terminal_width()) if stdout_is_terminal() else line.rstrip()
