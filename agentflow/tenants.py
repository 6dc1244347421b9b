"""Tenants: whose runs together keep within a budget of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentflow.budgets.budget import Budget
from agentflow.budgets.ledger import Ledger
from agentflow.executor.audience import Subscriber
from agentflow.executor.journal.book import InDoubt
from agentflow.executor.run import Run
from agentflow.executor.services import Limits
from agentflow.starting import Starter, Target

if TYPE_CHECKING:
    from agentflow.engine import Engine


class Tenant(Starter):
    """Starts runs as its engine does, and keeps their spending apart; made by `Engine.tenant`.

    It goes on with runs of its own, and knows of no others.

    Everything else is the engine's: tools, models, limits, and the cache, whose `scope` says
    who may see whose results.

    Attributes:
        name: As given.
        ledger: What its runs together may spend, and have.
    """

    def __init__(self, engine: Engine, name: str, ledger: Ledger) -> None:
        self._engine = engine
        self.name = name
        self.ledger = ledger

    @property
    def limits(self) -> Limits:
        """Those of its engine."""
        return self._engine.limits

    def _make(self, target: Target, subscribers: tuple[Subscriber, ...]) -> Run[Any]:
        return self._engine._make(replace(target, tenant=self.name), subscribers)

    async def _go_on(
        self, run: str, given: Target, in_doubt: InDoubt, budget: Budget | None
    ) -> Run[Any]:
        return await self._engine._go_on(run, given, in_doubt, budget, self.name)
