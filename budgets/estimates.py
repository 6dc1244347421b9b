"""What models are expected to do at kinds of tasks: learnt from every run, and kept on disk."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from agentflow import clock
from agentflow.budgets.allocation.situation import Profile
from agentflow.budgets.estimate_beliefs import Beliefs
from agentflow.budgets.estimate_file import EstimateFile, NewerFormat, default_path
from agentflow.budgets.estimate_fit import Beta
from agentflow.budgets.estimate_records import Outcome, Records
from agentflow.budgets.prices import Price
from agentflow.errors import DefinitionError

__all__ = ["Beta", "Estimates", "Outcome", "Passes", "default_path"]

UNSAVED = 10_000
"""Outcomes that wait to be saved; of more, the oldest are not kept on disk."""


@dataclass(frozen=True, slots=True)
class Passes:
    """What came of the newest runs of a workflow.

    Attributes:
        runs: How many there were.
        passed: Of these, how many gave a value.
        usd: What all of them cost.
    """

    runs: int = 0
    passed: int = 0
    usd: float = 0.0

    @property
    def cost_of_pass(self) -> float | None:
        """USD for each run that passed; None if none did."""
        return self.usd / self.passed if self.passed else None

    def as_dict(self) -> dict[str, Any]:
        """It as plain data."""
        return {
            "runs": self.runs,
            "passed": self.passed,
            "usd": self.usd,
            "cost_of_pass": self.cost_of_pass,
        }


class Estimates:
    """How likely models pass, how long they take and how much they write, by kind of task.

    A kind of task is the name of a tool. What is not known of a model at a kind is taken from the
    model elsewhere, from others at this kind, and from what models are like. Safe to use from
    threads; nothing but `save`, and making it, does I/O.

    Args:
        path: A file that keeps what is learnt, for later processes and for others; None keeps
            it in memory.
        half_life: Time after which an outcome counts half: seconds, or text such as ``"30d"``.
        wall: Wall time, in seconds since 1970.

    Raises:
        DefinitionError: The half-life is no duration, or 0.

    Attributes:
        problem: What was wrong with the file the last time that something was; empty if nothing.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        half_life: float | str = "30d",
        *,
        wall: Callable[[], float] = clock.wall,
    ) -> None:
        self.problem = ""
        self._half_life = _half_life(half_life)
        self._wall = wall
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._unsaved: list[Callable[[Records], None]] = []
        self._file = None if path is None else EstimateFile(Path(path).expanduser())
        self._beliefs = Beliefs(self._read(), eager=self._file is None)  # else `save` sees to it

    # Learning

    def note(self, kind: str, model: str, outcome: Outcome) -> None:
        """Learn what came of a sample.

        Raises:
            ValueError: Its seconds or tokens are negative, or not finite.
        """
        self._learn(partial(Records.note, kind=kind, model=model, outcome=outcome))

    def settled(self, kind: str, counts: Mapping[str, tuple[int, int]]) -> None:
        """Learn what came of a job, after its samples were noted.

        Args:
            kind: What it was.
            counts: Of each model that tried it, samples that passed and that did not.

        Raises:
            ValueError: A count is negative, or no count.
        """
        if not all(type(n) is int and n >= 0 for pair in counts.values() for n in pair):
            raise ValueError(f"counts are whole and not negative, not {dict(counts)}")
        self._learn(partial(Records.settle, kind=kind, counts=dict(counts)))

    def ran(self, name: str, passed: bool, usd: Decimal | float) -> None:
        """Learn what came of a run of a workflow.

        Raises:
            ValueError: The USD are negative, or not finite.
        """
        if not 0 <= usd < math.inf:
            raise ValueError(f"a run cannot have cost {usd}")
        self._learn(partial(Records.ran, name=name, passed=passed, usd=float(usd)))

    def _learn(self, change: Callable[..., None]) -> None:
        change = partial(change, at=self._now())
        with self._lock:
            change(self._beliefs.records)
            if self._file is not None:
                self._unsaved.append(change)
                del self._unsaved[:-UNSAVED]

    # Telling

    def profile(
        self,
        kind: str,
        model: str,
        price: Price | None,
        *,
        prompt_tokens: int | None = None,
        max_tokens: int | None = None,
        refunds: bool = True,
    ) -> Profile:
        """What to expect of a sample.

        Args:
            kind: What it is to do.
            model: Who makes it.
            price: What tokens cost; None if that is not known, and then it costs nothing.
            prompt_tokens: Of its input, if that is known.
            max_tokens: Of its output, at most.
            refunds: Whether a sample that is cancelled costs only what it had made by then.
        """
        with self._lock:
            return self._beliefs.profile(
                kind, model, price, prompt_tokens, max_tokens, refunds, self._now()
            )

    def success(self, kind: str, model: str) -> Beta:
        """That a sample passes, on average over the jobs of a kind."""
        with self._lock:
            return self._beliefs.success(kind, model, self._now())

    def agreement(self, kind: str) -> float:
        """How much the outcomes of samples of one job have in common, from 0 to below 1."""
        with self._lock:
            return self._beliefs.agreement(kind, self._now())

    def known(self, kind: str, model: str) -> int:
        """Jobs of a kind that a model is known to have tried, weighed by age."""
        with self._lock:
            return round(self._beliefs.records.tried(kind, model, self._now())[0])

    def outcomes(self, kind: str, model: str) -> list[Outcome]:
        """The newest samples, those that passed first."""
        with self._lock:
            known = self._beliefs.records.record(kind, model)
            return [
                Outcome(passed, row.seconds, row.prompt_tokens, row.completion_tokens)
                for passed in (True, False, None)
                for row in known.rows(passed)
            ]

    def kinds(self) -> dict[str, list[str]]:
        """The kinds of tasks that were seen, each with the models that tried it."""
        with self._lock:
            kinds = self._beliefs.records.kinds
            return {name: sorted(kind.tried_by()) for name, kind in kinds.items()}

    def passes(self, name: str) -> Passes:
        """What came of the newest runs of a workflow, a hundred at most."""
        with self._lock:
            runs = self._beliefs.records.workflows.get(name, ())
            return Passes(len(runs), sum(run.passed for run in runs), sum(run.usd for run in runs))

    def workflows(self) -> list[str]:
        """The workflows that ran."""
        with self._lock:
            return list(self._beliefs.records.workflows)

    def _now(self) -> int:
        return max(0, int(self._wall()))

    # The file

    @property
    def unsaved(self) -> int:
        """How many things were learnt that are not in the file yet; 0 if there is none."""
        return len(self._unsaved)

    def save(self) -> bool:
        """Write what was learnt to the file, beside what other processes learnt meanwhile.

        It is plain I/O: call it in a thread. Whether all is written; if not, `problem` says why,
        it is logged once, and the next call tries again.
        """
        if self._file is None:
            return True
        with self._saving:
            with self._lock:
                changes, self._unsaved = self._unsaved, []
            try:
                return not changes or self._merge(self._file, changes)
            except (OSError, ValueError, NewerFormat) as error:
                self._report(f"{self._file.path} cannot be used: {error}")
                with self._lock:
                    self._unsaved = (changes + self._unsaved)[-UNSAVED:]
                return False

    def _merge(self, file: EstimateFile, changes: list[Callable[[Records], None]]) -> bool:
        with file.locked():
            records = self._usable(file)
            _apply(changes, records)
            Beliefs(records).refit(self._now())
            file.write(records.dump())
        with self._lock:
            _apply(self._unsaved, records)
            self._beliefs.records = records
        return True

    def _read(self) -> Records:
        if self._file is None:
            return Records(self._half_life)
        try:
            try:
                return self._load(self._file)
            except ValueError:
                with self._file.locked():
                    return self._usable(self._file)
        except (OSError, NewerFormat) as error:
            self._report(f"{self._file.path} cannot be used: {error}")
            return Records(self._half_life)

    def _usable(self, file: EstimateFile) -> Records:
        """What the file holds; if that is broken it is set aside, and the file starts anew."""
        try:
            return self._load(file)
        except ValueError as error:
            aside = file.set_aside()
            self._report(f"{file.path} starts anew; what it held is now {aside.name}: {error}")
            return Records(self._half_life)

    def _load(self, file: EstimateFile) -> Records:
        data = file.read()
        if data is None:
            return Records(self._half_life)
        return Records.load(data, self._half_life, self._now())

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            import structlog

            log = structlog.get_logger("agentflow.budgets")
            log.warning("estimates", problem=problem)
        self.problem = problem


def _half_life(duration: float | str) -> float:
    try:
        half_life = clock.seconds(duration)
    except ValueError as error:
        raise DefinitionError(f"estimates: half_life: {error}") from None
    if not half_life:
        raise DefinitionError("estimates: half_life cannot be 0")
    return half_life


def _apply(changes: list[Callable[[Records], None]], records: Records) -> None:
    for change in changes:
        change(records)
