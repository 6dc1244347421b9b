"""Has conversations' next prompts computed, as far as they are known, while their tools run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeAlias

from agentflow.budgets.ledger import Ledger
from agentflow.budgets.prices import Price
from agentflow.errors import BackendError, BudgetExceeded
from agentflow.executor.models.base import ChatRequest, Reply, Usage
from agentflow.executor.models.usage import estimate, prompt_bound

AGAIN = 0.25
"""Seconds after which a replica that was busy is looked at again."""

Spawn: TypeAlias = "Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]"


class Prewarmer:
    """Warms for one conversation; it is charged for what that takes.

    Args:
        warm: Makes a request where nothing has to wait for it; see `Pool.warm`.
        ledger: Pays; the upper bound is reserved before.
        spawn: Starts a task.
        price: Of the model; None if it is not known.
        paid: Whether it may cost money.
    """

    def __init__(
        self,
        warm: Callable[[ChatRequest], Awaitable[Reply | None]],
        ledger: Ledger,
        spawn: Spawn,
        *,
        price: Price | None = None,
        paid: bool = False,
    ) -> None:
        self._warm = warm
        self._ledger = ledger
        self._spawn = spawn
        self._price = price
        self._may = paid or not self._usd(Usage(10**9, 1))
        self._next: ChatRequest | None = None
        self._task: asyncio.Task[None] | None = None

    def know(self, request: ChatRequest) -> None:
        """The next prompt begins like that of this request, as far as is known by now."""
        self._next = request
        if self._may and (self._task is None or self._task.done()):
            self._task = self._spawn(self._work())

    def stop(self) -> None:
        """The next request is here, or none follows: what is under way is withdrawn."""
        self._next = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _work(self) -> None:
        while (request := self._next) is not None:
            if not await self._done(replace(request, max_tokens=1, tool_choice=None)):
                await asyncio.sleep(AGAIN)
            elif self._next is request:
                self._next = None

    async def _done(self, request: ChatRequest) -> bool:
        """Warm, if there is a place for it and money; whether it need not be tried again."""
        bound = Usage(prompt_bound(request), 1)
        try:
            reservation = self._ledger.reserve(self._usd(bound), sum(_tokens(bound)))
        except BudgetExceeded:
            return True
        used: Usage | None = estimate(request, 0, 1)
        try:
            reply = await self._warm(request)
            used = None if reply is None else reply.usage
        except BackendError:
            return True  # whoever asks next finds out what is wrong
        finally:
            if used is None:
                reservation.release()
            else:
                reservation.settle(self._usd(used), sum(_tokens(used)))
        return used is not None

    def _usd(self, used: Usage) -> Decimal:
        if self._price is None:
            return Decimal(0)
        return self._price.cost(*_tokens(used), used.cached_tokens or 0)


def _tokens(used: Usage) -> tuple[int, int]:
    return used.prompt_tokens, used.completion_tokens
