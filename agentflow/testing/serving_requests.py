"""A request on its way through a serving engine."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Request:
    """One request, and how far it is.

    Attributes:
        keys: Of the blocks that prompt and output fill, as far as they have keys.
        cached: Tokens of its prompt that were found; None before it first starts.
        made: Tokens made when it began to decode; kept over a preemption.
        blocks: Blocks it holds; the first `named` of them by their key.
        begun: Steps that had been made when it began to decode.
        end: Steps that will have been made when its prompt is done.
        stint: Counts how often it has stopped.
    """

    number: int
    keys: tuple[Hashable, ...]
    prompt: int
    output: int
    priority: int
    arrival: int = 0
    cached: int | None = None
    made: int = 0
    blocks: int = 0
    named: int = 0
    begun: float = 0.0
    end: float = 0.0
    stint: int = 0

    @property
    def known(self) -> int:
        """Tokens to compute before it can make the next one."""
        return self.prompt + self.made

    @property
    def last(self) -> int:
        """Tokens of KV it comes to; that of its last token is never computed."""
        return self.prompt + self.output - 1

    def turn(self) -> tuple[int, int, Request]:
        """Where it stands in the queue."""
        return self.priority, self.arrival, self
