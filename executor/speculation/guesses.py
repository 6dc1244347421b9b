"""Guesses: calls that were started before anybody asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from agentflow.caches.cancelling import cancel_once
from agentflow.caches.tool_cache import Found
from agentflow.context import Context
from agentflow.executor.calls.billing import Advance
from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.calls.reuse import Asked
from agentflow.executor.calls.uncertain import NoRun
from agentflow.tools.policy import Policy


class Why(StrEnum):
    """Why a guess was in vain."""

    MADE_WAY = "it made way for a call"
    NOT_ASKED = "the run ended without it"
    CROWDED_OUT = "too many came after it"
    WRONG = "what it was based on did not come true"
    STALE = "what it read has been written since"
    GONE = "its result was not kept until it was asked for"
    UNUSED = "the call that asked for it did not take it"
    FAILED = "it failed"
    UNFIT = "its result cannot be kept"


@dataclass(frozen=True, slots=True)
class Wish:
    """A call that would be good to have started.

    Attributes:
        tool: Name of the tool.
        arguments: Value by parameter name.
        probability: That it is asked for.
        reason: Why it is thought so, for people.
        depth: How many guesses it rests on, itself included.
        slot: The call of the plan it is meant for, or None.
        options: Its own policy, if it has one.
    """

    tool: str
    arguments: Mapping[str, Any]
    probability: float
    reason: str
    depth: int = 1
    slot: int | None = None
    options: Policy | None = None


@dataclass(frozen=True, slots=True)
class Prospect:
    """A wish that is worth starting.

    Attributes:
        wish: What is wished for.
        call: The tool, ready to be called.
        asked: The call, as the cache knows it.
        worth: Expected gain in USD.
    """

    wish: Wish
    call: BoundCall
    asked: Asked
    worth: float

    @property
    def key(self) -> str:
        """The call's, in the cache."""
        return self.asked.ask.key


class Guess:
    """A wish that was started; a guest at the gate of its tool.

    Attributes:
        number: Counts in its run.
        wish: What it was started for.
        asked: The call, as the cache knows it.
        call: The tool, ready to be called.
        worth: Expected gain in USD; of several guests the least makes way.
        began: When it was started, on the loop's clock.
        epochs: Of what it reads, when it was started.
        seconds: What it took; None while it is under way.
        value: What it gave, once it has.
        why: Why it was in vain, if it was ended.
        made: It has made a call.
        scope: Stands for the run meanwhile.
    """

    __slots__ = (
        "asked", "began", "bill", "call", "epochs", "made", "number", "scope", "seconds", "task",
        "value", "why", "wish", "worth",
    )  # fmt: skip

    def __init__(
        self, number: int, prospect: Prospect, began: float, epochs: tuple[int, ...]
    ) -> None:
        self.number = number
        self.wish = prospect.wish
        self.asked = prospect.asked
        self.call = prospect.call
        self.worth = prospect.worth
        self.began = began
        self.epochs = epochs
        self.seconds: float | None = None
        self.value: Any = None
        self.why = Why.NOT_ASKED
        self.made = False
        self.scope = NoRun()
        self.bill: Advance | None = None
        self.task: asyncio.Task[Found]

    @property
    def key(self) -> str:
        """The call's, in the cache."""
        return self.asked.ask.key

    def leave(self) -> None:
        """Make way for a call that was asked for."""
        self.why = Why.MADE_WAY
        cancel_once(self.task)

    @property
    def usd(self) -> Decimal:
        """What it has cost; while it is under way, what it may have."""
        if self.bill is None:
            return Decimal(0)
        return self.bill.usd if self.seconds is None else self.bill.owed


class Unasked:
    """Where a guess is made: it has no place in a plan, and what it reports nobody hears.

    Args:
        run: Id of the run.
        deadline: Of the run, on the loop's clock.
    """

    __slots__ = ("_deadline", "_run")

    def __init__(self, run: str, deadline: float | None) -> None:
        self._run = run
        self._deadline = deadline

    def context(self) -> Context:
        """A context without a node."""
        return Context(self._run, deadline=self._deadline)

    def emit(self, data: Any) -> None:
        """Nobody hears it."""

    def unheard(self) -> Unasked:
        """Itself: nobody hears it as it is."""
        return self

    def spend(self, usd: Decimal) -> bool:
        """Only one attempt is paid for while nobody asks."""
        return not usd

    def hedged(self, after: float) -> None:
        """Nobody hears of it."""

    def finishing(self) -> None:
        """It has no time of its own."""
