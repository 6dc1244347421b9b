"""What is expected of models: before anything is known, after outcomes, and after some time."""

from __future__ import annotations

import random
from decimal import Decimal
from statistics import mean, median

import pytest

from agentflow.budgets.allocation.situation import Profile
from agentflow.budgets.estimate_records import JOBS, KINDS, MODELS, PATTERNS
from agentflow.budgets.estimates import Estimates, Outcome, Passes
from agentflow.budgets.prices import Price
from agentflow.errors import DefinitionError

PRICE = Price(Decimal("0.40"), Decimal("1.60"))
DAY = 86_400.0


class Wall:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1.7e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def estimates(wall: Wall) -> Estimates:
    return Estimates(wall=wall)


def tell(estimates: Estimates, passed: int, failed: int, model: str = "m", kind: str = "k") -> None:
    """Jobs that one sample each was made of."""
    for number in range(passed + failed):
        ok = number < passed
        estimates.note(kind, model, Outcome(ok, 2.0, 400, 100))
        estimates.settled(kind, {model: (int(ok), int(not ok))})


def seconds(profile: Profile) -> list[float]:
    return [seconds for seconds, _ in profile.won]


# Success


def test_a_cold_start_is_sane(estimates: Estimates) -> None:
    profile = estimates.profile("k", "m", PRICE, prompt_tokens=1000, max_tokens=1000)

    assert profile.probability == pytest.approx(0.7)
    assert 0.2 < profile.doubt < 0.35
    assert profile.start == pytest.approx(0.0004)
    assert 2 < median(seconds(profile)) < 10
    assert all(profile.start < usd <= profile.start + 0.0016 for _, usd in profile.won)
    assert 64 <= len(profile.won) == len(profile.lost) <= 256
    assert (estimates.agreement("k"), estimates.known("k", "m")) == (0.5, 0)


def test_single_samples_give_the_beta_posterior(estimates: Estimates) -> None:
    tell(estimates, passed=6, failed=14)

    success = estimates.success("k", "m")

    assert success.passed == pytest.approx(1.4 + 6, rel=1e-6)
    assert success.failed == pytest.approx(0.6 + 14, rel=1e-6)
    assert success.mean == pytest.approx(7.4 / 22)
    assert success.deviation == pytest.approx((7.4 * 14.6 / 22**2 / 23) ** 0.5)
    assert estimates.known("k", "m") == 20


def test_samples_of_jobs_that_are_not_settled_count(estimates: Estimates) -> None:
    for passed in (True, False, False):
        estimates.note("k", "m", Outcome(passed, 1.0))

    assert estimates.success("k", "m").mean == pytest.approx((1.4 + 1) / 5)


def test_samples_count_once_when_their_job_is_settled(estimates: Estimates) -> None:
    estimates.note("k", "m", Outcome(False, 1.0))
    before = estimates.success("k", "m")
    estimates.settled("k", {"m": (0, 1)})

    assert estimates.success("k", "m") == pytest.approx(before)


def test_cancelled_samples_neither_passed_nor_failed(estimates: Estimates) -> None:
    estimates.note("k", "m", Outcome(None, 1.0))

    assert estimates.success("k", "m").mean == pytest.approx(0.7)


def test_what_a_model_did_elsewhere_and_others_did_here_is_assumed(estimates: Estimates) -> None:
    tell(estimates, passed=0, failed=50, kind="elsewhere")
    tell(estimates, passed=0, failed=50, kind="here", model="other")

    elsewhere, here = estimates.success("new", "m").mean, estimates.success("here", "new").mean
    both = estimates.success("here", "m").mean

    assert both < elsewhere == pytest.approx(here)
    assert 0.2 < elsewhere < 0.3
    assert estimates.success("new", "new").mean == pytest.approx(0.7)


def test_what_went_well_elsewhere_is_assumed_to_go_well_here(estimates: Estimates) -> None:
    tell(estimates, passed=50, failed=0, kind="elsewhere")

    assert estimates.success("new", "m").mean > 0.85


def test_what_is_told_follows_every_outcome(estimates: Estimates) -> None:
    for passed in range(1, 40):
        tell(estimates, passed=1, failed=0)

        assert estimates.success("k", "m").mean == pytest.approx((1.4 + passed) / (2 + passed))


def test_what_is_assumed_gives_way_to_what_is_seen(estimates: Estimates) -> None:
    tell(estimates, passed=0, failed=50, kind="elsewhere")
    tell(estimates, passed=50, failed=0, kind="here")

    assert estimates.success("here", "m").mean > 0.95


# Sizes


