"""``agentflow runs``: the runs that are kept, what they did and ask, and how to forget them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

from agentflow import clock
from agentflow.cli import codes
from agentflow.cli.journals import file_of, reading, words_for
from agentflow.cli.kept import read_kept
from agentflow.cli.listing import GOES_ON, STATES, described, is_ask, table, told
from agentflow.cli.output import counted, print_json
from agentflow.cli.screen import Screen, show
from agentflow.errors import DefinitionError
from agentflow.executor.asking.answering import unanswered
from agentflow.executor.journal.portable import export
from agentflow.executor.journal.rows import RunRow
from agentflow.executor.journal.store import JournalStore
from agentflow.wording import nearest

LISTED = 20
"""Runs that are listed unless it is said how many."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|B|kB|MB|GB)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def command(options: Any, _screen: Screen) -> int:
    """Do what the options ask for; the exit code."""
    action, *words = options.words or ["list"]
    if action not in _ACTIONS:
        raise DefinitionError(f"runs has no action {action!r}. {nearest(action, list(_ACTIONS))}")
    act, names = _ACTIONS[action]
    if len(words) != len(names):
        needed = " ".join(["agentflow", "runs", action, *names])
        raise DefinitionError(f"it is {needed!r}, with {counted(len(names), 'word')} at the end")
    _check_options(options, action)
    if not file_of(options).exists():
        return _nothing(options)
    with reading(options) as store:
        return act(store, options, *words)


def _check_options(options: Any, action: str) -> None:
    """Check what is said of runs, also where none are kept.

    Raises:
        DefinitionError: It is none of what can be said.
    """
    for state in options.state or ():
        if state not in STATES:
            raise DefinitionError(f"--state: no run is {state!r}. {nearest(state, STATES)}")
    if options.limit is not None and options.limit < 1:
        raise DefinitionError(f"--limit: write 1 or more, not {options.limit}")
    if options.keep is not None:
        _duration(options.keep)
    if options.max_size is not None:
        _bytes(options.max_size)
    if action == "prune" and options.keep is None and options.max_size is None:
        raise DefinitionError("say what is to go: --keep 7d, or --max-size 100MB, or both")


def _nothing(options: Any) -> int:
    """No journal has been made."""
    if options.words[1:]:
        with reading(options):  # says so
            raise AssertionError("there was no journal a moment ago")
    if options.json:
        print_json({"ok": True, "journal": str(file_of(options)), "runs": []})
    else:
        print(f"{file_of(options)}: no runs are kept there")
    return codes.OK


def _list(store: JournalStore, options: Any) -> int:
    limit = LISTED if options.limit is None else options.limit
    rows = [_now(store, row) for row in store.runs(states=options.state or (), limit=limit)]
    if options.json:
        runs = [_as_dict(row, options) for row in rows]
        print_json({"ok": True, "journal": str(store.path), "runs": runs})
    elif rows:
        show("\n".join(table(rows, options)))
    else:
        print(f"{store.path}: no {'such ' if options.state else ''}runs are kept there")
    return codes.OK


def _show(store: JournalStore, options: Any, name: str) -> int:
    row = _now(store, store.run(name))
    kept = read_kept(store, row)
    if options.json:
        calls = [call.as_dict() for call in kept.calls.values()]
        resume = {"resume": None} if row.state == "failed" and kept.denied else {}
        told_of = {
            **resume,
            "sessions": kept.sessions,
            "calls": calls,
            "damage": kept.damage or None,
        }
        print_json({"ok": not kept.damage, **_as_dict(row, options), **told_of})
    else:
        show("\n".join(told(row, kept, options)))
    return codes.FAILED if kept.damage else codes.OK


def _delete(store: JournalStore, options: Any, name: str) -> int:
    run = store.run(name).id
    store.delete(run)
    _say(options, f"run {run} is forgotten", run=run)
    return codes.OK


def _export(store: JournalStore, options: Any, name: str, where: str) -> int:
    run = store.run(name).id
    with ExitStack() as stack:
        file = sys.stdout
        if where != "-":
            try:  # for its owner alone, as the journal is
                number = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise DefinitionError(f"{where}: {error.strerror}: name another file") from None
            file = stack.enter_context(open(number, "w", encoding="utf-8"))
        export(store, run, file)
    if where != "-":
        _say(options, f"run {run} is in {where}", run=run)
    return codes.OK


def _prune(store: JournalStore, options: Any) -> int:
    removed = store.prune(
        keep=None if options.keep is None else _duration(options.keep),
        max_bytes=None if options.max_size is None else _bytes(options.max_size),
        now=clock.wall(),
    )
    are = "run is" if removed == 1 else "runs are"
    _say(options, f"{removed:,} {are} forgotten", removed=removed)
    return codes.OK


def _check(store: JournalStore, options: Any) -> int:
    damage = store.check()
    if options.json:
        print_json({"ok": not damage, "journal": str(store.path), "damage": damage})
    else:
        show("\n".join(damage) or f"{store.path}: nothing is damaged")
    return codes.FAILED if damage else codes.OK


Action = Callable[..., int]
_ACTIONS: Mapping[str, tuple[Action, Sequence[str]]] = {
    "list": (_list, ()),
    "show": (_show, ("RUN",)),
    "delete": (_delete, ("RUN",)),
    "export": (_export, ("RUN", "FILE")),
    "prune": (_prune, ()),
    "check": (_check, ()),
}


def _now(store: JournalStore, row: RunRow) -> RunRow:
    """A run without the questions that were answered since it rests."""
    if not all(map(is_ask, row.asks)):
        return replace(row, state="damaged", asks=(), note="what it asks cannot be read")
    return replace(row, asks=tuple(map(dict, unanswered(store, row.id)))) if row.asks else row


def _say(options: Any, text: str, **data: Any) -> None:
    if options.json:
        print_json({"ok": True, **data})
    else:
        show(text)


def _as_dict(row: RunRow, options: Any) -> dict[str, Any]:
    """A run as plain data, with the commands that concern it."""
    data = asdict(row)
    del data["target"]
    resume = words_for("resume", row.id, options) if row.state in GOES_ON else None
    return {**data, "what": described(row), "resume": resume}


def _duration(text: str) -> float:
    try:
        return clock.seconds(text)
    except ValueError as error:
        raise DefinitionError(f"--keep: {error}") from None


def _bytes(text: str) -> int:
    if (match := _SIZE.fullmatch(text.strip())) is None:
        raise DefinitionError(f"--max-size: {text!r} is no size: write 500kB, 100MB or 2GB")
    return int(float(match[1]) * _UNITS[match[2].lower()])
