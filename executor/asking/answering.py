"""Answering what runs ask, by what their journal says: also after a restart, and days later.

`agentflow.executor.journal.store.JournalStore` is all that is needed; the run goes on when it is
resumed, or within about a second if it is running.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.journal import rows
from agentflow.executor.journal.store import JournalStore
from agentflow.executor.journal.values import plain_data
from agentflow.tools.approval import Answer

Ask = Mapping[str, Any]
"""A question as a list of runs shows it; see `Question.listed`."""


def unanswered(store: JournalStore, run: str) -> list[Ask]:
    """What a run asks, and nobody has answered yet.

    Args:
        store: Of the journal.
        run: Id of the run, or how it begins.

    Raises:
        JournalError: There is no such run.
    """
    row = store.run(run)
    known = store.answers(row.id)
    return [ask for ask in row.asks if ask["question"] not in known]


def answer(store: JournalStore, run: str, question: str | None, given: Answer) -> Ask:
    """Answer a question of a run; to answer it twice alike is harmless.

    Args:
        store: Of the journal.
        run: Id of the run, or how it begins.
        question: Its id, the name of the tool, or the call as plans name it (``$3``); None for
            the only one that is open.
        given: The answer.

    Returns:
        What was asked.

    Raises:
        JournalError: There is no such run or question, there are several, or it was answered
            otherwise before.
        DefinitionError: It is no answer to this question, or JSON has no form for its value.
    """
    row = store.run(run)
    known = store.answers(row.id)
    open_ones = [ask for ask in row.asks if ask["question"] not in known]
    again = [ask for ask in row.asks if question in (None, *names(ask))]
    asks = row.asks if len(again) == 1 else open_ones
    try:
        ask = pick(asks, question, row.id)
    except LookupError as error:
        raise JournalError(str(error), path=str(store.path), run=row.id) from None
    check(ask, given)
    before = known.get(ask["question"])
    if before is None:
        store.answer(row.id, ask["question"], given.verdict, _text(given), given.by)
    elif not _alike(before, given):
        raise JournalError(
            f"{place(ask)} {ask['call']} was answered with {before.verdict!r} by {before.by} "
            "already, and that stays",
            path=str(store.path),
            run=row.id,
        )
    return ask


def pick(asks: Iterable[Ask], question: str | None, run: str) -> Ask:
    """The question that is meant.

    Raises:
        LookupError: There is none, or there are several; the text lists them.
    """
    asks = list(asks)
    found = [ask for ask in asks if question in (None, *names(ask))]
    if len(found) == 1:
        return found[0]
    if not asks:
        raise LookupError(f"run {run} asks nothing")
    listed = "".join(f"\n  {handle(ask, asks)}: {ask['call']}" for ask in found or asks)
    if found:
        raise LookupError(f"run {run} asks several questions: say which{listed}")
    raise LookupError(f"run {run} does not ask {question!r}; it asks{listed}")


def names(ask: Ask) -> tuple[str, ...]:
    """What a question may be called."""
    return ask["question"], ask["tool"], place(ask)


def handle(ask: Ask, asks: Iterable[Ask]) -> str:
    """The shortest name of a question that no other of these has."""
    others = [name for other in asks if other != ask for name in names(other)]
    return next((name for name in (place(ask), ask["tool"]) if name not in others), ask["question"])


def place(ask: Ask) -> str:
    """The call that a question is about, as plans name it: ``$3``, or ``$3[0]`` in a map."""
    element = ask.get("element")
    return f"${ask['node'] + 1}" + ("" if element is None else f"[{element}]")


def check(ask: Ask, given: Answer) -> None:
    """See whether an answer is one to this question.

    Raises:
        DefinitionError: It is not.
    """
    if given.verdict == "done" and ask["kind"] != "doubt":
        raise DefinitionError(
            f"{ask['tool']} has not been called: approve or deny it, without a value"
        )


def read(stored: rows.Answer) -> Answer:
    """An answer from the journal; the value of one that is ``done`` is still JSON text."""
    if stored.verdict == "done":
        return Answer("done", value=stored.value or "null", by=stored.by)
    why = json.loads(stored.value) if stored.value else ""
    return Answer("deny" if stored.verdict == "deny" else "approve", str(why), by=stored.by)


def stated(given: Answer) -> Answer:
    """An answer as it is once it has been in the journal."""
    return read(rows.Answer(given.verdict, _text(given), given.by, 0.0))


def _alike(before: rows.Answer, given: Answer) -> bool:
    """Whether an answer says what was said before; the reasons may differ."""
    if given.verdict == "done" and before.value != _text(given):
        return False
    return before.verdict == given.verdict


def _text(given: Answer) -> str | None:
    """What is kept of an answer besides its verdict, as JSON text."""
    if given.verdict == "done":
        try:
            return json.dumps(plain_data(given.value), allow_nan=False)
        except ValueError as error:
            raise DefinitionError(f"a value of a call is given as plain data: {error}") from None
    return json.dumps(given.why) if given.why else None
