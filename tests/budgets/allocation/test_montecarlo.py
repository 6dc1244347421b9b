from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.budgets.allocation.montecarlo import MonteCarlo
from agentflow.budgets.allocation.situation import Decision, Job, Profile, Sample, Situation, Start
from agentflow.errors import DefinitionError

Models = Mapping[str, Profile]


def model(p: float, seconds: float, usd: float, **options: float) -> Profile:
    return Profile(p, [(seconds, usd)], [(seconds, usd)], **options)  # type: ignore[arg-type]  # given by name


CHEAP = model(0.5, 1.0, 0.01)
DEAR = model(0.95, 1.0, 0.10)
QUICK = model(0.9, 1.0, 0.05)
SLOW = model(0.9, 10.0, 0.01)


def job(number: int, models: Models, *after: int, **options: object) -> Job:
    return Job(number, after, models, ready=not after, **{"widths": (1, 4), **options})  # type: ignore[arg-type]  # given by name


def decided(situation: Situation, allocator: MonteCarlo | None = None, seed: int = 0) -> Decision:
    deciding = (allocator or MonteCarlo()).decide(situation, random.Random(seed))
    while True:
        try:
            assert next(deciding) == 0.0
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # of the generator


def probability(situation: Situation) -> float:
    found = decided(situation).probability
    assert found is not None
    return found


def test_money_decides_where_there_is_time() -> None:
    models = {"quick": QUICK, "slow": SLOW}
    assert decided(Situation((job(0, models),), 1.0, 100.0)).starts == (Start(0, "slow"),)


def test_time_decides_where_there_is_little() -> None:
    models = {"quick": QUICK, "slow": SLOW}
    starts = decided(Situation((job(0, models),), 1.0, 5.0)).starts
    assert {start.model for start in starts} == {"quick"}


def test_a_deadline_that_allows_one_try_is_met_with_many_samples_at_once() -> None:
    decision = decided(Situation((job(0, {"cheap": CHEAP}),), 1.0, 1.5))
    assert decision.starts == (Start(0, "cheap", 4),)
    assert decision.probability == pytest.approx(1 - 0.5**4, abs=0.01)


def test_two_models_are_tried_at_once_where_that_is_likelier_to_pass() -> None:
    models = {"one": model(0.6, 1.0, 0.1), "other": model(0.6, 1.0, 0.1)}
    decision = decided(Situation((job(0, models, widths=(1,)),), 0.25, 1.5))
    assert set(decision.starts) == {Start(0, "one"), Start(0, "other")}
    assert decision.probability == pytest.approx(1 - 0.4**2, abs=0.03)


def test_money_is_kept_for_what_comes_later() -> None:
    dear_only = {"dear": DEAR}
    jobs = (job(0, {"cheap": CHEAP, "dear": DEAR}), job(1, dear_only, 0))
    assert decided(Situation(jobs, 0.15, 100.0)).starts == (Start(0, "cheap"),)


def test_a_model_that_failed_makes_room_for_a_better_one() -> None:
    models = {"cheap": CHEAP, "dear": model(0.9, 1.0, 0.03)}
    fresh = job(0, models, agreement=0.6, widths=(1,))
    failed = replace(fresh, failed={"cheap": 4})
    assert decided(Situation((fresh,), 1.0, 100.0)).starts == (Start(0, "cheap"),)
    assert decided(Situation((failed,), 1.0, 100.0)).starts == (Start(0, "dear"),)


def test_what_runs_is_left_alone_where_there_is_time() -> None:
    under_way = job(0, {"slow": SLOW}, running=(Sample("slow", 2.0, 0.02),))
    decision = decided(Situation((under_way,), 1.0, 100.0))
    assert decision.starts == ()
    assert decision.probability == 1.0


def test_a_sample_that_takes_too_long_gets_company() -> None:
    tail = Profile(0.9, [(1.0, 0.01)] * 9 + [(60.0, 0.01)], [(1.0, 0.01)])
    under_way = job(0, {"tail": tail}, running=(Sample("tail", 5.0, 0.01),))
    assert decided(Situation((under_way,), 1.0, 10.0)).starts != ()


def test_money_set_aside_for_what_runs_comes_back() -> None:
    running = (Sample("cheap", 0.5, 0.5),)
    jobs = (job(0, {"cheap": CHEAP}, running=running), job(1, {"dear": DEAR}, 0))
    assert probability(Situation(jobs, 0.0, 100.0)) > 0.9


