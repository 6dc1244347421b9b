"""The simulated runs keep the rules, and the engine comes to the same."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations

import pytest
from allocation_cases import CODERS, Case, Pool, Record, cases, chain
from allocation_contest import CELLS, Row, simulated, stage
from allocation_engine import through_the_engine
from allocation_items import correlation, items
from allocation_optimum import SMALL, TWO, Exact, Optimum, Running, Small, gap
from allocation_rivals import Retry
from allocation_simulator import Episode, Result, Rules, cut

from agentflow.budgets.allocation.situation import Deciding, Decision, Situation, Start

ENOUGH = (100.0, 100.0)


def case(*samples: tuple[float, float, bool], nodes: int = 1) -> Case:
    """A plan whose first samples are these (seconds, USD, passed), in this order."""

    class Given(Case):
        def draws(self, seed: str) -> Sequence:  # type: ignore[override]  # it only needs `sample`
            return Sequence()

    class Sequence:
        def sample(self, node: int, model: str, index: int) -> Record:
            return records[index]

    records = [Record(seconds, round(usd * 1000), usd, passed) for seconds, usd, passed in samples]
    pool = {"m": Pool(records, 1000.0)}
    return Given("given", chain(nodes), tuple(pool for _ in range(nodes)))


def played(it: Case, width: int = 1, limits: tuple[float, float] = ENOUGH, **rules: bool) -> Result:
    return Episode(it, limits, Retry("m", width), Rules(**rules), "0").run()


def test_the_first_that_passes_ends_the_node_and_the_others_cost_what_they_made() -> None:
    result = played(case((4.0, 4.0, True), (8.0, 8.0, False), (2.0, 1.0, False)), 3)
    assert (result.passed, result.seconds, result.usd) == (True, 4.0, 4.0 + 4.0 + 1.0)


def test_cancelled_work_is_paid_in_full_where_nothing_is_refunded() -> None:
    result = played(case((4.0, 4.0, True), (8.0, 8.0, False)), 2, refunds=False)
    assert (result.passed, result.usd) == (True, 12.0)


def test_a_batch_that_is_waited_for_ends_with_its_last_sample_and_is_paid() -> None:
    result = played(case((4.0, 4.0, True), (8.0, 8.0, False)), 2, cancel=False)
    assert (result.passed, result.seconds, result.usd) == (True, 8.0, 12.0)


def test_a_sample_that_costs_more_than_is_left_is_cut_and_fails() -> None:
    assert cut(Record(8.0, 1000, 4.0, True), 1.0) == Record(2.0, 250, 1.0, False)
    result = played(case((8.0, 4.0, True)), limits=(1.0, 100.0))
    assert (result.passed, result.usd) == (False, 1.0)


def test_what_is_paid_when_it_begins_fails_as_a_whole_where_it_does_not_fit() -> None:
    result = played(case((1.0, 1.0, True), (1.0, 1.0, True)), 2, limits=(1.5, 100.0), launch=True)
    assert (result.passed, result.usd) == (False, 0.0)


def test_the_deadline_ends_a_run_and_what_was_made_is_paid() -> None:
    result = played(case((10.0, 10.0, True)), limits=(100.0, 4.0))
    assert (result.passed, result.seconds, result.usd) == (False, 4.0, 4.0)


@dataclass
class Reckless:
    """Begins anything anywhere."""

    chance: random.Random

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        yield 0.0
        starts = [
            Start(job.id, self.chance.choice(list(job.models)), self.chance.randint(1, 9))
            for job in situation.jobs
            if job.ready and self.chance.random() < 0.7
        ]
        return Decision(tuple(starts), again=self.chance.choice((None, 5.0)))


def test_money_is_never_overdrawn_whoever_decides() -> None:
    for known in (True, False):
        for number, it in enumerate(cases(known)):
            for cell in CELLS[::6]:
                limits = it.limits(cell)
                for rules in (Rules(), Rules(refunds=False), Rules(cancel=False)):
                    allocator = Reckless(random.Random(number))
                    result = Episode(it, limits, allocator, rules, f"{cell}").run()
                    assert result.usd <= limits[0] + 1e-9
                    assert result.seconds <= limits[1]


def test_the_samples_of_an_episode_do_not_depend_on_when_they_are_asked_for() -> None:
    it = cases(False)[0]
    once, again = it.draws("7"), it.draws("7")
    later = [once.sample(1, "4b-thinking", 3), once.sample(0, "4b-instruct", 0)]
    assert later[::-1] == [again.sample(0, "4b-instruct", 0), again.sample(1, "4b-thinking", 3)]
    assert it.draws("8").sample(1, "4b-thinking", 3) != later[0]


def test_items_of_a_kind_agree_and_half_of_the_hard_ones_are_hopeless() -> None:
    correlations, hard, hopeless = [], 0.0, 0.0
    for it in cases(False):
        for kind in it.pools[:2]:
            rates = [pool.probability for pool in kind.values()]
            correlations += [correlation(*pair, it.shared) for pair in combinations(rates, 2)]
            for every in zip(*(items(rate, it.shared) for rate in rates), strict=True):
                mean = sum(probability for _, probability in every) / len(every)
                hard += every[0][0] * (mean < 0.5)
                hopeless += every[0][0] * (mean < 0.05)
    assert sum(correlations) / len(correlations) == pytest.approx(0.5, abs=0.05)
    assert hopeless / hard == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("refunds", [True, False])
@pytest.mark.parametrize("number", [0, 3])
def test_the_engine_comes_to_the_same_as_the_simulator(number: int, refunds: bool) -> None:
    its = stage(Row(refunds=refunds), number)
    model = next(iter(CODERS))
    for cell in CELLS[::5]:
        limits, seed = its.case.limits(cell), f"{cell} 0"
        one = simulated(its, f"retry 1 x {model}", limits, seed)
        other = through_the_engine(its, f"retry 1 x {model}", limits, seed)
        assert (other.passed, other.overdrawn) == (one.passed, 0.0)
        assert other.usd == pytest.approx(one.usd, rel=0.02, abs=1e-6)
        assert other.samples == pytest.approx(one.samples, abs=2)


ONE = {"m": Exact(1, 1, 0.4)}


@pytest.mark.parametrize(
    ("units", "seconds", "samples"), [(3, 3, 3), (2, 3, 2), (3, 1, 3), (4, 1, 4), (9, 2, 8)]
)
def test_the_optimum_of_one_node_is_that_of_as_many_samples_as_can_be(
    units: int, seconds: int, samples: int
) -> None:
    best = Optimum(Small("one", chain(1), ONE, units, seconds)).probability()
    assert best == pytest.approx(1 - 0.6**samples)


class Keeps(Optimum):
    """What is cancelled has been paid."""

    def _back(self, cancelled: Running) -> int:
        return 0


def test_the_optimum_counts_on_what_comes_back_when_a_sample_is_cancelled() -> None:
    its = next(small for small in SMALL if small.name == "chain of 2, three models")
    assert Optimum(its, 3).probability() > Keeps(its, 3).probability() + 5e-4


def test_more_money_or_time_is_never_worse_for_the_optimum() -> None:
    def best(units: int, seconds: int) -> float:
        return Optimum(Small("chain", chain(2), TWO, units, seconds), widest=3).probability()

    for units in range(4, 9):
        for seconds in range(2, 5):
            assert best(units, seconds) <= min(best(units + 1, seconds), best(units, seconds + 1))


@pytest.mark.parametrize("its", SMALL[::3], ids=lambda its: its.name)
def test_nobody_is_better_than_the_optimum(its: Small) -> None:
    found = gap(its, 100, ("MCPP, cancels", "cheapest first"))
    assert max(found.shares.values()) <= found.optimum + 0.1
