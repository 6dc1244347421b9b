"""Model calls of a run: reserved before, settled after, and told to the subscribers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from agentflow import events
from agentflow.budgets.prices import Prices
from agentflow.clock import now
from agentflow.executor.models.base import ChatRequest, Delta, Model, Reply, ReplyStream
from agentflow.executor.models.usage import prompt_bound
from agentflow.executor.run import Run


class MeteredModel:
    """A model as one run uses it.

    Args:
        model: The model.
        run: Whose ledger pays and whose subscribers are told.
        node: Plan id of the call that uses it, or None.
    """

    def __init__(self, model: Model, run: Run[Any], node: int | None = None) -> None:
        self._model = model
        self._run = run
        self._node = node

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._model.name

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[ReplyStream]:
        """Start a call whose price fits into what is left.

        Raises:
            BudgetExceeded: Its upper bound does not fit; nothing was sent.
            BackendError: The call failed.
        """
        prompt = prompt_bound(request)
        reservation = self._run.ledger.reserve(
            self._bound(prompt, request.max_tokens), prompt + request.max_tokens
        )
        began, stream = now(), None
        try:
            async with self._model.stream(request) as stream:
                yield stream
        finally:
            if stream is None:
                reservation.release()
            else:
                used = stream.usage
                usd = self._cost(used)
                reservation.settle(usd, used.prompt_tokens + used.completion_tokens)
                self._tell(used, usd, began)

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        """Make a call and wait for the whole reply; `on_delta` sees each piece as it comes.

        Raises:
            BudgetExceeded: Its upper bound does not fit; nothing was sent.
            BackendError: The call failed.
        """
        async with self.stream(request) as stream:
            async for delta in stream:
                if on_delta is not None:
                    on_delta(delta)
            return stream.reply

    def _bound(self, prompt: int, completion: int) -> Decimal:
        """The most a call can cost; a model without a price may not meet a budget in USD."""
        prices, url = self._prices()
        if self._run.ledger.left.usd is not None:
            return prices.require(self.name, url=url).cost(prompt, completion)
        price = prices.price(self.name, url=url)
        return Decimal(0) if price is None else price.cost(prompt, completion)

    def _cost(self, used: Any) -> Decimal:
        prices, url = self._prices()
        return prices.cost(self.name, used, url=url) or Decimal(0)

    def _prices(self) -> tuple[Prices, str]:
        return getattr(self._model, "prices", None) or Prices(), getattr(self._model, "url", "")

    def _tell(self, used: Any, usd: Decimal, began: float) -> None:
        if self._run.watched:
            at = now()
            self._run.emit(
                events.ModelReplied(
                    self._run.id,
                    at,
                    self.name,
                    used.prompt_tokens,
                    used.completion_tokens,
                    used.cached_tokens,
                    str(usd),
                    at - began,
                    used.estimated,
                    self._node,
                )
            )
