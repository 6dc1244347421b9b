from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from agentflow.budgets.allocation.batches import Batch, Group
from agentflow.budgets.allocation.draws import Draws
from agentflow.budgets.allocation.pools import Pool
from agentflow.budgets.allocation.situation import Job, Profile
from agentflow.budgets.allocation.tables import NOBODY, Tables

N = 4000
DRAWS = Draws(N, 11)
WON = [(1.0, 0.01), (2.0, 0.02), (6.0, 0.06)]
LOST = [(2.0, 0.02), (4.0, 0.04)]
MODELS = {
    "fast": Profile(0.3, WON, LOST),
    "slow": Profile(0.8, [(5.0, 0.2), (9.0, 0.3)], [(9.0, 0.3)]),
}


def made(job: Job) -> Tables:
    return Tables(job, DRAWS, {name: Pool(profile) for name, profile in job.models.items()})


def tables(p: float = 0.3, **options: object) -> Tables:
    models = {**MODELS, "fast": Profile(p, WON, LOST)}
    return made(Job(0, (), models, (1, 4, 16), **options))  # type: ignore[arg-type]  # given by name


def mean(column: Sequence[float]) -> float:
    return sum(column) / len(column)


def passed(batch: Batch) -> float:
    return mean([t < float("inf") for t in batch.first])


@pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
def test_one_sample_after_the_other_takes_what_a_geometric_number_of_them_does(p: float) -> None:
    seconds, usd = tables(p).tail(("fast", 1), N)
    failures = (1 - p) / p
    assert mean(seconds) == pytest.approx(failures * 3.0 + 3.0, rel=0.03)
    assert mean(usd) == pytest.approx(failures * 0.03 + 0.03, rel=0.03)


@pytest.mark.parametrize("width", [4, 16])
def test_batches_take_what_a_literal_simulation_says(width: int) -> None:
    chance, seconds, usd = random.Random(3), [], []
    for _ in range(N):
        took = paid = 0.0
        while True:
            batch = [(chance.choice(WON), True) if chance.random() < 0.3 else (chance.choice(LOST), False)
                     for _ in range(width)]  # fmt: skip
            wins = [t for (t, _), won in batch if won]
            end = min(wins) if wins else max(t for (t, _), _ in batch)
            took += end
            paid += sum(cost * min(1.0, end / t) for (t, cost), _ in batch)
            if wins:
                break
        seconds.append(took)
        usd.append(paid)
    found = tables().tail(("fast", width), N)
    assert mean(found[0]) == pytest.approx(mean(seconds), rel=0.04)
    assert mean(found[1]) == pytest.approx(mean(usd), rel=0.06)


def test_wider_batches_never_take_longer_where_they_pass_at_once() -> None:
    its = tables()
    for narrow, wide in ((1, 4), (4, 16)):
        few = its.batch(Group("fast", narrow), 0, N).first
        many = its.batch(Group("fast", wide), 0, N).first
        assert all(more <= fewer for fewer, more in zip(few, many, strict=True))


@pytest.mark.parametrize("width", [1, 4, 16])
def test_a_batch_passes_as_often_as_any_of_its_samples(width: int) -> None:
    batch = tables().batch(Group("fast", width), 0, N)
    assert passed(batch) == pytest.approx(1 - 0.7**width, abs=0.01)


def test_two_models_at_once_pass_if_one_of_them_does() -> None:
    its = tables()
    fast, slow = its.batch(Group("fast", 1), 0, N), its.batch(Group("slow", 1), 1, N)
    both = fast.beside(slow)
    assert passed(both) == pytest.approx(1 - 0.7 * 0.2, abs=0.01)
    assert both.first == list(map(min, fast.first, slow.first))
    won_by_fast = [n for n in range(N) if fast.first[n] < slow.first[n]]
    assert all(fast.paid[n] < both.paid[n] < fast.paid[n] + 0.3 for n in won_by_fast)


def test_the_first_scenarios_are_the_same_alone() -> None:
    its, alike = tables(), tables()
    seconds, _ = its.tail(("fast", 4), N)
    assert alike.tail(("fast", 4), 50)[0] == seconds[:50]
    assert alike.tail(("slow", 1), 50)[1] == its.tail(("slow", 1), N)[1][:50]


def test_what_may_not_be_tried_often_enough_never_passes() -> None:
    seconds, _ = tables(0.3, room=3).tail(("fast", 1), N)
    assert mean([t == float("inf") for t in seconds]) == pytest.approx(0.7**3, abs=0.01)


def test_nobody_never_passes_and_costs_nothing() -> None:
    assert tables().tail(NOBODY, 2) == ([float("inf")] * 2, [0.0] * 2)


def test_a_job_about_which_nothing_is_decided_takes_one_sample_that_passes() -> None:
    models = {"": Profile(0.5, WON, LOST)}
    seconds, usd = made(Job(0, (), models, ())).alone(())
    assert mean(seconds) == pytest.approx(3.0, rel=0.01)
    assert mean(usd) == pytest.approx(0.03, rel=0.01)
    assert made(Job(0, (), {}, ())).alone(()) == ([0.0] * N, [0.0] * N)


def test_tables_hold_until_something_else_has_failed() -> None:
    its = tables(failed={"fast": 1})
    assert its.hold(its.job)
    assert not its.hold(Job(0, (), its.job.models, (1, 4, 16), failed={"fast": 2}))
