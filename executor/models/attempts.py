"""Attempts at a call, as whoever pays for it hears of them: held, sent, made again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from agentflow.errors import BackendError, BackendTimeout


class Meter(Protocol):
    """Pays for the attempts at one call."""

    def holding(self) -> None:
        """Nothing of the attempt is sent yet; `sending` will tell."""

    def sending(self) -> None:
        """The attempt is on its way, and may cost something from now on."""

    def again(self, error: BackendError) -> None:
        """The attempt has failed, and there is to be another."""


class Noted:
    """Notes whether the attempt under way at a call may cost something.

    Attributes:
        sent: It may from the beginning, unless the model says that it will tell.
    """

    def __init__(self) -> None:
        self.sent = True

    def holding(self) -> None:
        """Nothing of the attempt is sent yet; `sending` will tell."""
        self.sent = False

    def sending(self) -> None:
        """The attempt is on its way, and may cost something from now on."""
        self.sent = True

    def again(self, error: BackendError) -> None:
        """The attempt has failed; one that was refused has cost nothing."""
        self.sent = self.sent and not was_refused(error)


def was_refused(error: Exception) -> bool:
    """Whether a call that failed before its first piece has surely cost nothing."""
    return not isinstance(error, BackendTimeout)


_METER: ContextVar[Meter | None] = ContextVar("agentflow_meter", default=None)


@contextmanager
def metered(meter: Meter | None) -> Iterator[None]:
    """Let the calls that start in this block tell a meter of their attempts."""
    token = _METER.set(meter)
    try:
        yield
    finally:
        _METER.reset(token)


def holding() -> None:
    """Say that a call may wait before anything of it is sent, and that `sending` will tell."""
    if (meter := _METER.get()) is not None:
        meter.holding()


def sending() -> None:
    """Say that an attempt goes on its way now."""
    if (meter := _METER.get()) is not None:
        meter.sending()


def again(error: BackendError) -> None:
    """Have an attempt that failed settled, and the next one paid for before it is made.

    Raises:
        BackendError: The same error: what is left does not pay for another attempt.
    """
    if (meter := _METER.get()) is not None:
        meter.again(error)