def test_the_pools_recover_what_samples_were_like(estimates: Estimates) -> None:
    chance = random.Random(1)
    for number in range(128):
        passed = number % 2 == 0
        took = chance.lognormvariate(1.0 if passed else 2.0, 0.2)
        estimates.note("k", "m", Outcome(passed, took, 400, 100 if passed else 300))

    profile = estimates.profile("k", "m", PRICE, prompt_tokens=400)

    assert median(seconds(profile)) == pytest.approx(2.72, rel=0.1)
    assert median(took for took, _ in profile.lost) == pytest.approx(7.39, rel=0.1)
    assert median(usd for _, usd in profile.won) == pytest.approx(0.00016 + 0.00016)
    assert median(usd for _, usd in profile.lost) == pytest.approx(0.00016 + 0.00048)


def test_time_and_cost_stay_together(estimates: Estimates) -> None:
    for tokens in range(1, 60):
        estimates.note("k", "m", Outcome(True, tokens / 10, 0, tokens))

    pairs = estimates.profile("k", "m", PRICE, prompt_tokens=0).won
    seen = [(took, usd) for took, usd in pairs if took * 10 == pytest.approx(round(took * 10))]

    assert len(seen) > 100
    assert all(usd == pytest.approx(took * 10 * 1.6e-6) for took, usd in seen)


def test_output_is_cut_to_max_tokens(estimates: Estimates) -> None:
    tell(estimates, passed=30, failed=30)

    cut = estimates.profile("k", "m", PRICE, prompt_tokens=400, max_tokens=35)
    whole = estimates.profile("k", "m", PRICE, prompt_tokens=400)

    assert max(usd for _, usd in [*cut.won, *cut.lost]) <= cut.start + 35 * 1.6e-6 + 1e-12
    assert median(seconds(cut)) == pytest.approx(median(seconds(whole)) / 2)


def test_a_known_model_is_as_fast_at_a_new_kind(estimates: Estimates) -> None:
    for _ in range(40):
        estimates.note("k", "slow", Outcome(True, 130.0, 400, 100))  # a token a second

    fast, slow = (estimates.profile("new", name, PRICE) for name in ("fast", "slow"))

    assert mean(seconds(slow)) > 20 * mean(seconds(fast))


def test_a_new_model_writes_as_much_as_others_at_a_kind(estimates: Estimates) -> None:
    for _ in range(40):
        estimates.note("k", "m", Outcome(True, 100.0, 900, 6000))

    profile = estimates.profile("k", "new", PRICE, max_tokens=20_000)

    assert profile.start == pytest.approx(900 * 0.4e-6)
    assert median(usd for _, usd in profile.won) == pytest.approx(6000 * 1.6e-6, rel=0.2)


def test_what_was_cancelled_early_does_not_make_answers_look_short(estimates: Estimates) -> None:
    for number in range(40):
        outcome = Outcome(True, 20.0, 900, 1200) if number % 4 == 0 else Outcome(None, 1.0, 900, 5)
        estimates.note("k", "m", outcome)

    profile = estimates.profile("k", "new", PRICE, prompt_tokens=0)

    assert median(usd for _, usd in profile.won) == pytest.approx(1200 * 1.6e-6, rel=0.3)


def test_no_slow_samples_are_made_up_where_enough_was_seen(estimates: Estimates) -> None:
    tell(estimates, passed=60, failed=0)

    assert sorted(seconds(estimates.profile("k", "m", PRICE)))[-2:] == [2.0, 2.0]


def test_the_winner_of_several_does_not_make_a_model_look_fast(estimates: Estimates) -> None:
    chance = random.Random(2)
    whole: list[float] = []
    for _ in range(64):
        took = sorted(chance.lognormvariate(1.0, 0.6) for _ in range(4))
        whole += took
        estimates.note("k", "m", Outcome(True, took[0], 400, 100))
        for _ in took[1:]:
            estimates.note("k", "m", Outcome(None, took[0], 400, 50))

    found = seconds(estimates.profile("k", "m", PRICE))
    alone = [one.seconds for one in estimates.outcomes("k", "m") if one.passed]

    assert median(alone) < 0.7 * median(whole)
    assert median(found) == pytest.approx(median(whole), rel=0.25)


def test_samples_that_were_only_ever_cancelled_take_at_least_as_long(
    estimates: Estimates,
) -> None:
    for age in (50.0, 60.0, 300.0):
        for _ in range(20):
            estimates.note("k", "m", Outcome(None, age))

    assert min(sorted(seconds(estimates.profile("k", "m", PRICE)))[16:]) == 300.0


def test_a_model_without_a_price_costs_nothing(estimates: Estimates) -> None:
    profile = estimates.profile("k", "m", None)

    assert {usd for _, usd in profile.won} == {0.0} == {profile.start}


def test_refunds_are_told_as_given(estimates: Estimates) -> None:
    assert not estimates.profile("k", "m", PRICE, refunds=False).refunds


