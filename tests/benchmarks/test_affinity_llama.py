"""The benchmark with real servers: what it fits, models and counts."""

from __future__ import annotations

import os

import affinity_calibration as calibration
import affinity_llama
import pytest
from affinity_servers import missing

from agentflow.executor.models.base import Reply, Usage
from agentflow.testing import Serving


def test_rates_are_found_again_in_exact_measurements() -> None:
    measured = calibration.Measured()
    for tokens in (100.0, 500.0, 2000.0):
        measured.first.append(((tokens,), tokens / 1500))
    for others in (0.0, 1.0, 3.0):
        for context in (50.0, 1000.0, 4000.0):
            seconds = 2e-3 + 5e-4 * others + 6e-7 * context
            measured.step.append(((1.0, others, context), seconds))

    serving = measured.serving()

    assert serving.prefill == pytest.approx(1500)
    found = (serving.step, serving.per_sequence, serving.per_context)
    assert found == pytest.approx((2e-3, 5e-4, 6e-7), rel=1e-3)


def test_no_rate_is_negative() -> None:
    rows = [((1.0, 0.0), 2.0), ((1.0, 1.0), 1.0), ((1.0, 2.0), 0.5)]
    assert all(rate >= 0.0 for rate in calibration.fitted(rows))


def test_the_model_finds_cached_what_a_conversation_has_had_computed() -> None:
    serving = Serving(prefill=1000.0, step=0.01, block=1, capacity=4096)
    turns = [calibration.Turn("", 10, 0.0, asked=float(at)) for at in range(2)]
    for turn, prompt in zip(turns, (100, 150), strict=True):
        turn.served.prompt = prompt

    calibration.Modelled(serving, [turns]).run()

    first, second = (turn.modelled for turn in turns)
    assert (first.cached, second.cached) == (0, 109)  # of the last token nothing was computed
    assert first.first == pytest.approx(0.1) and second.first == pytest.approx(0.041)


def test_what_is_cached_beyond_the_reusable_does_not_count() -> None:
    counts = affinity_llama.Counts()
    before = Reply(text="", usage=Usage(100, 11, 0))
    counts.note(None, before)
    counts.note(before, Reply(text="", usage=Usage(200, 5, 150)))
    assert (counts.reusable, counts.cached, counts.share) == (110, 110, 100.0)


@pytest.mark.skipif(
    "AGENTFLOW_LLAMA" not in os.environ or bool(missing()),
    reason="real servers are started with AGENTFLOW_LLAMA=1, after `make llama`",
)
def test_conversations_find_their_tokens_at_real_servers() -> None:
    found = affinity_llama.measure(quick=True)
    assert found is not None
    assert all(goal.holds for goal in affinity_llama.goals(found))
