"""Order and faults in tests as scripts, not as sleeps and dice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from agentflow.clock import now

R = TypeVar("R")


class Gate:
    """Stops whoever comes to it until the test lets them through.

    Attributes:
        entered: Set when somebody stands at the gate.
        release: Set it to let everybody through.
    """

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()

    async def wait(self) -> None:
        """Stand at the gate until it is released."""
        self.entered.set()
        await self.release.wait()


@dataclass(frozen=True, slots=True)
class Called:
    """One call a `Scripted` received, and when (seconds on the loop's clock)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    at: float


class Scripted(Generic[R]):
    """An async callable that answers from a list.

    A value is returned, an exception raised, and a float is slept first, in seconds.

    Attributes:
        calls: What it was called with, in order.
    """

    def __init__(self, *script: R | BaseException | float) -> None:
        self._script = deque(script)
        self.calls: list[Called] = []

    async def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Give the next answer.

        Raises:
            AssertionError: The script is used up.
        """
        self.calls.append(Called(args, kwargs, now()))
        while self._script:
            answer = self._script.popleft()
            if isinstance(answer, BaseException):
                raise answer
            if not isinstance(answer, float):
                return answer
            await asyncio.sleep(answer)
        raise AssertionError(f"the script has no answer for call number {len(self.calls)}")


@dataclass(slots=True)
class Timeline:
    """Notes of what happened when, on the loop's clock.

    Attributes:
        notes: (seconds, what) in the order noted.
    """

    notes: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Write down that `what` happens now."""
        self.notes.append((now(), what))

    @contextmanager
    def span(self, what: str) -> Iterator[None]:
        """Note ``what started``, and ``what ended`` however the block is left."""
        self.note(f"{what} started")
        try:
            yield
        finally:
            self.note(f"{what} ended")

    def at(self, what: str) -> float:
        """When `what` was first noted.

        Raises:
            KeyError: It never was.
        """
        for seconds, noted in self.notes:
            if noted == what:
                return seconds
        raise KeyError(f"{what!r} was never noted; noted: {[noted for _, noted in self.notes]}")
