"""Answers what a run asks: with ``--yes``, or by asking who sits at the terminal."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, NoReturn

from agentflow.cli.output import is_terminal
from agentflow.cli.screen import Screen
from agentflow.errors import DefinitionError
from agentflow.tools.approval import Answer, Answerer, Question

_CHOICES = {
    "approval": "[y]es, [n]o",
    "doubt": "[y] make it again, [n] let it fail, [v] it was made: give its value",
}
_LATER = ("", "l", "later")


def answerer(options: Any, screen: Screen, *, waits: bool) -> Answerer | None:
    """What answers for the options; None leaves questions open.

    Args:
        options: Of the command.
        screen: Where the run is shown.
        waits: Whether the run can wait for an answer: it is kept.
    """
    if options.yes:
        return approve_all
    shows = not (options.json or options.events or options.quiet)
    if shows and is_terminal(sys.stdin) and is_terminal(sys.stderr):
        return Asker(screen, waits=waits)
    return None if waits else refuse


async def approve_all(question: Question) -> Answer | None:
    """Approve what is asked before a call; a call in doubt is another matter."""
    return Answer("approve", by="--yes") if question.kind == "approval" else None


async def refuse(question: Question) -> NoReturn:
    """Nobody can be asked.

    Raises:
        DefinitionError: Always.
    """
    raise DefinitionError(
        f"{question.tool} asks before it is called, and nobody is there: --yes approves it, and "
        "a run that is kept (without --no-journal) waits for an answer"
    )


class Asker:
    """Asks at the terminal, one question at a time.

    Args:
        screen: Where the run is shown; it waits meanwhile.
        waits: Whether a question may be left open: the run is kept.
    """

    def __init__(self, screen: Screen, *, waits: bool) -> None:
        self._screen = screen
        self._waits = waits
        self._turn = asyncio.Lock()

    async def __call__(self, question: Question) -> Answer | None:
        """Ask; None if the question is left open.

        Raises:
            DefinitionError: It is, or nobody is there any more, and the run cannot wait.
        """
        async with self._turn:
            self._screen.insist(_put(question))
            self._screen.hold()
            try:
                return await self._answered(question)
            finally:
                self._screen.release()

    async def _answered(self, question: Question) -> Answer | None:
        """What is answered in the end: what is none is asked again."""
        choices = _CHOICES[question.kind] + (", [l]ater" if self._waits else "")
        while True:
            line = await _prompted(f"{choices}? ")
            word = line.strip().lower()
            if word in ("y", "yes"):
                return Answer("approve", by="who ran it")
            if word in ("n", "no"):
                return Answer("deny", by="who ran it")
            if self._waits and word in _LATER:
                return None
            if not line:
                await refuse(question)
            given = await self._value() if (word, question.kind) == ("v", "doubt") else None
            if given is not None:
                return given

    async def _value(self) -> Answer | None:
        text = await _prompted("its value, as JSON: ")
        try:
            return Answer("done", value=json.loads(text), by="who ran it")
        except (ValueError, RecursionError) as error:
            print(f"that is no JSON: {error}", file=sys.stderr)
            return None


def _put(question: Question) -> str:
    if question.kind == "doubt":
        return f"In doubt: {question.call}\n{question.why}"
    return f"May this be called? {question.call}\n{question.why}"


async def _prompted(prompt: str) -> str:
    """A line from the terminal; empty at its end. Whoever waits for it can be cancelled."""
    print(prompt, end="", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin, ready.set)
    line = ""
    try:
        await ready.wait()
        line = sys.stdin.readline()
    finally:
        loop.remove_reader(sys.stdin)
        if not line:
            print(file=sys.stderr)
    return line