@pytest.mark.parametrize("agreement", [0.0, 0.5])
def test_one_sample_passes_as_often_as_its_model(agreement: float) -> None:
    one = job(0, {"cheap": CHEAP}, agreement=agreement, widths=(1,))
    assert probability(Situation((one,), 0.01, 1.5)) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("tries", "least"), [(1, 0.5), (2, 0.75), (3, 0.875)])
def test_the_probability_is_that_of_so_many_tries(tries: int, least: float) -> None:
    one = job(0, {"cheap": CHEAP}, widths=(1,))
    assert probability(Situation((one,), 0.01 * tries, 99.0)) == pytest.approx(least, abs=0.03)
    assert probability(Situation((one,), 9.0, tries + 0.5)) == pytest.approx(least, abs=0.03)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(1.0, 40.0), st.sampled_from([0.0, 0.6]))
def test_more_money_or_time_is_never_worse(usd: float, seconds: float, agreement: float) -> None:
    models = {"cheap": CHEAP, "quick": QUICK, "slow": SLOW}
    jobs = (job(0, models, agreement=agreement), job(1, models, 0, agreement=agreement))
    found = probability(Situation(jobs, usd, seconds))
    noise = 0.03  # what thrift and a search that ends early may cost
    assert probability(Situation(jobs, usd * 1.5, seconds)) >= found - noise
    assert probability(Situation(jobs, usd, seconds * 1.5)) >= found - noise


def test_a_wider_choice_is_never_worse() -> None:
    for widths in ((1,), (1, 4), (1, 4, 16)):
        one = job(0, {"cheap": CHEAP}, widths=widths)
        assert probability(Situation((one,), 10.0, 1.5)) == pytest.approx(
            1 - 0.5 ** widths[-1], abs=0.02
        )


def test_the_same_seed_decides_the_same() -> None:
    models = {"cheap": CHEAP, "quick": QUICK, "slow": SLOW}
    jobs = (job(0, models, agreement=0.4), job(1, models), job(2, models, 0, 1))
    situation = Situation(jobs, 0.3, 20.0)
    assert decided(situation, seed=4) == decided(situation, seed=4)


def test_what_was_worked_out_before_changes_no_answer_that_is_clear() -> None:
    models = {"cheap": CHEAP, "dear": DEAR}
    before = Situation((job(0, models), job(1, models, 0)), 0.25, 50.0)
    after = Situation((job(1, models),), 0.24, 49.0)
    allocator = MonteCarlo()
    decided(before, allocator)
    assert decided(after, allocator).starts == decided(after).starts


def test_steps_are_many_and_none_waits() -> None:
    models = {"cheap": CHEAP, "quick": QUICK, "slow": SLOW}
    jobs = tuple(job(n, models, *((n - 1,) if n else ())) for n in range(8))
    steps = list(MonteCarlo().decide(Situation(jobs, 0.5, 60.0), random.Random(1)))
    assert len(steps) > 100
    assert set(steps) == {0.0}


def test_a_plan_with_plain_tools_between_is_planned_around_them() -> None:
    plain = Job(1, (0,), {"": Profile(1.0, [(8.0, 0.0)], [])}, ())
    jobs = (job(0, {"quick": QUICK, "slow": SLOW}), plain)
    starts = decided(Situation(jobs, 1.0, 14.0)).starts
    assert {start.model for start in starts} == {"quick"}


def test_what_runs_by_itself_is_no_reason_to_wait_for_money() -> None:
    plain = replace(
        job(1, {"": Profile(1.0, [(8.0, 0.0)], [])}, widths=()), running=(Sample("", 1.0),)
    )
    dear = {"dear": model(0.9, 1.0, 0.1, bound=5.0)}
    assert decided(Situation((job(0, dear), plain), 1.0, 20.0)).starts[0].model == "dear"


def test_what_cannot_be_set_aside_waits_until_money_comes_back() -> None:
    bound = {"bound": model(0.9, 1.0, 0.4, bound=0.5)}
    jobs = (job(0, bound), job(1, bound))
    little, enough = Situation(jobs, 0.85, 100.0), Situation(jobs, 1.1, 100.0)
    assert sum(start.samples for start in decided(little).starts) == 1
    assert sum(start.samples for start in decided(enough).starts) == 2


