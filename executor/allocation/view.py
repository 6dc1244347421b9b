"""A run as its allocator sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentflow.budgets.allocation.situation import Job, Profile, Sample, Situation
from agentflow.budgets.ledger import Amount
from agentflow.errors import DefinitionError
from agentflow.executor.allocation.outlook import AT_ONCE, Outlook, job_of
from agentflow.executor.allocation.trial import Question, Trial
from agentflow.executor.state.commands import DONE, RUNNING
from agentflow.planner.plan import GATHER

if TYPE_CHECKING:
    from agentflow.executor.run import Run


class View:
    """Looks at a run for whoever decides.

    Args:
        run: The run.
        outlook: What is expected of its calls.

    Attributes:
        outlook: As given.
        limited: Whether the run has limits.
    """

    def __init__(self, run: Run[Any], outlook: Outlook) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self.outlook = outlook
        left = run.ledger.left
        self.limited = any(limit is not None for limit in (run.deadline, left.usd, left.tokens))
        outlook.counts_tokens = left.usd is None and left.tokens is not None
        outlook.needs_prices = left.usd is not None
        self._seen: dict[int, float] = {}  # when other calls were first seen running

    def situation(self, trials: Collection[Trial]) -> Situation:
        """What is left to do, and with what."""
        left = self._run.ledger.left
        limit = left.tokens if self.outlook.counts_tokens else left.usd
        usd = None if limit is None else max(0.0, float(limit))
        if self.limited:
            spent = self._money(self._run.ledger.spent)
            return Situation(tuple(self._jobs(trials)), usd, self.seconds, spent)
        return Situation(tuple(self._tried(trial) for trial in trials if not trial.answer.done()))

    async def prepare(self, trials: Collection[Trial]) -> None:
        """Look up what is to be expected, without holding the loop up."""
        outlook, driver = self.outlook, self._run.driver
        state = driver.state
        open_slots = [slot for slot in state.slots if state.status[slot] < DONE]
        calls = [slot for slot in open_slots if state.nodes[slot].tool != GATHER]
        tools = dict.fromkeys(driver.call_of(slot).tool.origin for slot in calls)
        questions = [trial.question for trial in trials]
        for tool in tools:
            if tool.sampling is not None:
                with suppress(DefinitionError):  # its own call will say so
                    await outlook.look_up(tool.name, tool.sampling)
        for asked in questions:
            await outlook.look_up(asked.tool, asked.sampling, asked.prompt_tokens)

    @property
    def seconds(self) -> float | None:
        """What is left until the deadline."""
        deadline = self._run.deadline
        return None if deadline is None else max(0.0, deadline - self._loop.time())

    def others(self, trials: Collection[Trial]) -> list[int]:
        """Slots of the calls under way that no model tries here."""
        tried = {(trial.node, trial.element) for trial in trials}
        driver = self._run.driver
        return [slot for slot in driver.started() if driver.state.where(slot) not in tried]

    def _jobs(self, trials: Collection[Trial]) -> Iterator[Job]:
        """The calls that are not done, each after those it waits for."""
        by_node: dict[int, Sequence[Trial]] = {}
        for trial in trials:
            if trial.answer.done():
                continue  # it leaves in a moment
            by_node[trial.node] = [*by_node.get(trial.node, ()), trial]
        yield from map(self._tried, by_node.pop(-1, ()))
        stand_for: dict[int, tuple[int, ...]] = {}
        state = self._run.driver.state
        for id, slot in enumerate(state.slots):
            if state.status[slot] >= DONE:
                continue
            if here := by_node.pop(id, ()):
                stand_for[id] = tuple(trial.id for trial in here)
                yield from map(self._tried, here)
                continue
            stand_for[id] = (id,)
            node = state.nodes[slot]
            after = [job for dep in node.waits_for() for job in stand_for.get(dep, ())]
            job = self._expected(id, slot, tuple(after))
            if job.widths:  # it is ready once models may try it
                yield replace(job, ready=False)
            elif state.status[slot] is RUNNING:
                yield replace(job, running=self._running(id))
            else:
                yield job
        for here in by_node.values():  # of calls that have ended, and left something behind
            yield from map(self._tried, here)

    def _expected(self, id: int, slot: int, after: tuple[int, ...]) -> Job:
        """A call that no model tries yet."""
        gathers = self._run.driver.state.nodes[slot].tool == GATHER
        tool = None if gathers else self._run.driver.call_of(slot).tool.origin
        try:
            return job_of(id, tool, after, self.outlook)
        except DefinitionError:  # of a model that is not there: its own call will say so
            return job_of(id, None, after, self.outlook)

    def _running(self, id: int) -> tuple[Sample, ...]:
        """A call that runs by itself, as the one sample it is."""
        now = self._loop.time()
        return (Sample("", now - self._seen.setdefault(id, now)),)

    def _tried(self, trial: Trial) -> Job:
        question, now = trial.question, self._loop.time()
        profiles = self._profiles(question)
        widths = question.sampling.widths
        return Job(
            trial.id,
            (),
            {name: profiles[name] for name in trial.concerned},
            tuple(width for width in widths if width <= trial.room) or (trial.room,),
            self.outlook.agreement(question.tool),
            ready=bool(trial.payable and trial.room),
            running=tuple(
                Sample(one.name, now - one.began, self._money(one.model.reserved))
                for one in trial.running
            ),
            failed=dict(trial.failed),
            room=trial.room,
        )

    def _profiles(self, asked: Question) -> Mapping[str, Profile]:
        if self.limited:
            return self.outlook.profiles(asked.tool, asked.sampling, asked.prompt_tokens)
        return dict.fromkeys(asked.sampling.models, AT_ONCE)  # nobody looks at them

    def _money(self, amount: Amount) -> float:
        return float(amount.tokens if self.outlook.counts_tokens else amount.usd)
