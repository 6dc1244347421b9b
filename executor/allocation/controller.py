"""The controller: asks a run's allocator what to begin, and begins it.

It decides again whenever a call becomes ready or a sample ends. A decision is worked out in small
steps between which the loop goes on, and the time it takes passes on the deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.budgets.allocation.cascade import InTurn
from agentflow.budgets.allocation.situation import Allocator, Decision, Job, Sample, Situation
from agentflow.budgets.ledger import Amount
from agentflow.clock import monotonic
from agentflow.executor.allocation.learning import note
from agentflow.executor.allocation.sampled import Sampled, SampledModel
from agentflow.executor.allocation.trial import MOST, Question, Trial, judged
from agentflow.executor.allocation.view import Outlook, job_of
from agentflow.executor.commands import DONE, RUNNING
from agentflow.planner.plan import GATHER

if TYPE_CHECKING:
    from agentflow.executor.run import Run

SLICE = 0.003
"""Seconds that a decision may keep the loop from others."""

FIRST_TRIAL = 1_000_000
"""Where the ids of jobs begin that models try; those below are plan ids."""


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
        left = run.ledger.left
        limits = (run.deadline, left.usd, left.tokens)
        self._limited = any(limit is not None for limit in limits)
        outlook.counts_tokens = left.usd is None and left.tokens is not None
        self._allocator = allocator if self._limited else InTurn()
        self._outlook = outlook
        self._chance = random.Random(run.chance.random())
        self._trials: dict[int, Trial] = {}
        self._begun: dict[int, float] = {}  # when other calls were first seen running
        self._count = 0
        self._samples = 0
        self._due = False
        self._deciding: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        run.audience.last_words.add(self._say_what_runs)

    async def solve(self, question: Question) -> Any:
        """The first answer that passes.

        Raises:
            OutOfReach: None did, and no further sample can succeed within the limits.
            BudgetExceeded: Not one sample could be paid.
            ModelError: None of the models, each asked once, has one; there are no limits.
            CheckFailed: What was to judge an answer raised.
        """
        trial = Trial(FIRST_TRIAL + self._count, question)
        self._count += 1
        self._trials[trial.id] = trial
        self._changed()
        try:
            return await trial.answer
        finally:
            del self._trials[trial.id]
            self._dismiss(trial)
            self._learn(trial)
            if self._trials:
                self._changed()
            else:
                self._rest()

    def _rest(self) -> None:
        """No model tries anything any more, for now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deciding is not None:
            self._deciding.cancel()
            self._deciding = None

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
        """One decision; others run meanwhile."""
        began = since = monotonic()
        steps = self._allocator.decide(self._situation(), self._chance)
        while True:
            try:
                pause = next(steps)
            except StopIteration as end:
                decision: Decision = end.value
                break
            if pause or monotonic() - since > SLICE:
                await asyncio.sleep(pause)
                since = monotonic()
        self._tell(decision, monotonic() - began)
        return decision

    def _carry_out(self, decision: Decision) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for id in decision.hopeless:
            if (trial := self._trials.get(id)) is not None and not trial.running:
                self._give_up(trial)
        starts = [start for start in decision.starts if start.job in self._trials]
        parts = sum(start.samples for start in starts)
        for start in starts:
            for _ in range(start.samples):
                self._begin(self._trials[start.job], start.model, parts)
                parts -= 1
        if decision.again is not None:
            self._timer = self._loop.call_later(max(decision.again, 0.001), self._changed)
        elif not (self._due or self._moves()):
            self._stuck()

    def _moves(self) -> bool:
        """Whether something is under way whose end may change what can be done."""
        trying = {trial.node for trial in self._trials.values()}
        if any(trial.running for trial in self._trials.values()):
            return True
        state = self._run.driver.state
        return any(
            state.status[slot] is RUNNING and node not in trying
            for node, slot in enumerate(state.slots)
        )

    def _stuck(self) -> None:
        """Nothing begins and nothing is under way: there is nothing to wait for."""
        for trial in list(self._trials.values()):
            self._give_up(trial)

    def _give_up(self, trial: Trial) -> None:
        trial.give_up(limited=self._limited, usd=self._run.ledger.left.usd, seconds=self._seconds())

    # What the allocator is told

    def _situation(self) -> Situation:
        left = self._run.ledger.left
        limit = left.tokens if self._outlook.counts_tokens else left.usd
        usd = None if limit is None else max(0.0, float(limit))
        return Situation(tuple(self._jobs()), usd, self._seconds())

    def _money(self, amount: Amount) -> float:
        return float(amount.tokens if self._outlook.counts_tokens else amount.usd)

    def _seconds(self) -> float | None:
        deadline = self._run.deadline
        return None if deadline is None else max(0.0, deadline - self._loop.time())

    def _jobs(self) -> Iterator[Job]:
        """The calls that are not done, each after those it waits for."""
        by_node: dict[int, list[Trial]] = {}
        for trial in self._trials.values():
            by_node.setdefault(trial.node, []).append(trial)
        stand_for: dict[int, tuple[int, ...]] = {}
        yield from map(self._tried, by_node.pop(-1, ()))
        state = self._run.driver.state
        for id, slot in enumerate(state.slots):
            if state.status[slot] >= DONE:
                continue
            if id in by_node:
                stand_for[id] = tuple(trial.id for trial in by_node[id])
                yield from map(self._tried, by_node[id])
                continue
            stand_for[id] = (id,)
            node = state.nodes[slot]
            tool = None if node.tool == GATHER else self._run.driver.call_of(slot).tool
            after = [job for dep in node.waits_for() for job in stand_for.get(dep, ())]
            running = self._running(id) if state.status[slot] is RUNNING else ()
            yield job_of(id, tool, tuple(after), self._outlook, running)

    def _running(self, id: int) -> tuple[Sample, ...]:
        """A call that runs by itself, as the one sample it is."""
        now = self._loop.time()
        return (Sample("", now - self._begun.setdefault(id, now)),)

    def _tried(self, trial: Trial) -> Job:
        question, now = trial.question, self._loop.time()
        profiles = self._outlook.profiles(question.tool, question.sampling)
        room = MOST - trial.begun
        return Job(
            trial.id,
            (),
            {name: profiles[name] for name in trial.models},
            tuple(width for width in question.sampling.widths if width <= room),
            self._outlook.agreement(question.tool),
            ready=True,
            running=tuple(
                Sample(one.name, now - one.began, self._money(one.model.reserved))
                for one in trial.running
            ),
            failed=trial.failed,
        )

    # Samples

    def _begin(self, trial: Trial, name: str, parts: int) -> None:
        if trial.answer.done() or trial.begun >= MOST or name not in trial.models:
            return
        self._samples += 1
        trial.begun += 1
        model = self._run.host.model(name or None)
        node = trial.node if trial.node >= 0 else None
        metered = SampledModel(model, self._run, node, parts)
        sampled = Sampled(self._samples, name, metered, self._loop.time())
        sampled.task = self._run.host.services.spawn(
            self._sample(trial, sampled),
            f"sample {sampled.number} of {trial.question.tool}",
            context=trial.context.copy(),
        )
        trial.running.append(sampled)
        sampled.task.add_done_callback(lambda _: self._ended(trial, sampled))

    async def _sample(self, trial: Trial, sampled: Sampled) -> None:
        self._tell_begun(trial, sampled)
        try:
            async with asyncio.timeout(trial.question.timeout):
                value = await trial.question.ask(sampled.model)
        except asyncio.CancelledError:
            self._note(trial, sampled, passed=None)
            self._tell_ended(trial, sampled, "cancelled", sampled.why)
            raise
        except Exception as error:  # noqa: BLE001  # it is the sample's, or its call's, failure
            self._missed(trial, sampled, error)
        else:
            self._note(trial, sampled, passed=True)
            self._tell_ended(trial, sampled, "passed", "")
            trial.passed(sampled, value)
            self._dismiss(trial, won=sampled)

    def _missed(self, trial: Trial, sampled: Sampled, error: Exception) -> None:
        if not judged(error):
            trial.fail(error)
            self._tell_ended(trial, sampled, "failed", str(error))
            return
        outcome = trial.missed(sampled, error)
        if outcome == "refused" or isinstance(error, TimeoutError):
            self._note(trial, sampled, passed=False)
        self._tell_ended(trial, sampled, outcome, str(error))

    def _ended(self, trial: Trial, sampled: Sampled) -> None:
        """A sample is over, in whatever way."""
        trial.running.remove(sampled)
        if trial.id not in self._trials:
            return
        if not (trial.running or trial.may_go_on or trial.answer.done()):
            self._give_up(trial)
        self._changed()

    def _dismiss(self, trial: Trial, won: Sampled | None = None) -> None:
        """Cancel what is still tried for a call; the run's end waits for it."""
        why = "its call has ended" if won is None else f"sample {won.number} passed"
        for sampled in trial.running:
            if sampled is not won and not sampled.task.done():
                sampled.cancel(why)
                self._run.driver.afterwards.wait_for(sampled.task)

    # What is learnt

    def _note(self, trial: Trial, sampled: Sampled, *, passed: bool | None) -> None:
        seconds = self._loop.time() - sampled.began
        note(self._run, trial.question.tool, sampled.model, passed=passed, seconds=seconds)

    def _learn(self, trial: Trial) -> None:
        """What the samples of one call had in common."""
        names = {*trial.failed, *([trial.won] if trial.won is not None else [])}
        outcomes = {
            self._run.host.model(name or None).name: (int(name == trial.won), trial.failed[name])
            for name in names
        }
        if outcomes:
            self._outlook.estimates.settled(trial.question.tool, outcomes)

    # What is told

    def _tell(self, decision: Decision, seconds: float) -> None:
        if self._run.watched:
            starts = sum(start.samples for start in decision.starts)
            expected = decision.probability, decision.usd
            now = self._run.now()
            self._run.emit(events.Allocated(self._run.id, now, starts, *expected, seconds))

    def _about(self, trial: Trial, sampled: Sampled) -> tuple[Any, ...]:
        place = trial.node, trial.question.tool, trial.element
        return (self._run.id, self._run.now(), *place, sampled.number, sampled.model.name)

    def _tell_begun(self, trial: Trial, sampled: Sampled) -> None:
        if self._run.watched:
            self._run.emit(events.SampleStarted(*self._about(trial, sampled)))

    def _tell_ended(self, trial: Trial, sampled: Sampled, outcome: str, why: str) -> None:
        if not self._run.watched:
            return
        usd, seconds = sampled.model.spent, self._loop.time() - sampled.began
        saved = self._saved(trial, sampled) if outcome == "cancelled" else Decimal(0)
        about = self._about(trial, sampled)
        self._run.emit(events.SampleEnded(*about, outcome, why, str(usd), seconds, str(saved)))

    def _saved(self, trial: Trial, sampled: Sampled) -> Decimal:
        """What a sample that is cancelled would still have cost, by the mean of its model."""
        if self._outlook.counts_tokens:
            return Decimal(0)
        question = trial.question
        profile = self._outlook.profiles(question.tool, question.sampling)[sampled.name]
        mean = Decimal(f"{profile.usd:.9f}")
        return max(Decimal(0), mean - sampled.model.spent)

    def _say_what_runs(self) -> None:
        """The run ends: what is told of it later nobody hears."""
        for trial in self._trials.values():
            for sampled in trial.running:
                self._tell_ended(trial, sampled, "cancelled", "the run ended")


def controller_of(run: Run[Any]) -> Controller:
    """The controller of a run, made when it is first needed."""
    if run.allocation is None:
        services = run.host.services
        outlook = Outlook(services.estimates, run.host.model, latencies=services.latencies)
        run.allocation = Controller(run, services.allocator(), outlook)
    return run.allocation
