"""A call while models try it: its samples, what they gave, and when it is given up."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentflow.budgets.ledger import Ledger, Left
from agentflow.context import logged_node
from agentflow.errors import BackendError, BudgetExceeded, ModelError, OutOfReach
from agentflow.executor.allocation.sampled import Sampled, SampledModel
from agentflow.tools.policy import Policy
from agentflow.tools.sampling import Sampling
from agentflow.tools.tool import Tool
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.executor.run import Run


class Unjudged(Exception):
    """What was to judge an answer could not: it was not reached or paid, or was of no use itself.

    Args:
        error: Why.

    Attributes:
        error: As given.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


MOST = 64
"""Samples of one call that are begun in all."""

PATIENCE = 3
"""Times in a row that a backend may fail a call before its model is left alone, within limits."""

asker: contextvars.ContextVar[Sampled | None] = contextvars.ContextVar("asker", default=None)
"""The sample that the current code makes or judges."""


@dataclass(frozen=True, slots=True)
class Question:
    """What models are to try.

    Attributes:
        tool: Name of the tool whose call it is.
        sampling: Who may try it, and how often at once.
        prompt_tokens: Of the prompt, about.
        timeout: Seconds one sample may take, or None.
        ask: Makes one sample; raises if its answer does not pass.
    """

    tool: str
    sampling: Sampling
    prompt_tokens: int
    timeout: float | None
    ask: Callable[[SampledModel], Awaitable[Any]]


