"""What is told of limits before anything is spent, of allocators whose chances are known."""

from __future__ import annotations

import random
from math import comb, inf

import pytest

from agentflow.budgets.allocation.forecast import Forecast, forecast
from agentflow.budgets.allocation.montecarlo import MonteCarlo
from agentflow.budgets.allocation.situation import Deciding, Decision, Job, Profile, Situation


class Retrying:
    """Tries a job, of a probability of one half and a price of a dollar, while money is left."""

    seen: list[Situation]

    def __init__(self) -> None:
        self.seen = []

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        self.seen.append(situation)
        yield 0.0
        slow = situation.seconds is not None and situation.seconds < 1
        tries = inf if situation.usd is None else situation.usd // 1
        return Decision(probability=0.0 if slow else 1 - 0.5**tries, usd=2 - 2 * 0.5**tries)


def job(number: int, *after: int, ready: bool = False) -> Job:
    return Job(number, after, {"one": Profile(0.5, [(1, 1)], [(1, 1)])}, ready=ready)


def told(usd: float | None = None, seconds: float | None = None, wanted: float = 0.9) -> Forecast:
    return forecast([job(0)], usd=usd, seconds=seconds, allocator=Retrying, wanted=wanted)


def test_it_tells_the_chances_and_the_expected_price_of_a_budget() -> None:
    found = told(usd=2.5)

    assert (found.probability, found.usd) == (0.75, 1.5)


@pytest.mark.parametrize(
    ("wanted", "usd"), [(0.5, 1.0), (0.75, 2.0), (0.9, 4.0), (0.999, 10.0), (0.9999999, 24.0)]
)
def test_the_cheapest_budget_is_the_least_that_suffices(wanted: float, usd: float) -> None:
    cheapest = told(wanted=wanted).cheapest

    assert cheapest is not None and usd <= cheapest <= 1.02 * usd


def test_the_cheapest_budget_does_not_depend_on_the_one_that_is_asked_about() -> None:
    assert told().cheapest == told(usd=0.01).cheapest == told(usd=100).cheapest


def test_no_budget_helps_where_there_is_too_little_time() -> None:
    assert told(usd=5, seconds=0.5) == Forecast(0.0, 2 - 2 * 0.5**5, None)
    assert told(usd=5, seconds=2).cheapest is not None


def test_nothing_is_needed_for_what_costs_nothing() -> None:
    class Free:
        def decide(self, situation: Situation, chance: random.Random) -> Deciding:
            yield 0.0
            return Decision(probability=1.0, usd=0.0)

    free = Job(0, (), {"one": Profile(0.5, [(1, 0)], [(1, 0)])})
    assert forecast([free], usd=1, allocator=Free) == Forecast(1.0, 0.0, 0.0)


def test_an_allocator_that_estimates_nothing_promises_nothing() -> None:
    class Silent:
        def decide(self, situation: Situation, chance: random.Random) -> Deciding:
            yield 0.0
            return Decision()

    assert forecast([job(0)], usd=1, allocator=Silent) == Forecast(0.0, 0.0, None)


def test_jobs_that_wait_for_nothing_are_ready_and_the_others_are_not() -> None:
    one = Retrying()

    forecast([job(0), job(1, 0, ready=True), job(2)], usd=3, allocator=lambda: one)

    assert {tuple(job.ready for job in seen.jobs) for seen in one.seen} == {(True, False, True)}


def test_every_budget_is_looked_at_with_the_same_chance() -> None:
    drawn = []

    class Drawing(Retrying):
        def decide(self, situation: Situation, chance: random.Random) -> Deciding:
            drawn.append(chance.random())
            return super().decide(situation, chance)

    forecast([job(0)], usd=3, allocator=Drawing, seed=7)

    assert len(drawn) > 5 and set(drawn) == {random.Random(7).random()}


@pytest.mark.parametrize("chain", [1, 3])
def test_the_default_allocator_tells_what_follows_from_the_chances(chain: int) -> None:
    """A dollar a try, passed in one of two: as many tries as there is money for."""
    jobs = [job(n, *([n - 1] if n else [])) for n in range(chain)]

    for usd in (1, 2, 4, 8):
        tries = [n for n in range(usd + 1) if n >= chain]  # of which the last passes at last
        exact = sum(comb(n - 1, chain - 1) * 0.5**n for n in tries)
        told = forecast(jobs, usd=usd, allocator=MonteCarlo)
        assert told.probability == pytest.approx(exact, abs=0.07)

    cheapest = forecast(jobs, allocator=MonteCarlo).cheapest
    assert cheapest is not None and {1: 3, 3: 7}[chain] <= cheapest <= {1: 5, 3: 10}[chain]