def test_two_jobs_beside_each_other_are_both_begun() -> None:
    jobs = (job(0, {"cheap": CHEAP}), job(1, {"cheap": CHEAP}))
    assert {start.job for start in decided(Situation(jobs, 1.0, 100.0)).starts} == {0, 1}


FREE = model(0.5, 1.0, 0.0)


@pytest.mark.parametrize(
    ("usd", "seconds"),
    [(0.0, 10.0), (-1.0, 10.0), (1.0, 0.0), (1.0, -5.0), (1.0, 0.5), (0.005, 10.0), (None, 0.5)],
)
def test_what_cannot_succeed_is_given_up(usd: float | None, seconds: float) -> None:
    decision = decided(Situation((job(0, {"cheap": CHEAP}),), usd, seconds))
    assert decision == Decision(probability=0.0, usd=0.0, hopeless=(0,))


@pytest.mark.parametrize(("usd", "seconds"), [(None, None), (None, 9.0), (1.0, None), (1e9, 1e9)])
def test_limits_that_do_not_bind_leave_it_to_the_cost(
    usd: float | None, seconds: float | None
) -> None:
    models = {"dear": DEAR, "cheap": CHEAP}
    decision = decided(Situation((job(0, models),), usd, seconds))
    assert decision.starts == (Start(0, "cheap"),)
    assert decision.probability == pytest.approx(1.0, abs=0.01)
    assert decision.usd == pytest.approx(0.02, rel=0.1)


def test_free_models_are_begun_without_money() -> None:
    decision = decided(Situation((job(0, {"free": FREE}),), 0.0, 10.0))
    assert decision.starts[0].model == "free"
    assert decision.hopeless == ()


def test_a_hard_job_is_not_given_up_for_its_cost_where_money_has_no_limit() -> None:
    hard = job(0, {"cheap": CHEAP}, agreement=0.6, failed={"cheap": 12})
    assert decided(Situation((hard,), None, 60.0)).starts != ()


def test_a_job_that_failed_again_and_again_is_given_up() -> None:
    allocator = MonteCarlo()
    fresh = job(0, {"cheap": CHEAP}, agreement=0.6)
    decided(Situation((fresh,), 1.0, 100.0), allocator)
    failed = replace(fresh, failed={"cheap": 60})
    assert decided(Situation((failed,), 0.4, 40.0), allocator).hopeless == (0,)


@pytest.mark.parametrize(("spent", "given_up"), [(0.0, True), (0.0015, False)])
def test_what_a_run_has_cost_is_part_of_what_it_is_worth(spent: float, given_up: bool) -> None:
    models = {"small": model(0.5, 0.5, 4e-5), "large": model(0.9, 1.6, 1e-3)}
    allocator = MonteCarlo()
    fresh = job(0, models, agreement=0.35)
    decided(Situation((fresh,), 0.022, 80.0, spent), allocator)
    failed = replace(fresh, failed={"small": 8})
    found = decided(Situation((failed,), 0.021, 75.0, spent), allocator)
    assert (found.hopeless == (0,), found.starts == ()) == (given_up, given_up)


def test_guesses_are_no_reason_to_give_up() -> None:
    guess = {"guess": model(0.7, 5.0, 0.01, doubt=0.26)}
    jobs = (job(0, guess), job(1, guess, 0))
    decision = decided(Situation(jobs, 1.0, 6.0))
    assert decision.probability == 0.0
    assert {start.model for start in decision.starts} == {"guess"}
    known = {"known": model(0.7, 5.0, 0.01, doubt=0.05)}
    assert decided(Situation((job(0, known), job(1, known, 0)), 1.0, 6.0)).hopeless == (0, 1)


@pytest.mark.parametrize("count", [40, 150])
@pytest.mark.parametrize("agreement", [0.5, 0.9])
def test_a_wide_run_is_not_given_up_where_the_limits_allow_it(count: int, agreement: float) -> None:
    models = {"good": model(0.85, 1.0, 0.01)}
    jobs = tuple(job(number, models, agreement=agreement, room=64) for number in range(count))
    decision = decided(Situation(jobs, 100.0, 3600.0))
    assert decision.hopeless == ()
    assert len(decision.starts) == count


def test_a_wide_run_that_cannot_be_paid_is_given_up() -> None:
    models = {"good": model(0.85, 1.0, 0.01)}
    jobs = tuple(job(number, models, agreement=0.9, room=64) for number in range(60))
    assert len(decided(Situation(jobs, 0.3, 3600.0)).hopeless) == 60


