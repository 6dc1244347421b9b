"""Waiting for one's turn under a rate limit, and giving back what was not used."""

from __future__ import annotations

import asyncio

from agentflow.clock import now
from agentflow.context import remaining
from agentflow.errors import BackendBusy
from agentflow.executor.models.base import ChatRequest, Usage
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.models.usage import prompt_bound


class Turns:
    """The turns of a backend's requests.

    Args:
        limiter: Limits on requests and tokens per minute; None for none.
        url: Of the backend, for messages.
    """

    def __init__(self, limiter: RateLimiter | None, url: str) -> None:
        self._limiter = limiter
        self._url = url

    async def take(self, request: ChatRequest) -> int:
        """Wait until a request may start.

        Returns:
            The tokens that were reserved for it; `settle` wants to know.

        Raises:
            BackendBusy: Its turn does not come before the deadline of the run.
        """
        if self._limiter is None:
            return 0
        reserved = _bound(request)
        await self._wait(self._limiter, reserved)
        return reserved

    def take_now(self, request: ChatRequest) -> int | None:
        """The same without waiting; None if a request may not start at once."""
        if self._limiter is None:
            return 0
        reserved = _bound(request)
        if self._limiter.delay(now(), reserved) <= 0:
            return reserved
        self.leave(reserved)
        return None

    def leave(self, reserved: int) -> None:
        """Give a turn back with what was reserved: the request is not made."""
        if self._limiter is not None:
            self._limiter.give_back(now(), reserved, request=True)

    async def again(self) -> None:
        """Wait until one more attempt of a request may start."""
        if self._limiter is not None:
            await self._wait(self._limiter, 0)

    def settle(self, reserved: int, used: Usage) -> None:
        """Give back what was reserved and not used."""
        if self._limiter is not None:
            unused = reserved - used.prompt_tokens - used.completion_tokens
            self._limiter.give_back(now(), unused)

    def pause(self, seconds: float | None) -> None:
        """Let nothing start for some time, if the server said so (``Retry-After``)."""
        if self._limiter is not None and seconds is not None:
            self._limiter.pause(now() + seconds)

    async def _wait(self, limiter: RateLimiter, tokens: int) -> None:
        wait = limiter.delay(now(), tokens)
        try:
            while wait > 0:
                self._check(wait)
                await asyncio.sleep(wait)
                wait = limiter.held(now())  # a pause may have begun meanwhile
        except (asyncio.CancelledError, BackendBusy):
            self.leave(tokens)
            raise

    def _check(self, wait: float) -> None:
        """Check that a turn comes before the deadline of the run.

        Raises:
            BackendBusy: It does not.
        """
        left = remaining()
        if left is not None and wait >= left:
            raise BackendBusy(
                f"{self._url}: the rate limit allows the next request in {wait:.5g} s, and the "
                f"deadline of the run is in {left:.5g} s",
                url=self._url,
                retryable=False,
            )


def _bound(request: ChatRequest) -> int:
    """The most tokens that a request may take."""
    return prompt_bound(request) + request.max_tokens
