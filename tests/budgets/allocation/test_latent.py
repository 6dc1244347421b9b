from __future__ import annotations

from collections.abc import Mapping

import pytest

from agentflow.budgets.allocation.draws import Draws
from agentflow.budgets.allocation.latent import chances
from agentflow.budgets.allocation.situation import Job, Profile

DRAWS = Draws(4000, 7)


def means(job: Job) -> Mapping[str, float]:
    return {name: sum(column) / len(column) for name, column in chances(job, DRAWS).items()}


def job(agreement: float, doubt: float = 0.0, **failed: int) -> Job:
    models = {
        name: Profile(p, [(1.0, 1.0)], [(1.0, 1.0)], doubt=doubt)
        for name, p in (("small", 0.4), ("large", 0.8))
    }
    return Job(0, (), models, agreement=agreement, failed=failed)


@pytest.mark.parametrize("agreement", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("doubt", [0.0, 0.1])
def test_before_any_failure_the_mean_is_what_is_known(agreement: float, doubt: float) -> None:
    assert means(job(agreement, doubt)) == pytest.approx({"small": 0.4, "large": 0.8}, abs=0.02)


def test_independent_samples_teach_nothing() -> None:
    assert means(job(0.0, small=20)) == pytest.approx({"small": 0.4, "large": 0.8})


def test_failures_make_a_job_harder_for_everybody() -> None:
    few, many = means(job(0.5, small=1)), means(job(0.5, small=6))
    assert many["small"] < few["small"] < 0.4
    assert many["large"] < few["large"] < 0.8


def test_failures_count_most_for_the_model_that_failed() -> None:
    after = means(job(0.5, small=10))
    assert after["small"] / 0.4 < 0.5 * after["large"] / 0.8


def test_who_is_hardly_known_is_believed_less_after_failures() -> None:
    assert means(job(0.0, 0.2, small=5))["small"] < 0.3
    assert means(job(0.0, 0.2, small=5))["large"] == pytest.approx(0.8, abs=0.01)


def test_after_many_failures_of_all_a_job_is_next_to_hopeless() -> None:
    after = means(job(0.6, small=20, large=20))
    assert after["large"] < 0.02


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("agreement", [0.0, 0.6, 1.0])
def test_certainty_is_no_error(p: float, agreement: float) -> None:
    models = {"only": Profile(p, [(1.0, 1.0)], [(1.0, 1.0)], doubt=0.1)}
    found = chances(Job(0, (), models, agreement=agreement, failed={"only": 3}), DRAWS)["only"]
    assert all(0.0 < chance < 1.0 for chance in found)