def test_impossible_sizes_are_refused(estimates: Estimates) -> None:
    for outcome in (Outcome(True, -1.0), Outcome(True, float("nan")), Outcome(True, 1.0, -1)):
        with pytest.raises((TypeError, ValueError)):
            estimates.note("k", "m", outcome)


# Time


def test_outcomes_count_half_after_a_half_life(estimates: Estimates, wall: Wall) -> None:
    tell(estimates, passed=0, failed=40)
    wall.now += 30 * DAY

    assert estimates.known("k", "m") == 20

    tell(estimates, passed=20, failed=0)

    assert estimates.success("k", "m").mean == pytest.approx((1.4 + 20) / 42, rel=1e-3)


def test_what_is_told_is_of_today_also_when_nothing_was_learnt_since(wall: Wall) -> None:
    estimates = Estimates(half_life="1d", wall=wall)
    tell(estimates, passed=0, failed=40)
    wall.now += 20 * DAY

    assert estimates.success("k", "m").mean == pytest.approx(0.7, abs=0.01)


def test_drift_of_speed_is_followed(wall: Wall) -> None:
    estimates = Estimates(half_life="1d", wall=wall)
    for took in (10.0, 1.0):
        wall.now += 8 * DAY
        for _ in range(30):
            estimates.note("k", "m", Outcome(True, took, 400, 100))

    assert median(seconds(estimates.profile("k", "m", PRICE))) == pytest.approx(1.0, rel=0.3)


def test_a_clock_that_goes_back_forgets_nothing(estimates: Estimates, wall: Wall) -> None:
    tell(estimates, passed=0, failed=10)
    wall.now -= 30 * DAY
    tell(estimates, passed=20, failed=0)

    assert estimates.known("k", "m") == 20


@pytest.mark.parametrize("half_life", ["soon", 0, -1.0, "0s"])
def test_a_half_life_that_is_none_is_refused(half_life: float | str) -> None:
    with pytest.raises(DefinitionError, match="half_life"):
        Estimates(half_life=half_life)


# Workflows


def test_cost_of_pass_counts_the_runs_that_failed(estimates: Estimates) -> None:
    estimates.ran("report", True, Decimal("0.02"))
    estimates.ran("report", False, 0.01)
    estimates.ran("report", True, 0.03)

    passes = estimates.passes("report")

    assert (passes.runs, passes.passed) == (3, 2)
    assert passes.usd == pytest.approx(0.06)
    assert passes.cost_of_pass == pytest.approx(0.03)
    assert estimates.workflows() == ["report"]


def test_without_a_pass_there_is_no_cost_of_pass(estimates: Estimates) -> None:
    estimates.ran("report", False, 0.01)

    assert estimates.passes("report").cost_of_pass is None
    assert estimates.passes("unknown") == Passes(0, 0, 0.0)


# Bounds


def test_memory_is_bounded(estimates: Estimates) -> None:
    chance = random.Random(3)
    for number in range(3 * KINDS):
        estimates.note(f"kind {number}", "m", Outcome(True, 1.0))
        estimates.ran(f"flow {number}", True, 0.0)
    for number in range(1_500):
        counts = {f"m{chance.randrange(40)}": (1, chance.randrange(64)) for _ in range(2)}
        for model in counts:
            estimates.note("k", model, Outcome(True, 1.0 + number, 5, 5))
        estimates.settled("k", counts)

    records = estimates._beliefs.records
    kind = records.kinds["k"]
    assert len(records.kinds) == len(records.workflows) == KINDS
    assert f"kind {3 * KINDS - 1}" in records.kinds
    assert (len(kind.models), len(kind.jobs)) == (MODELS, PATTERNS)
    assert max(len(record.won) for record in kind.models.values()) <= 64


def test_hard_jobs_of_which_no_two_are_alike_are_not_forgotten(estimates: Estimates) -> None:
    chance = random.Random(4)
    for number in range(400):
        tries = {model: (0, chance.randrange(1, 64)) for model in "abc"}
        estimates.settled("k", {"a": (1, 0)} if number % 2 else tries)

    assert estimates.known("k", "a") == 400
    assert estimates.known("k", "b") == 200
    assert estimates.success("k", "a").mean == pytest.approx(0.5, abs=0.1)


def test_single_samples_are_forgotten_too(estimates: Estimates) -> None:
    for passed in (False, True):
        for _ in range(2 * round(JOBS)):
            estimates.note("k", "m", Outcome(passed, 1.0))

    assert estimates.success("k", "m").mean > 0.8


def test_what_was_seen_last_outweighs_any_amount_of_the_past(estimates: Estimates) -> None:
    tell(estimates, passed=0, failed=3000)
    assert estimates.known("k", "m") == JOBS

    tell(estimates, passed=round(JOBS), failed=0)

    assert estimates.success("k", "m").mean > 0.6
