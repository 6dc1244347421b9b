"""The allocator of a run: plans against pre-drawn scenarios, anew whenever something has ended."""

from __future__ import annotations

import random

from agentflow.budgets.allocation.draws import Draws
from agentflow.budgets.allocation.options import Choice, New, tails
from agentflow.budgets.allocation.search import Search
from agentflow.budgets.allocation.sharing import shared
from agentflow.budgets.allocation.situation import Deciding, Decision, Job, Situation
from agentflow.budgets.allocation.stakes import Stakes, least_cost
from agentflow.budgets.allocation.tables import NOBODY, Tables
from agentflow.budgets.allocation.value import Board

_NO_LIMIT = 1e300  # seconds; what never passes takes infinitely long, which is more
_GUESS = 0.15  # a probability of more doubt than this is a guess
_TRIES = 8  # failures that tell enough of a job


_State = tuple[dict[str, int], list[str]]


class MonteCarlo:
    """Begins what makes it most probable that everything is done within both limits.

    What is as probable, within a small part of what everything is worth, is decided by its cost.
    When no way to go on is worth what it is expected to cost, everything left is given up.

    Args:
        scenarios: How many futures each decision is tried on.
    """

    def __init__(self, scenarios: int = 256) -> None:
        self._scenarios = scenarios
        self._draws: Draws | None = None
        self._tables: dict[int, Tables] = {}
        self._choices: dict[int, Choice] = {}
        self._kept: dict[int, tuple[_State, list[New]]] = {}
        self._stakes: Stakes | None = None

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        """Choose for every job who tries it; the same scenarios serve all decisions of a run."""
        if not situation.jobs:
            return Decision(probability=1.0, usd=0.0)
        if self._draws is None:
            self._draws = Draws(self._scenarios, chance.getrandbits(64))
        tables = []
        for job in situation.jobs:
            tables.append(self._table(job, self._draws))
            yield 0.0
        if self._stakes is None:
            self._stakes = Stakes(situation.usd, (yield from least_cost(tables)))
        search = self._search(situation, tables, self._stakes)
        kept = {job.id: self._kept[job.id][1] for job in situation.jobs if self._unchanged(job)}
        yield from search.improve(self._choices, kept)
        self._remember(search)
        return (yield from _decided(search, self._stakes))

    def _search(self, situation: Situation, tables: list[Tables], stakes: Stakes) -> Search:
        jobs = situation.jobs
        hand = stakes.plenty if situation.usd is None else max(situation.usd, 0.0)
        seconds = _NO_LIMIT if situation.seconds is None else situation.seconds
        reserved = sum(sample.reserved for job in jobs for sample in job.running)
        board = Board(jobs, hand + reserved, seconds, self._scenarios)
        return Search(jobs, tables, board, hand, stakes.price)

    def _table(self, job: Job, draws: Draws) -> Tables:
        known = self._tables.get(job.id)
        if known is None or not known.hold(job):
            known = self._tables[job.id] = Tables(job, draws)
        return known

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


def _decided(search: Search, stakes: Stakes) -> Deciding:
    """The choices as a decision, or that everything is given up."""
    starts = yield from shared(search)
    probability, usd = search.probability(), search.usd()
    lost = stakes.lost(probability, usd) or not (probability or (yield from search.possible()))
    if not lost or _guessed(search):
        return Decision(starts, None, probability, usd)
    hopeless = tuple(job.id for job in search.jobs if job.widths)
    return Decision(probability=probability, usd=0.0, hopeless=hopeless)


def _guessed(search: Search) -> bool:
    """Whether there is something left to try with, and something of which little is known."""
    left = search.board.usd > 0.0 and search.board.seconds > 0.0
    return left and any(_unknown(job) for job in search.jobs)


def _unknown(job: Job) -> bool:
    """Whether so little is known of a job that can be tried that giving it up were a guess."""
    if not job.ready or tails(job) == [NOBODY] or sum(job.failed.values()) >= _TRIES:
        return False
    return all(profile.doubt > _GUESS for profile in job.models.values())