class Trial:
    """A call that models try until an answer passes.

    Args:
        question: What is tried.
        patience: How often in a row the backend of a model may fail before it is left alone.

    Attributes:
        id: Names it among the jobs of its run.
        question: As given.
        node: Plan id of the call; -1 where it belongs to none.
        element: Its index, if the call is part of a map.
        asker: The sample that this call is to judge, or None.
        context: What samples run in.
        answer: The value, in the end.
        running: Samples under way.
        begun: How many samples there were.
        failed: How many gave an answer that did not pass, or none in time, by model.
        cut: How many of these were cut off because more could not be paid.
        barred: Models that cannot be asked.
        unpaid: Models that did not fit into what was left, until some of it comes back.
        held: What a judge could not pay, until it could: no answer is bought in vain.
        won: Whose sample passed, or None.
        short: What could not be set aside for a sample since one last began, or None.
    """

    id: int

    def __init__(self, question: Question, patience: int) -> None:
        self.question = question
        self._patience = patience
        self.node, self.element = _place()
        self.asker = asker.get()
        self.context = contextvars.copy_context()
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.running: list[Sampled] = []
        self.begun = 0
        self.failed: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.barred: set[str] = set()
        self.unpaid: set[str] = set()
        self.held: BudgetExceeded | None = None
        self.won: str | None = None
        self.short: BudgetExceeded | None = None
        self._faults: Counter[str] = Counter()  # of backends, in a row
        self._unjudged = 0  # answers, in a row
        self._errors: list[tuple[str, BaseException]] = []

    @property
    def models(self) -> list[str]:
        """Who may still be asked."""
        return [name for name in self.question.sampling.models if name not in self.barred]

    @property
    def payable(self) -> list[str]:
        """Who may be asked now."""
        if self.held is not None:
            return []
        return [name for name in self.models if name not in self.unpaid]

    @property
    def concerned(self) -> list[str]:
        """Who may be asked, or has been and is at it."""
        now = {*(self.payable or self.models), *(sampled.name for sampled in self.running)}
        return [name for name in self.question.sampling.models if name in now]

    @property
    def may_go_on(self) -> bool:
        """Whether another sample is allowed."""
        return bool(self.models and self.room)

    @property
    def room(self) -> int:
        """How many samples may still begin."""
        return 0 if self.answer.done() else MOST - self.begun

    def began(self, sampled: Sampled) -> None:
        """One more sample is under way."""
        self.running.append(sampled)
        self.begun += 1
        self.short = None

    def missed(self, sampled: Sampled, error: Exception) -> bool:
        """A sample gave no answer that passed; whether that is the model's own failure."""
        name = sampled.name
        if isinstance(error, BudgetExceeded):
            self.short, sampled.unpaid = error, True
            self.unpaid.add(name)
            self.begun -= 1
            return False
        self._errors.append((sampled.model.name, error))
        if isinstance(error, BackendError):
            self._faults[name] += 1
            if not error.retryable or self._faults[name] >= self._patience:
                self.barred.add(name)
            return False
        self._faults[name] = self._unjudged = 0
        self.failed[name] += 1
        self.cut[name] += sampled.model.cut_short
        return not sampled.model.cut_short

    def unjudged(self, error: Exception) -> None:
        """An answer could not be judged, which says nothing of the model that gave it."""
        if isinstance(error, BudgetExceeded):
            self.short = self.held = error
            return
        self._errors.append(("its judge", error))
        self._unjudged += 1
        if self._unjudged >= self._patience:
            self.fail(error)

    def freed(self, left: Left) -> None:
        """Something has ended, and this is left."""
        self.unpaid.clear()
        if self.held is not None:
            rest = getattr(left, self.held.unit)
            if rest is None or rest >= self.held.asked:
                self.held = None

    def passed(self, sampled: Sampled, value: Any) -> None:
        """A sample has an answer that passed."""
        if not self.answer.done():
            self.won = sampled.name
            self.answer.set_result(value)

    def fail(self, error: BaseException) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def give_up(self, ledger: Ledger | None) -> None:
        """No further sample will be made, for what the ledger has left; None without limits."""
        if self.short is not None and not self._errors:
            return self.fail(self.short)
        if self._errors and (ledger is None or not self.failed):
            return self.fail(self._last())
        left = Left(None, None, None) if ledger is None else ledger.left
        error = OutOfReach(
            self._story(left),
            tried=self.failed,
            usd=left.usd,
            seconds=left.seconds,
            when_spent="finish" if ledger is None else ledger.budget.when_spent,
        )
        if self._errors:
            error.__cause__ = self._errors[-1][1]
        return self.fail(error)

    def _last(self) -> BaseException:
        """What was wrong with the last sample; notes tell of those before."""
        *before, (_, last) = self._errors
        for name, error in before:
            last.add_note(f"before that {name} failed: {error}")
        return last

    def _story(self, left: Left) -> str:
        tool, tried = self.question.tool, self.failed.total()
        if not tried:
            return f"{tool}: no sample can succeed within what is left ({_listed(left)})"
        who = ", ".join(f"{count} of {name}" for name, count in self.failed.items() if name)
        none = f"none of {tried} samples" if tried > 1 else "the one sample there was did not pass"
        passed = f"{none} passed" if tried > 1 else none
        why = f"no further one is worth trying within what is left ({_listed(left)})"
        if self.begun >= MOST:
            why = f"there are no more than {MOST} for one call"
        last = described(self._errors[-1][1])
        return f"{tool}: {passed}{f' ({who})' if who else ''}, and {why}; the last: {last}"


def _listed(left: Left) -> str:
    """What is left, for a message."""
    known = [
        f"${left.usd:f}" if left.usd is not None else "",
        f"{left.tokens:,} tokens" if left.tokens is not None else "",
        f"{left.seconds:.3g} s" if left.seconds is not None else "",
    ]
    return ", ".join(filter(None, known)) or "nothing"


def judged(error: BaseException) -> bool:
    """Whether an error says that a sample did not pass; any other is a fault of the program."""
    return isinstance(error, ModelError | BackendError | BudgetExceeded | TimeoutError)


def _place() -> tuple[int, int | None]:
    """Plan id of the call that the current code belongs to, and its index in a map."""
    node, bracket, element = str(logged_node.get(-1)).partition("[")
    return int(node), int(element.rstrip("]")) if bracket else None


def policy_here(run: Run[Any], tool: Tool[..., Any]) -> Policy:
    """The policy of the call that the current code belongs to, overrides included."""
    node, _ = _place()
    if node >= 0:
        call = run.driver.call_of(run.driver.state.slot(node))
        if call.tool.origin is tool.origin:
            return call.policy
    return tool.policy
