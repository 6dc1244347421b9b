"""What a predictor keeps: dumped and loaded, bounded, the same in every process."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.speculation.predictor import OPEN, SETTLING, Predictor
from agentflow.caches.speculation.repertoire import KEPT, TOOLS, Repertoire
from agentflow.caches.speculation.trail import STEPS, Step, Trail


def step(predictor: Predictor, trail: Trail, n: int) -> None:
    predictor.learn(trail)
    trail.said(f"I am user_{n}")
    predictor.learn(trail)
    trail.called("profile", {"user": f"user_{n}"}, {"orders": [f"{n}a", f"{n}b"]})
    predictor.learn(trail)
    trail.called("order", {"id": f"{n}a"}, {"status": "sent"})
    predictor.learn(trail)


def visit(predictor: Predictor, n: int) -> Trail:
    trail = Trail("shop")
    step(predictor, trail, n)
    return trail


def taught(times: int) -> Predictor:
    predictor = Predictor()
    for n in range(times):
        predictor.close(visit(predictor, n))
    return predictor


def test_a_predictor_survives_json() -> None:
    predictor = taught(12)
    again = Predictor.load(json.loads(json.dumps(predictor.dump())))
    for n in range(3):
        trails = [visit(one, n) for one in (predictor, again)]
        expected = predictor.candidates(trails[0], 10)
        assert again.candidates(trails[1], 10) == expected != []
        predictor.close(trails[0])
        again.close(trails[1])


def broken(change: Callable[[dict[str, Any]], object]) -> object:
    dumped = copy.deepcopy(taught(2).dump())
    return change(dumped) or dumped


@pytest.mark.parametrize(
    "change",
    [
        lambda dumped: [1, 2],
        lambda dumped: dumped.pop("recipes") and None,
        lambda dumped: dumped.update(format=99),
        lambda dumped: dumped.update(hash=0),
        lambda dumped: dumped.update(recipes=[["x"]]),
        lambda dumped: dumped.update(recipes=5),
        lambda dumped: dumped["recipes"]["recipes"][0].__setitem__(1, -1.0),
        lambda dumped: dumped["recipes"]["recipes"][0].__setitem__(1, float("nan")),
        lambda dumped: dumped.update(scorers=["!", "?"]),
        lambda dumped: dumped.update(calibrations=[]),
    ],
)
def test_what_is_not_a_predictor_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ValueError, match="not a predictor"):
        Predictor.load(broken(change))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["format", "recipes", "scorers"]), inner, max_size=3)
        ),
    )
)
def test_garbage_is_refused_by_name(garbage: object) -> None:
    with pytest.raises(ValueError, match="not a predictor"):
        Predictor.load(garbage)


def test_recipes_and_workflows_are_bounded() -> None:
    repertoire = Repertoire()
    for number in range(2 * TOOLS):
        repertoire.learn(f"flow{number}", Step(1, f"tool{number}", arguments={"x": number}), [])
    for number in range(5 * KEPT):
        repertoire.learn("flow", Step(1, "one", arguments={"x": number}), [])
    dumped = repertoire.dump()
    tools = [tool for (tool, _), _ in dumped["recipes"]]
    assert tools.count("one") <= 2 * KEPT
    assert len(set(tools)) == len(dumped["workflows"]) == TOOLS


def test_a_long_session_is_bounded() -> None:
    predictor = taught(12)
    trail = Trail()
    for n in range(100):
        step(predictor, trail, n)
    assert len(predictor._sessions[trail].waiting) <= OPEN
    assert len(trail.steps) == STEPS < trail.length


def test_what_did_not_come_true_is_learned_from_a_little_at_a_time() -> None:
    predictor = taught(3)
    trail = Trail()
    for n in range(12):
        step(predictor, trail, n)
    predictor.close(trail)
    left = [len(predictor._overdue)]
    assert left[0] > SETTLING
    while predictor._overdue:
        predictor.learn(Trail())
        left.append(len(predictor._overdue))
    assert all(0 <= before - after <= SETTLING for before, after in pairwise(left))


def test_what_is_left_to_learn_from_is_not_lost_when_it_is_kept() -> None:
    predictor = taught(3)
    trail = Trail()
    for n in range(12):
        step(predictor, trail, n)
    predictor.close(trail)
    assert predictor._overdue
    kept = predictor.dump()
    assert not predictor._overdue
    assert kept == predictor.dump()


def test_what_a_supposed_call_does_not_change_is_not_looked_for_again() -> None:
    predictor = taught(12)
    trail = visit(predictor, 1)
    supposed = trail.supposing("other", {}, None)
    predictor.candidates(supposed)
    known, its = (predictor._sessions[one].finder._recipes for one in (trail, supposed))
    assert known
    assert all(its[recipe] is known[recipe] for recipe in known)


def test_a_session_that_is_gone_is_not_kept() -> None:
    predictor = taught(1)
    trail = visit(predictor, 1)
    assert len(predictor._sessions) == 1
    del trail
    assert not predictor._sessions


@pytest.mark.parametrize(
    "result", [None, 3, "text", [], [[]], {"a": {"b": []}}, "{bad", "x" * 10**5]
)
def test_any_result_is_taken(result: Any) -> None:
    predictor = taught(2)
    trail = Trail()
    trail.called("profile", {"user": None, "deep": {"list": [1, {"a": ()}]}}, result)
    predictor.learn(trail)
    trail.said("\ud800 lone surrogates and \x00 too")
    predictor.learn(trail)
    assert all(0 <= candidate.probability <= 1 for candidate in predictor.candidates(trail, 50))


_SCRIPT = """
import json
from agentflow.caches.speculation.guesses import WEIGHED
from agentflow.caches.speculation.predictor import Predictor
from agentflow.caches.speculation.trail import Trail
predictor = Predictor()
for n in range(8):
    trail = Trail("shop")
    predictor.learn(trail)
    trail.said(f"Hello there, I am user_{n}, where is my parcel?")
    predictor.learn(trail)
    trail.called("profile", {"user": f"user_{n}"}, {"orders": [f"{n}a", f"{n}b"], "paid": True})
    predictor.learn(trail)
    found = predictor.candidates(trail, 9)
    predictor.close(trail)
print([(c.tool, dict(c.arguments), c.probability, c.later) for c in found])
print(json.dumps(predictor.dump()))
"""


def test_what_is_learned_does_not_depend_on_the_salt_of_hashes() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert "profile" in said.pop()
