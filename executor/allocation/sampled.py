"""A model as one sample of it is asked: within its part of what is left, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentflow.budgets.ledger import Left
from agentflow.budgets.prices import MILLION, Price
from agentflow.caches.cancelling import cancel_once
from agentflow.executor.metering import MeteredModel
from agentflow.executor.models.base import ChatRequest, Delta, Model, Reply, ReplyStream
from agentflow.executor.models.usage import prompt_bound

if TYPE_CHECKING:
    from agentflow.executor.run import Run

LEAST = 16
"""Tokens of output below which a call is not worth making."""


class SampledModel(MeteredModel):
    """A model that asks for no more output than can be paid.

    Args:
        model: The model.
        run: Whose ledger pays.
        node: Plan id of the call.
        parts: Among how many samples what is left is shared.

    Attributes:
        cut_short: Its last reply was cut off because more could not be paid.
    """

    heard = False  # it may be one of several that are under way, and dropped

    def __init__(self, model: Model, run: Run[Any], node: int | None, parts: int) -> None:
        super().__init__(model, run, node)
        self._parts = parts
        self.cut_short = False

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[ReplyStream]:
        """Start a call, with fewer tokens of output if all it asks for cannot be paid.

        Raises:
            BudgetExceeded: Not even a short reply fits into what is left; nothing was sent.
            BackendError: The call failed.
        """
        fitted = within(request, self.price, self._run.ledger.left, self._parts)
        self._parts = 1  # what follows in the same sample is shared with nobody
        async with super().stream(fitted) as stream:
            yield stream

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        """Make a call and wait for the whole reply; see `stream`."""
        reply = await super().complete(request, on_delta)
        self.cut_short = reply.finish_reason == "length" and self.asked < request.max_tokens
        return reply


class Sampled:
    """One sample of a call, while it is under way.

    Attributes:
        number: Counts the samples of a run.
        name: Of the model, as the tool lists it.
        model: Who makes it.
        began: When, on the loop's clock.
        task: Makes it.
        why: Why it was cancelled, or empty.
        unpaid: It ended because it did not fit into what was left.
    """

    __slots__ = ("began", "model", "name", "number", "task", "unpaid", "why")

    def __init__(self, number: int, name: str, model: SampledModel, began: float) -> None:
        self.number = number
        self.name = name
        self.model = model
        self.began = began
        self.task: asyncio.Task[Any]
        self.why = ""
        self.unpaid = False

    def cancel(self, why: str) -> None:
        """Stop it; its task ends soon."""
        self.why = self.why or why
        cancel_once(self.task)


def within(request: ChatRequest, price: Price | None, left: Left, parts: int) -> ChatRequest:
    """A request whose upper bound fits into its part of what is left, if it can be made to fit."""
    most, prompt = request.max_tokens, prompt_bound(request)
    if left.tokens is not None:
        most = min(most, left.tokens // parts - prompt)
    if left.usd is not None and price is not None and price.output:
        rest = left.usd / parts - price.cost(prompt, 0)
        most = min(most, int(rest * MILLION // price.output))
    if most == request.max_tokens:
        return request
    return replace(request, max_tokens=max(most, min(LEAST, request.max_tokens)))
