"""The allocator of a run: plans against pre-drawn scenarios, anew whenever something has ended."""

from __future__ import annotations

import random
from dataclasses import replace

from agentflow.budgets.allocation.library import Library
from agentflow.budgets.allocation.options import Choice, New, tails
from agentflow.budgets.allocation.search import Search
from agentflow.budgets.allocation.sharing import shared
from agentflow.budgets.allocation.situation import (
    Deciding,
    Decision,
    Job,
    Profile,
    Situation,
    Start,
)
from agentflow.budgets.allocation.stakes import Stakes, least_cost
from agentflow.budgets.allocation.tables import NOBODY, Tables
from agentflow.budgets.allocation.value import Board
from agentflow.errors import DefinitionError

_NO_LIMIT = 1e300  # seconds; what never passes takes infinitely long, which is more
_ROWS = 8192  # scenarios of all jobs together
_LEAST, _MOST = 64, 4096  # scenarios
_GUESS = 0.15  # a probability of more doubt than this is a guess
_TRIES = 8  # failures that tell enough of a job
_FORLORN = 0.04  # a job that passes less often by itself is not tried for its own sake
_UNLIKELY = 0.25  # a job that passes less often by itself is to blame if everything is lost
_FEW = 16  # jobs; if one of more than these is hard, the others are worth doing
_FINE = 0.2  # the probability, were jobs independent, at which limits are not to blame

_State = tuple[dict[str, int], list[str]]


class MonteCarlo:
    """Begins what makes it most probable that everything is done within both limits.

    What is as probable, within a small part of what everything is worth, is decided by its cost.
    When no way to go on is worth what it is expected to cost, everything left is given up.

    Args:
        scenarios: How many futures each decision is tried on; fewer in plans of many jobs.

    Raises:
        DefinitionError: If `scenarios` is no number from 1 to 4096.
    """

    def __init__(self, scenarios: int = 256) -> None:
        if not isinstance(scenarios, int) or not 1 <= scenarios <= _MOST:
            raise DefinitionError(f"MonteCarlo: scenarios are from 1 to {_MOST}, not {scenarios!r}")
        self._scenarios = scenarios
        self._library: Library | None = None
        self._choices: dict[int, Choice] = {}
        self._kept: dict[int, tuple[_State, list[New]]] = {}
        self._stakes: Stakes | None = None

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        """Choose for every job who tries it; the same scenarios serve all decisions of a run."""
        jobs = situation.jobs
        if not jobs:
            return Decision(probability=1.0, usd=0.0)
        if self._library is None:
            rows = min(self._scenarios, max(_LEAST, _ROWS // len(jobs)))
            self._library = Library(rows, chance.getrandbits(64))
        tables = yield from self._library.tables(jobs)
        if self._stakes is None:
            least = situation.spent + (yield from least_cost(tables))
            self._stakes = Stakes(situation.usd, least)
        search = self._search(situation, tables, self._stakes)
        kept = {job.id: self._kept[job.id][1] for job in jobs if self._unchanged(job)}
        yield from search.improve(self._choices, kept)
        starts = yield from shared(search)
        found = Decision(starts, None, search.probability(), search.usd())
        if not self._stakes.lost(search.probability(), search.usd()) or _guessed(search):
            self._remember(search)
            return found
        if asked := _first_asked(search):
            return replace(found, starts=asked)
        return (yield from self._given_up(situation, search, found, self._stakes))

    def _given_up(
        self, situation: Situation, search: Search, found: Decision, stakes: Stakes
    ) -> Deciding:
        """Give up the jobs that are to blame, or go on if it is only that jobs are many, or end."""
        forlorn = yield from search.forlorn(_UNLIKELY if found.probability else _FORLORN)
        many = len(situation.jobs) > _FEW
        if found.probability and forlorn:
            return _without(found if many else replace(found, starts=()), forlorn)
        others = tuple(job for job in situation.jobs if job.id not in forlorn)
        library = self._library
        if many and others and library is not None:
            tables = [table for table in search.tables if table.job.id not in forlorn]
            apart = self._search(
                replace(situation, jobs=others), (yield from library.apart(tables)), stakes
            )
            yield from apart.improve(self._choices, {})
            if apart.probability() >= _FINE:
                self._remember(apart)
                starts = yield from shared(apart)
                return _without(replace(found, starts=starts, usd=apart.usd()), forlorn)
        hopeless = tuple(job.id for job in situation.jobs if job.widths)
        return replace(found, starts=(), usd=0.0, hopeless=hopeless)

    def _search(self, situation: Situation, tables: list[Tables], stakes: Stakes) -> Search:
        jobs = situation.jobs
        hand = stakes.plenty if situation.usd is None else max(situation.usd, 0.0)
        seconds = _NO_LIMIT if situation.seconds is None else situation.seconds
        reserved = sum(sample.reserved for job in jobs for sample in job.running)
        rows = self._scenarios if self._library is None else self._library.scenarios
        return Search(jobs, tables, Board(jobs, hand + reserved, seconds, rows), hand, stakes.price)

    def _unchanged(self, job: Job) -> bool:
        """Whether samples of a job run on as they did at the last decision."""
        known = self._kept.get(job.id)
        return known is not None and bool(job.running) and known[0] == _state(job)

    def _remember(self, search: Search) -> None:
        self._choices = {search.jobs[n].id: choice for n, choice in search.choices.items()}
        self._kept = {
            job.id: (_state(job), search.shortlists[number])
            for number, job in enumerate(search.jobs)
            if number in search.shortlists
        }


def _state(job: Job) -> _State:
    """What a short list of options holds for."""
    return dict(job.failed), list(job.models)


def _without(found: Decision, forlorn: list[int]) -> Decision:
    starts = tuple(start for start in found.starts if start.job not in forlorn)
    return replace(found, starts=starts, hopeless=tuple(forlorn))


def _left(search: Search) -> bool:
    """Whether there is something left to try with."""
    return search.board.usd > 0.0 and search.board.seconds > 0.0


def _guessed(search: Search) -> bool:
    """Whether there is something left to try with, and something of which little is known."""
    return _left(search) and any(_unknown(job) for job in search.jobs)


def _first_asked(search: Search) -> tuple[Start, ...]:
    """A sample each of models that were not asked: the failures of others tell little of them."""
    starts = []
    for job in search.jobs if _left(search) else ():
        asked = {*job.failed, *(sample.model for sample in job.running)}
        new = [name for name in job.models if name not in asked and _doubtful(job.models[name])]
        if new and job.ready and tails(job) != [NOBODY]:
            starts.append(Start(job.id, min(new, key=lambda name: job.models[name].usd)))
    return tuple(starts)


def _doubtful(profile: Profile) -> bool:
    return profile.doubt > _GUESS


def _unknown(job: Job) -> bool:
    """Whether so little is known of a job that can be tried that giving it up were a guess."""
    if not job.ready or tails(job) == [NOBODY] or sum(job.failed.values()) >= _TRIES:
        return False
    return all(_doubtful(profile) for profile in job.models.values())