def test_of_a_wide_run_only_what_failed_again_and_again_is_given_up() -> None:
    models = {"good": model(0.85, 1.0, 0.01)}
    jobs = [job(number, models, agreement=0.9, room=64) for number in range(150)]
    jobs[3] = replace(jobs[3], failed={"good": 30}, room=34)
    decision = decided(Situation(tuple(jobs), 100.0, 3600.0))
    assert decision.hopeless == (3,)
    assert len(decision.starts) == 149


@pytest.mark.parametrize("p", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("agreement", [0.0, 0.2])
def test_a_good_model_that_failed_once_is_asked_again(p: float, agreement: float) -> None:
    allocator = MonteCarlo()
    fresh = job(0, {"good": model(p, 1.0, 0.01)}, agreement=agreement)
    decided(Situation((fresh,), 5.0, 1000.0), allocator)
    failed = replace(fresh, failed={"good": 3})
    assert decided(Situation((failed,), 4.97, 997.0), allocator).starts != ()


def test_what_is_done_is_forgotten() -> None:
    allocator, chance = MonteCarlo(), random.Random(0)
    models = {"good": model(0.9, 1.0, 0.01)}

    def remembered(number: int) -> int:
        situation = Situation((job(number, models, agreement=0.5),), 1.0, 100.0)
        for _ in allocator.decide(situation, chance):
            pass
        return len(pickle.dumps(allocator))

    sizes = [remembered(number) for number in range(100, 120)]
    assert max(sizes) < 1.2 * sizes[0]


@pytest.mark.parametrize("scenarios", [0, -5, 100_000, "many"])
def test_scenarios_that_are_none_are_an_error(scenarios: object) -> None:
    with pytest.raises(DefinitionError, match="scenarios are from 1 to 4096"):
        MonteCarlo(scenarios)  # type: ignore[arg-type]  # what is tested


def test_nothing_left_to_do_is_done() -> None:
    assert decided(Situation((), 1.0, 1.0)) == Decision(probability=1.0, usd=0.0)


@pytest.mark.parametrize(
    "only",
    [
        Profile(0.5, [], []),
        Profile(0.0, [], [(1.0, 0.01)]),
        Profile(1.0, [(1.0, 0.01)], []),
        Profile(0.5, [(0.0, 0.0)], [(0.0, 0.0)]),
        Profile(0.5, [(1.0, 0.01)], [(1.0, 0.01)], start=0.02, doubt=0.4, refunds=False),
    ],
)
@pytest.mark.parametrize("room", [None, 0, 3])
def test_any_profile_is_decided_about(only: Profile, room: int | None) -> None:
    decision = decided(Situation((job(0, {"only": only}, room=room, agreement=0.9),), 1.0, 9.0))
    assert bool(decision.starts) != bool(decision.hopeless)
    assert sum(start.samples for start in decision.starts) <= (9 if room is None else room)


def test_models_may_vanish_and_jobs_appear_between_decisions() -> None:
    allocator = MonteCarlo()
    one = job(0, {"cheap": CHEAP, "dear": DEAR}, running=(Sample("cheap", 0.5, 0.01),))
    decided(Situation((one,), 0.3, 10.0), allocator)
    less = replace(one, models={"dear": DEAR}, failed={"cheap": 1})
    decision = decided(Situation((less, job(7, {"cheap": CHEAP}, 0)), 0.3, 9.0), allocator)
    assert decision.starts[0].model == "dear"


def test_a_job_without_models_is_hopeless() -> None:
    assert decided(Situation((job(0, {}),), 1.0, 9.0)).hopeless == (0,)


def test_a_model_that_was_not_asked_is_before_a_job_is_given_up() -> None:
    pool = [(1.0, 0.001)]
    models = {
        "small": Profile(0.7, pool, pool, doubt=0.2),
        "large": Profile(0.7, [(1.0, 0.01)], [(1.0, 0.01)], doubt=0.2),
    }
    tried = job(0, models, agreement=0.9, failed={"small": 40})

    decision = decided(Situation((tried,), 0.1, 9.0))

    assert [start.model for start in decision.starts] == ["large"] and not decision.hopeless
    asked = job(0, models, agreement=0.9, failed={"small": 40, "large": 9})
    assert decided(Situation((asked,), 0.1, 9.0)).hopeless == (0,)
