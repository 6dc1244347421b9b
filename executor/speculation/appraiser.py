"""Which calls may be guessed at in a run, and what a guess would gain."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentflow.caches.speculation.foresight import Foresight
from agentflow.caches.speculation.policy import origins_in
from agentflow.caches.speculation.values import Recent
from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.calls.reuse import Reuse
from agentflow.executor.services import Services
from agentflow.executor.speculation.guesses import Prospect, Wish
from agentflow.tools.policy import Policy
from agentflow.tools.tool import Tool
from agentflow.tools.values import fresh, plain

if TYPE_CHECKING:
    from agentflow.executor.run import Run

PRIOR = 0.5
"""Seconds that a call is taken to last before one of its tool was measured."""


class Appraiser:
    """Judges wishes for one run.

    Args:
        foresight: What the engine has learnt, and what it may spend.
        services: What the engine's runs share.
        reuse: Names calls for the tool cache.
        run: The run.
        context: Context variables that calls see.
    """

    def __init__(
        self,
        foresight: Foresight,
        services: Services,
        reuse: Reuse,
        run: Run[Any],
        context: contextvars.Context,
    ) -> None:
        self._foresight = foresight
        self._services = services
        self._reuse = reuse
        self._run = run
        self._context = context
        self._open = not run.tools  # a workflow, whose tools show as it calls them
        self._options: Recent[str, Policy] = Recent()  # with which tools were called last
        self._origins = set(foresight.policy.origins)

    def called(self, tool: Tool[..., Any], policy: Policy, given: Mapping[str, Any]) -> None:
        """A committed call of the run has ended: what it contacted, guesses may contact too."""
        self._options[tool.name] = policy
        self._origins.update(origins_in(given))
        if self._open:
            self._foresight.remember(self._run.name, tool)

    def tool(self, name: str) -> Tool[..., Any] | None:
        """A tool of the run; of the engine or an earlier run too if it is a workflow's."""
        run = self._run
        if (known := run.tools.get(name)) is not None or not self._open:
            return known
        return run.host.tools.get(name) or self._foresight.tools.get((run.name, name))

    def appraise(self, wish: Wish) -> Prospect | None:
        """What a wish would gain; None if it may not be started, or gains nothing."""
        if wish.probability < self._foresight.bar.level or (call := self._call(wish)) is None:
            return None
        delay = 0.0 if call.policy.rate is None else 1.0 / call.policy.rate
        mean, usd = call.latencies.mean, float(call.policy.usd)
        seconds = PRIOR if mean is None else mean
        worth = self._foresight.policy.gain(wish.probability, seconds, usd, delay)
        if worth <= 0.0:
            return None
        try:
            asked = self._reuse.ask(call, (), fresh(dict(wish.arguments)), self._context)
        except Exception:  # noqa: BLE001  # what checks arguments may be the user's own
            return None
        return None if asked is None else Prospect(wish, call, asked, worth)

    def _call(self, wish: Wish) -> BoundCall | None:
        """The call of a wish, if it is one that may be guessed at."""
        tool = self.tool(wish.tool)
        if tool is None or tool.name in self._foresight.unfit:
            return None
        call = self._services.call(tool, wish.options or self._options.get(tool.name))
        origins = origins_in(plain(dict(wish.arguments)))
        if call.reused is None or not self._origins.issuperset(origins):
            return None
        return call
