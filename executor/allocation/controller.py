"""The controller: asks a run's allocator what to begin, and begins it.

It decides again whenever a call becomes ready or a sample ends. A decision is worked out in small
steps between which the loop goes on, and the time it takes passes on the deadline.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.budgets.allocation.cascade import InTurn
from agentflow.budgets.allocation.situation import (
    Allocator,
    Deciding,
    Decision,
    Start,
)
from agentflow.clock import monotonic
from agentflow.errors import DefinitionError
from agentflow.executor.allocation.outlook import Outlook
from agentflow.executor.allocation.sampled import Sampled
from agentflow.executor.allocation.samples import Samples
from agentflow.executor.allocation.trial import PATIENCE, Question, Trial
from agentflow.executor.allocation.view import View

if TYPE_CHECKING:
    from agentflow.executor.run import Run

IN_A_ROW = 2
"""Steps of a decision between which nothing else runs; counted, so that runs can be repeated."""

SOONEST = 0.001
"""Seconds that an allocator that wants to be asked again waits at least."""

FIRST_TRIAL = 1_000_000
"""Where the ids of jobs begin that share a node, or have none; those below are plan ids."""


class Controller:
    """Has the calls of one run tried by models, within what the run may cost.

    Args:
        run: The run.
        allocator: Decides, if the run has limits.
        outlook: What is expected of its calls.
    """

    def __init__(self, run: Run[Any], allocator: Allocator, outlook: Outlook) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._outlook = outlook
        self._view = View(run, outlook)
        self._allocator = allocator if self._view.limited else InTurn()
        self._samples = Samples(run, outlook, self._ended)
        self._chance = random.Random(run.chance.random())
        self._trials: dict[int, Trial] = {}
        self._count = 0
        self._due = False
        self._deciding: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._awaits = False  # what others hold
        self._watched: set[int] = set()  # calls of others whose end is waited for

    async def solve(self, question: Question) -> Any:
        """The first answer that passes.

        Raises:
            OutOfReach: None did, and no further sample is worth trying within the limits.
            BudgetExceeded: Not one sample could be paid.
            ModelError: None of the models, each asked once, has one; there are no limits.
            CheckFailed: What was to judge an answer raised.
        """
        self._outlook.check(question.sampling)
        trial = Trial(question, PATIENCE if self._view.limited else 1)
        trial.id = self._id(trial)
        self._trials[trial.id] = trial
        self._changed()
        try:
            return await trial.answer
        finally:
            del self._trials[trial.id]
            self._samples.dismiss(trial)
            self._samples.learn(trial)
            if self._trials:
                self._changed()
            else:
                self._rest()

    def _id(self, trial: Trial) -> int:
        """The id of a job: that of its node, so that what was worked out for it stays known."""
        if trial.node >= 0 and trial.element is None and trial.node not in self._trials:
            return trial.node
        self._count += 1
        return FIRST_TRIAL + self._count

    def _rest(self) -> None:
        """No model tries anything any more, for now."""
        self._stop_timer()
        if self._deciding is not None:
            self._deciding.cancel()
            self._deciding = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Deciding

    def _changed(self) -> None:
        """Something happened that the next decision may depend on."""
        self._due = True
        if self._deciding is None and self._trials:
            services = self._run.host.services
            self._deciding = services.spawn(self._decide(), f"allocation of {self._run.id}")

    async def _decide(self) -> None:
        try:
            await asyncio.sleep(0)  # calls that become ready together are decided together
            while self._due and self._trials:
                self._due = False
                self._carry_out(await self._think())
        except Exception as error:  # noqa: BLE001  # an allocator's fault is its calls' failure
            for trial in self._trials.values():
                trial.fail(error)
        if self._deciding is asyncio.current_task():  # else it was sent to rest
            self._deciding = None

    async def _think(self) -> Decision:
        """One decision; other work goes on meanwhile, but no other run of the engine decides."""
        turn: Any = self._run.host.services.deciding if self._view.limited else nullcontext()
        async with turn:
            if self._view.limited:
                await self._view.prepare(self._trials.values())
            situation = self._view.situation(self._trials.values())
        began = monotonic()
        steps = self._allocator.decide(situation, self._chance)
        while True:
            async with turn:
                reached = await self._reached(steps)
            if isinstance(reached, Decision):
                self._tell(reached, monotonic() - began)
                return reached
            await asyncio.sleep(reached)

    async def _reached(self, steps: Deciding) -> float | Decision:
        """What a decision comes to, or how long it wants to wait first."""
        for count in itertools.count(1):
            try:
                pause = next(steps)
            except StopIteration as end:
                return self._checked(end.value)
            if pause:
                return pause
            if not count % IN_A_ROW:
                await asyncio.sleep(0)
        raise AssertionError("a count does not end")

    def _checked(self, decision: Any) -> Decision:
        if isinstance(decision, Decision):
            return decision
        raise DefinitionError(
            f"{type(self._allocator).__name__}.decide gave {decision!r}: it is a generator that "
            "returns a Decision"
        )

    def _carry_out(self, decision: Decision) -> None:
        self._stop_timer()
        if self._run.driver.state.halted:  # what runs may end, and nothing new begins
            return self._wait_or_give_up()
        for id in decision.hopeless:
            trial = self._trials.get(id)
            if trial is not None and not (trial.running or self._money_may_come(scarce=True)):
                self._give_up(trial)
        begun = list(self._allowed(decision.starts))
        for place, (trial, model) in enumerate(begun):
            self._samples.begin(trial, model, len(begun) - place)
        if decision.again is not None:
            self._timer = self._loop.call_later(max(decision.again, SOONEST), self._changed)
        if not self._due:
            self._wait_or_give_up()

    def _allowed(self, starts: Sequence[Start]) -> Iterator[tuple[Trial, str]]:
        """The samples to begin, one by one, as far as their calls may have them."""
        rooms = {id: trial.room for id, trial in self._trials.items()}
        for start in starts:
            room = rooms.get(start.job, 0)
            if room and self._may_begin(self._trials[start.job], start.model):
                rooms[start.job] -= max(0, min(start.samples, room))
                yield from [(self._trials[start.job], start.model)] * (room - rooms[start.job])

    def _may_begin(self, trial: Trial, name: str) -> bool:
        """Whether a sample can be paid, and likely enough ends by the deadline."""
        seconds, asked = self._view.seconds, trial.question
        if name not in trial.payable or seconds is None:
            return name in trial.payable
        in_time = self._outlook.in_time(asked.tool, asked.sampling, name, seconds)
        return in_time >= self._run.ledger.least_chance

    def _wait_or_give_up(self) -> None:
        """A call for which nothing was begun waits for what is under way, if anything is."""
        idle = [trial for trial in self._trials.values() if not trial.running]
        if not idle or self._is_sampling():
            return
        others = self._view.others(self._trials.values())
        for slot in set(others) - self._watched:
            self._watched.add(slot)
            self._run.driver.watch_slot(slot, lambda *_: self._freed())
        if not (others or self._money_may_come()):
            for trial in idle:
                self._give_up(trial)

    def _money_may_come(self, *, scarce: bool = False) -> bool:
        """Whether others than this run hold what it lacks; then it is asked again when they end."""
        if not self._awaits:
            self._awaits = self._run.ledger.when_returned(
                self._returned, mine=self._samples.reserved, scarce=scarce
            )
        return self._awaits

    def _returned(self) -> None:
        """Called from any thread."""
        with suppress(RuntimeError):  # of a loop that is closed
            self._loop.call_soon_threadsafe(self._ask_again)

    def _ask_again(self) -> None:
        self._awaits = False
        self._freed()

    def _is_sampling(self) -> bool:
        """Whether a sample is under way that does not only wait for what judges it."""
        judged = {trial.asker for trial in self._trials.values()}
        return any(sampled not in judged for sampled in self._samples.under_way)

    def _ended(self, trial: Trial, sampled: Sampled) -> None:
        """A sample of a call is over."""
        if not (trial.running or trial.may_go_on):
            self._give_up(trial)
        if not sampled.unpaid:
            self._freed()
        elif any(trial.payable for trial in self._trials.values()):
            self._changed()
        elif self._deciding is None:  # there is nothing to choose from
            self._wait_or_give_up()

    def _freed(self) -> None:
        """Something has ended: what was set aside for it may pay for others."""
        left = self._run.ledger.left
        for trial in self._trials.values():
            trial.freed(left)
        self._changed()

    def _give_up(self, trial: Trial) -> None:
        trial.give_up(self._run.ledger if self._view.limited else None)

    def _tell(self, decision: Decision, seconds: float) -> None:
        if self._run.watched:
            starts = sum(start.samples for start in decision.starts)
            expected = decision.probability, decision.usd
            now = self._run.now()
            self._run.emit(events.Allocated(self._run.id, now, starts, *expected, seconds))


def controller_of(run: Run[Any]) -> Controller:
    """The controller of a run, made when it is first needed."""
    if run.allocation is None:
        services = run.host.services
        outlook = Outlook(services.estimates, run.host.model, latencies=services.latencies)
        run.allocation = Controller(run, services.allocator(), outlook)
    return run.allocation
