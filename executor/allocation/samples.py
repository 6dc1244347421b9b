"""Samples under way: begun, ended, learnt from and told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.budgets.ledger import NOTHING, Amount
from agentflow.errors import AnswerInvalid, CallTimeout, DefinitionError, ModelError
from agentflow.executor.allocation.learning import note
from agentflow.executor.allocation.outlook import Outlook
from agentflow.executor.allocation.sampled import Sampled, SampledModel
from agentflow.executor.allocation.trial import Trial, Unjudged, asker, judged
from agentflow.executor.calls.timers import timed_out

if TYPE_CHECKING:
    from agentflow.executor.run import Run


class Samples:
    """Makes the samples of one run.

    Args:
        run: The run.
        outlook: What was expected of them.
        ended: Called with the trial whose sample is over.

    Attributes:
        under_way: Those that are not over, of calls that have ended too.
    """

    def __init__(
        self, run: Run[Any], outlook: Outlook, ended: Callable[[Trial, Sampled], None]
    ) -> None:
        self._run = run
        self._outlook = outlook
        self._when_ended = ended
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self.under_way: list[Sampled] = []
        self._live: dict[Sampled, Trial] = {}  # told that they began, and not that they ended
        run.audience.last_words[self._say_what_runs] = None

    @property
    def reserved(self) -> Amount:
        """What is set aside for those under way."""
        return sum((sampled.model.reserved for sampled in self.under_way), NOTHING)

    def begin(self, trial: Trial, name: str, parts: int) -> None:
        """Begin one more sample of a call; `parts` of them share what is left."""
        model = self._run.host.model(name or None)
        node = trial.node if trial.node >= 0 else None
        try:
            metered = SampledModel(model, self._run, node, parts)
        except DefinitionError as error:
            return trial.fail(error)
        self._count += 1
        sampled = Sampled(self._count, name, metered, self._loop.time())
        sampled.task = self._run.host.services.spawn(
            self._sample(trial, sampled),
            f"sample {sampled.number} of {trial.question.tool}",
            context=trial.context.copy(),
        )
        trial.began(sampled)
        self.under_way.append(sampled)
        sampled.task.add_done_callback(lambda _: self._over(trial, sampled))

    def dismiss(self, trial: Trial, won: Sampled | None = None) -> None:
        """Cancel what is still tried for a call; the run's end waits for it."""
        why = "its call has ended" if won is None else f"sample {won.number} passed"
        for sampled in trial.running:
            if sampled is not won and not (sampled.why or sampled.task.done()):
                sampled.cancel(why)
                self._run.driver.afterwards.wait_for(sampled.task)

    async def _sample(self, trial: Trial, sampled: Sampled) -> None:
        asker.set(sampled)
        self._tell_begun(trial, sampled)
        timer = asyncio.timeout(trial.question.timeout)
        try:
            await sampled.model.connect()
            sampled.began = self._loop.time()
            async with timer:
                value = await trial.question.ask(sampled.model)
        except asyncio.CancelledError:
            self._note(trial, sampled, passed=None)
            self._tell_ended(trial, sampled, "cancelled", sampled.why)
            raise
        except Exception as error:  # noqa: BLE001  # it is the sample's, or its call's, failure
            late = timer.expired() and type(error) is TimeoutError
            self._missed(trial, sampled, self._timeout(trial) if late else error)
        else:
            self._note(trial, sampled, passed=True)
            self._tell_ended(trial, sampled, "passed", "")
            trial.passed(sampled, value)
            self.dismiss(trial, won=sampled)

    def _timeout(self, trial: Trial) -> CallTimeout:
        limit = trial.question.timeout or 0.0
        return timed_out(trial.question.tool, limit, trial.node, idle=False, cause=None)

    def _missed(self, trial: Trial, sampled: Sampled, error: Exception) -> None:
        if isinstance(error, Unjudged):
            trial.unjudged(error.error)
            self._note(trial, sampled, passed=None)
            self._tell_ended(trial, sampled, "failed", f"its judge: {error}")
            return
        if not judged(error):
            self._tell_ended(trial, sampled, "failed", str(error))
            trial.fail(error)
            return
        if trial.missed(sampled, error):
            self._note(trial, sampled, passed=False)
        elif sampled.model.cut_short:
            self._note(trial, sampled, passed=None)
        outcome = "refused" if isinstance(error, ModelError) else "failed"
        why = error.problems if isinstance(error, AnswerInvalid) else str(error)
        self._tell_ended(trial, sampled, outcome, why)

    def _over(self, trial: Trial, sampled: Sampled) -> None:
        self.under_way.remove(sampled)
        trial.running.remove(sampled)
        self._when_ended(trial, sampled)

    # What is learnt

    def _note(self, trial: Trial, sampled: Sampled, *, passed: bool | None) -> None:
        seconds = self._loop.time() - sampled.began
        note(self._run, trial.question.tool, sampled.model, passed=passed, seconds=seconds)

    def learn(self, trial: Trial) -> None:
        """What the samples of one call had in common."""
        failed = trial.failed - trial.cut
        names = {*failed, *([trial.won] if trial.won is not None else [])}
        outcomes = {
            self._run.host.model(name or None).name: (int(name == trial.won), failed[name])
            for name in names
        }
        if outcomes:
            self._outlook.estimates.settled(trial.question.tool, outcomes)
            self._outlook.heard(trial.question.tool)

    # What is told

    def _about(
        self, trial: Trial, sampled: Sampled
    ) -> tuple[str, float, int, str, int | None, int, str]:
        place = trial.node, trial.question.tool, trial.element
        return (self._run.id, self._run.now(), *place, sampled.number, sampled.model.name)

    def _tell_begun(self, trial: Trial, sampled: Sampled) -> None:
        self._live[sampled] = trial
        if self._run.watched:
            started = events.SampleStarted(*self._about(trial, sampled))
            self._run.audience.tell_of_call(started)

    def _tell_ended(self, trial: Trial, sampled: Sampled, outcome: str, why: str) -> None:
        if self._live.pop(sampled, None) is None or not self._run.watched:
            return
        saved = self._saved(trial, sampled) if outcome == "cancelled" else Decimal(0)
        event = events.SampleEnded(
            *self._about(trial, sampled),
            outcome=outcome,
            why=why,
            usd=str(sampled.model.cost),
            seconds=self._loop.time() - sampled.began,
            saved=str(saved),
        )
        self._run.audience.tell_of_call(event)

    def _saved(self, trial: Trial, sampled: Sampled) -> Decimal:
        """What a sample that is cancelled would still have cost, by the mean of its model."""
        if self._outlook.counts_tokens:
            return Decimal(0)
        question = trial.question
        profile = self._outlook.profiles(question.tool, question.sampling)[sampled.name]
        mean = min(Decimal(f"{profile.usd:.9f}"), sampled.model.bound)
        return max(Decimal(0), mean - sampled.model.cost)

    def _say_what_runs(self) -> None:
        """The run ends: what is told of it later nobody hears."""
        for sampled, trial in list(self._live.items()):
            self._tell_ended(trial, sampled, "cancelled", "the run ended")
