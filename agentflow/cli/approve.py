"""``agentflow approve`` and ``agentflow deny``: answer what a run asks."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from typing import Any

from agentflow.cli import codes
from agentflow.cli.journals import reading, words_for
from agentflow.cli.listing import GOES_ON, asks_of
from agentflow.cli.output import print_json
from agentflow.cli.screen import Screen, show
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.asking.answering import Ask, answer, place, unanswered
from agentflow.executor.journal.store import JournalStore
from agentflow.tools.approval import Answer


def command(options: Any, _screen: Screen) -> int:
    """Answer as the options say; the exit code."""
    given = _answer(options)
    with reading(options) as store:
        row = store.run(options.run)
        answered = list(_answered(store, row.id, options, given))
        left = unanswered(store, row.id)
        state = store.run(row.id).state
    goes_on = state in GOES_ON and not left
    resume = words_for("resume", row.id, options) if goes_on else None
    if options.json:
        told = [ask["question"] for ask in answered]
        print_json({"ok": True, "run": row.id, "answered": told, "open": left, "resume": resume})
        return codes.OK
    for ask in answered:
        show(f"{_VERBS[given.verdict]}: {place(ask)} {ask['call']}")
    for line in asks_of(row.id, left, options):
        show(line)
    if resume is not None:
        show(f"to go on: {resume}")
    elif state == "running":
        show(f"run {row.id} is going on, and hears of it")
    return codes.OK


_VERBS = {"approve": "approved", "deny": "denied", "done": "answered with its value"}


def _answer(options: Any) -> Answer:
    """The answer that the options give.

    Raises:
        DefinitionError: The value is no JSON, or there is one for several calls.
    """
    by = _user()
    if options.command == "deny":
        return Answer("deny", options.why, by=by)
    if options.value is None:
        return Answer("approve", by=by)
    if options.all:
        raise DefinitionError("--value is of one call: name it, and leave --all out")
    try:
        return Answer("done", value=json.loads(options.value), by=by)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(
            f"--value {options.value!r} is not JSON ({error}): text stands in quotes, '\"done\"'"
        ) from None


def _answered(store: JournalStore, run: str, options: Any, given: Answer) -> Iterator[Ask]:
    """The questions that are answered by this.

    Raises:
        JournalError: There is none, or it was answered otherwise before.
        DefinitionError: It is no answer to one of them.
    """
    if not options.all:
        yield answer(store, run, options.call, given)
        return
    if not (asks := unanswered(store, run)):
        raise JournalError(
            f"run {run} asks nothing that is not answered", path=str(store.path), run=run
        )
    for ask in asks:
        yield answer(store, run, ask["question"], given)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no names for users
        return "somebody"
