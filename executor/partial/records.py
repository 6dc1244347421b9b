"""What partial execution has brought one run: counted, and told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentflow import events

if TYPE_CHECKING:
    from agentflow.executor.partial.part import Part
    from agentflow.executor.run import Run


@dataclass(slots=True)
class PartialStats:
    """What partial execution has done in one run.

    Attributes:
        warmed: Warm-ups that began when a tool was named.
        started: Tools that were called before their arguments were complete.
        committed: Calls that were made by what had begun before, warm-ups included.
        retracted: What had begun and was of no use.
        seconds_hidden: Work that was done while the model still wrote.
    """

    warmed: int = 0
    started: int = 0
    committed: int = 0
    retracted: int = 0
    seconds_hidden: float = 0.0


class Records:
    """Keeps the books of the parts of one run.

    Args:
        run: Whose subscribers are told.
        stats: Counts them.
    """

    def __init__(self, run: Run[Any], stats: PartialStats) -> None:
        self._run = run
        self._stats = stats

    def warmed(self, part: Part) -> None:
        """A warm-up began."""
        self._stats.warmed += 1
        self._tell(events.PartialWarmed, part)

    def started(self, part: Part) -> None:
        """A tool was called with what is known of its arguments."""
        self._stats.started += 1
        self._tell(events.PartialStarted, part, dict(part.inputs.given))

    def committed(self, part: Part, node: int, hidden: float) -> None:
        """The call was made, and this is its beginning."""
        self._stats.committed += 1
        self._stats.seconds_hidden += hidden
        self._tell(events.PartialCommitted, part, node, hidden)

    def retracted(self, part: Part, why: str) -> None:
        """What had begun is of no use."""
        self._stats.retracted += 1
        self._tell(events.PartialRetracted, part, part.seconds, str(why))

    def _tell(self, kind: Callable[..., events.Event], part: Part, *about: Any) -> None:
        if self._run.watched:
            tool = part.call.tool.name
            self._run.emit(kind(self._run.id, self._run.now(), part.number, tool, *about))
