"""Failures that are remembered for a while, so that a call is not made just to fail again."""

from __future__ import annotations

import copy
from collections import OrderedDict
from contextlib import suppress

from agentflow.caches.epochs import Epoch
from agentflow.clock import now

FAILURES = 1000
"""Failures that are remembered at once."""

CAUSES = 8
"""Causes of a failure, and causes of these, that are kept with it."""


class Remembered(Exception):  # no failure of the cache
    """A call is not made, because it has failed before.

    Args:
        failure: What it raised then, for one caller to raise again.
    """

    def __init__(self, failure: Exception) -> None:
        super().__init__(failure)
        self.failure = failure


class Failures:
    """Failures of calls (``negative_ttl``), in memory only and without their frames."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, float, Epoch, Exception]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def note(self, key: str, epochs: Epoch, error: Exception, ttl: float) -> None:
        """Remember what a call raised, for `ttl` seconds."""
        self.forget(key)
        self._drop_expired()
        if (twin := twin_of(error)) is not None:
            self._known[key] = (now(), now() + ttl, epochs, twin)
        if len(self._known) > FAILURES:
            self._known.popitem(last=False)

    def forget(self, key: str) -> None:
        """The call has not failed, or is to be made all the same."""
        self._known.pop(key, None)

    def check(self, key: str, epochs: Epoch, ttl: float) -> None:
        """Refuse a call that failed, if no longer than `ttl` seconds ago.

        Raises:
            Remembered: It did, and nothing was written since.
        """
        if key not in self._known:
            return
        at, until, then, error = self._known[key]
        if then != epochs or now() >= until:
            self.forget(key)
        elif now() < at + ttl:
            raise Remembered(twin_of(error) or error)

    def _drop_expired(self) -> None:
        """Drop the oldest, as far as they have expired."""
        while self._known and next(iter(self._known.values()))[1] <= now():
            self._known.popitem(last=False)


def twin_of(error: Exception) -> Exception | None:
    """The same without its frames, and so its causes; None for what cannot be copied."""
    twin = last = _copied(error)
    cause = error.__cause__
    for _ in range(CAUSES):
        if last is None or not isinstance(cause, Exception):
            break
        last.__cause__ = _copied(cause)
        last, cause = last.__cause__, cause.__cause__
    return twin


def _copied(error: Exception) -> Exception | None:
    """A copy without frames and causes; None if neither way to make one works."""
    for way in (copy.copy, _rebuilt):
        with suppress(Exception):  # of the classes of a user
            twin = way(error)
            if type(twin) is type(error):
                if notes := getattr(error, "__notes__", None):
                    twin.__notes__ = list(notes)
                return twin.with_traceback(None)
    return None


def _rebuilt(error: Exception) -> Exception:
    """A copy of one whose class does not take the arguments that it keeps."""
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error))
    return twin
