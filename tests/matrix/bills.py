"""What servers say they have served, beside what is in the books."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal

from agentflow import Engine, events
from agentflow.budgets.ledger import Amount
from agentflow.testing.chat import Exchange
from tests.chaos.endpoint import digested

Bill = tuple[str, int, int]
"""A model, tokens of its prompt, and tokens that it made."""


class Bills:
    """Collects what an engine pays for replies.

    Args:
        engine: Tells of it.
    """

    def __init__(self, engine: Engine) -> None:
        self._known: Counter[Bill] = Counter()
        self._settled = 0
        self._usd = Decimal(0)
        engine.subscribe(self._take)

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.ModelReplied):
            self._settled += 1
            self._usd += Decimal(event.usd or 0)
            if not event.estimated:
                self._known[event.model, event.prompt_tokens, event.completion_tokens] += 1

    def compared(
        self, exchanges: Iterable[Exchange], spent: Amount, paid: Decimal | None
    ) -> Iterator[str]:
        """Where the books are not what was served.

        Of a reply that was left before its end the tokens are estimated.

        Args:
            exchanges: With all servers.
            spent: According to the books.
            paid: USD that tools have cost, or None if not all of it is in these books.
        """
        served = Counter(filter(None, map(_bill, exchanges)))
        if self._known - served:
            yield f"{self._known - served} was paid, and not served"
        if served.total() > self._settled:
            yield f"{served.total()} replies were served, and {self._settled} are in the books"
        if paid is not None and self._usd + paid != spent.usd:
            yield f"{self._usd} + {paid} USD were paid, and {spent.usd} are in the books"


def asked_again(before: Iterable[Exchange], after: Iterable[Exchange], until: float) -> list[str]:
    """Questions of tasks that had been answered by some time, and were asked once more."""
    known = {digested(repr(e.body["messages"])) for e in before if _is_known(e, until)}
    again = [e.call for e in after if digested(repr(e.body["messages"])) in known]
    return [f"asked again: {call.said_by('user')[:80]}" for call in again]


def _is_known(exchange: Exchange, until: float) -> bool:
    of_task = "Do task" in exchange.call.said_by("user")
    in_time = exchange.ended is not None and exchange.ended < until
    return of_task and in_time and _bill(exchange) is not None


def _bill(exchange: Exchange) -> Bill | None:
    """What a server says, if it came so far."""
    for line in b"".join(data for _, data in exchange.sent).splitlines():
        if line.startswith(b"data: {"):
            with suppress(ValueError):
                if usage := json.loads(line[6:]).get("usage"):
                    model = str(exchange.body.get("model"))
                    return model, usage["prompt_tokens"], usage["completion_tokens"]
    return None
