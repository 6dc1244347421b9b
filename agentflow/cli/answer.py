"""The answer of a question on standard output, token by token."""

from __future__ import annotations

from typing import Any

from agentflow import events
from agentflow.cli.output import is_terminal
from agentflow.cli.screen import Screen, clean


class AnswerWriter:
    """Writes the answer of one run as it comes.

    Args:
        stream: Standard output.
        screen: Held back while the answer is in the middle of a line.
        run: Id of the run whose answer it is.
    """

    def __init__(self, stream: Any, screen: Screen, run: str) -> None:
        self._stream = stream
        self._screen = screen
        self._run = run
        self._terminal = is_terminal(stream)
        self._written = ""

    def take(self, event: events.Event) -> None:
        """Write what an event adds to the answer."""
        if event.run != self._run:
            return
        void = isinstance(event, events.TextRetracted) and event.node is None
        if void or isinstance(event, events.RoundStarted):
            self.close()  # what was said before it called tools, or broke off
            self._written = ""
        elif isinstance(event, events.TextDelta) and event.role == "answer":
            self._write(event.text)

    def finish(self, value: str, footer: str = "") -> None:
        """Write what is missing of the whole answer, and a footer below it."""
        if value.startswith(self._written):
            self._write(value[len(self._written) :])
        elif value.strip() != self._written.strip():
            self._write(f"\n{value}")  # what was streamed was not the answer
        if footer:
            self._write("\n" * (1 + (not self._written.endswith("\n"))) + footer)
        self.close()

    def close(self) -> None:
        """End the line, and let the screen go on."""
        if self._written and not self._written.endswith("\n"):
            self._write("\n")
        self._screen.release()

    def _write(self, text: str) -> None:
        if not text:
            return
        if not self._written and self._terminal:
            self._screen.line("")
        self._screen.hold()
        self._written += text
        self._stream.write(clean(text) if self._terminal else text)
        self._stream.flush()
