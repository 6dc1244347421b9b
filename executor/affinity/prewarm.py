"""Has a conversation's next prompt computed, as far as it is known, while its tools run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias

from agentflow.caches.affinity.warming import LEAST
from agentflow.clock import now
from agentflow.errors import BackendError, BackendRejected, BudgetExceeded
from agentflow.executor.models.base import ChatRequest, Reply
from agentflow.executor.models.usage import estimate

AGAIN = 0.25
"""Seconds after which a replica that was busy is looked at again, at the earliest."""

SELDOM = 0.25
"""Share of the time so far after which it is looked at again: two sessions that push each other
out of an idle replica do so a few times, not all the time."""

Spawn: TypeAlias = "Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]"


class Prewarmer:
    """Warms for one conversation.

    Args:
        warm: Makes a request where nobody has to wait for it, or gives None; see `Pool.warm`.
        spawn: Starts a task.
    """

    def __init__(
        self, warm: Callable[[ChatRequest], Awaitable[Reply | None]], spawn: Spawn
    ) -> None:
        self._warm = warm
        self._spawn = spawn
        self._next: ChatRequest | None = None
        self._size = 0  # tokens, about, of the prompt that was handed over last
        self._lives = False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._refused = False
        self._closed = False

    def know(self, request: ChatRequest, *, lives: bool = True) -> None:
        """The next prompt begins like that of this request, as far as is known by now.

        Args:
            request: What will be asked for.
            lives: Its session was answered before, so that it is known whether something of it
                is missing. Of another, a prompt is computed once, and again when it has grown.
        """
        size = estimate(request, 0, 0).prompt_tokens
        if self._refused or self._closed or (not lives and size < self._size + LEAST):
            return
        self._next, self._size, self._lives = request, size, lives
        self._news.set()
        if self._task is None:
            self._task = self._spawn(self._work())

    def stop(self) -> None:
        """The next request is here, or none follows: what is under way is withdrawn."""
        self._next, self._size = None, 0
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def close(self) -> None:
        """The conversation is over: calls that are cancelled after it are no news."""
        self._closed = True
        self.stop()

    async def _work(self) -> None:
        since = now()
        while (request := self._next) is not None and not self._refused:
            self._news.clear()
            settled = await self._is_warm(request) and not self._lives
            pause = None if settled else max(AGAIN, SELDOM * (now() - since))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _is_warm(self, request: ChatRequest) -> bool:
        """Warm, if there is a place for it."""
        try:
            return await self._warm(request) is not None
        except (BackendRejected, BudgetExceeded):
            self._refused = True  # nor would it be taken later
        except BackendError:
            pass  # it gave way; or whoever asks next finds out what is wrong
        return False
