"""Where a part works before its call is certain: what it says waits, and it can do no more."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from agentflow.context import Context, logged_node, run_scope
from agentflow.errors import WorkflowError
from agentflow.executor.calls.threads import from_anywhere
from agentflow.executor.calls.uncertain import NoRun

if TYPE_CHECKING:
    from agentflow.executor.calls.site import CallSite
    from agentflow.executor.run import Run


class Stage:
    """The site of a part. What it reports is kept until its call is certain, then told in order.

    Args:
        run: The run.
    """

    def __init__(self, run: Run[Any]) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._contexts: list[Context] = []
        self._kept: list[Any] = []
        self._site: CallSite | None = None
        self._real: Context | None = None
        self._over = False
        self._finishing = False

    def context(self) -> Context:
        """A context that learns which call it belongs to when that is certain."""
        deadline = self._run.deadline
        sink = partial(from_anywhere, self._loop, self.emit)
        made = Context(self._run.id, deadline=deadline, sink=sink, key=self._key)
        self._contexts.append(made)
        return made

    def join(self, site: CallSite | None) -> None:
        """The call is certain, and made here."""
        if site is not None:
            self._site, self._real = site, site.context()
            for context in self._contexts:
                context.node, context.attempt = self._real.node, self._real.attempt
            for data in self._kept:
                site.emit(data)
            if self._finishing:
                site.finishing()
        self._kept.clear()

    def close(self) -> None:
        """The part has ended; nobody hears what is left of it."""
        self._over = True

    def emit(self, data: Any) -> None:
        """Report something, when the call is certain."""
        if self._site is not None:
            self._site.emit(data)
        elif not self._over:
            self._kept.append(data)

    def unheard(self) -> Stage:
        """A part has one attempt: itself."""
        return self

    def spend(self, usd: Decimal) -> bool:
        """Only one attempt is paid for."""
        return False

    def hedged(self, after: float) -> None:
        """There is no second attempt."""

    def finishing(self) -> None:
        """The call has its value; what follows is not its own time."""
        self._finishing = True
        if self._site is not None:
            self._site.finishing()

    def _key(self) -> str:
        if self._real is None:
            raise WorkflowError(
                "the idempotency key is known when the call is: await commit() before asking for it"
            )
        return self._real.idempotency_key


class Uncommitted(NoRun):
    """Stands for the run until the call is certain, and for good in what the part began before."""

    def __init__(self) -> None:
        super().__init__()
        self._run: Any = None

    def commit(self, run: Run[Any], place: int | str) -> None:
        """The call is certain; called in the context of its tool."""
        self._run = run
        run_scope.set(run)
        logged_node.set(place)

    def said(self, text: str, by: str = "user") -> None:
        """Note what was said, if the call is certain."""
        if self._run is not None:
            self._run.said(text, by)

    def __getattr__(self, name: str) -> Any:
        """What the run has, once the call is certain.

        Raises:
            Refused: Before.
        """
        return super().__getattr__(name) if self._run is None else getattr(self._run, name)
