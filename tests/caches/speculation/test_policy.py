"""What a guess gains, which origins arguments name, and how deep guesses may rest."""

from __future__ import annotations

import random
from typing import Any

import pytest

from agentflow import Speculation
from agentflow.caches.speculation.policy import Bar, Depth, origins_in
from agentflow.errors import DefinitionError


def test_the_gain_is_what_waiting_is_worth_less_what_is_lost_when_it_is_wrong() -> None:
    policy = Speculation(wait_price=0.01, load_price=0.002)

    assert policy.gain(1.0, 10.0, 5.0) == pytest.approx(0.1, rel=0.01)
    assert policy.gain(0.5, 10.0, 0.02) == pytest.approx(0.05 - 0.5 * (0.02 + 0.02), rel=0.01)
    assert policy.gain(0.0, 10.0, 0.02) == pytest.approx(-0.04, rel=0.01)


def test_the_gain_rises_with_probability_and_falls_with_price_and_delay() -> None:
    gain = Speculation().gain

    assert gain(0.8, 1.0, 0.0) > gain(0.7, 1.0, 0.0)
    assert gain(0.8, 1.0, 0.0) > gain(0.8, 1.0, 0.001)
    assert gain(0.8, 1.0, 0.0) > gain(0.8, 1.0, 0.0, delay=1.0)


def test_a_call_that_takes_no_time_gains_nothing() -> None:
    assert Speculation().gain(1.0, 0.0, 0.0) <= 0.0


@pytest.mark.parametrize(
    "wrong", [{"breadth": 0}, {"depth": 0}, {"wait_price": -1}, {"load_price": float("nan")}]
)
def test_a_policy_under_which_nothing_makes_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        Speculation(**wrong)


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://a.example/x?y#z", ["https://a.example"]),
        ("HTTPS://A.Example:8443/x", ["https://a.example:8443"]),
        ("see https://a.example/x, and ftp://b.example", ["https://a.example", "ftp://b.example"]),
        ("https://user:secret@a.example/", ["https://user:secret@a.example"]),
        ("https://a.example\\@b.example/", ["https://a.example\\@b.example"]),
        ("1https://a.example/", ["1https://a.example"]),
        ("//a.example/x", []),
        ("no url", []),
        (3, []),
        ({"deep": ["https://a.example/", {"more": ("http://b.example",)}]}, None),
    ],
)
def test_origins_are_found_wherever_a_url_stands(value: object, origins: list[str] | None) -> None:
    found = list(origins_in({"argument": value}))

    assert sorted(found) == sorted(origins or ["https://a.example", "http://b.example"]) or (
        origins == found == []
    )


def test_origins_in_a_long_text_take_linear_time() -> None:
    assert list(origins_in({"text": "a" * 1_000_000 + " ://"})) == ["://"]


def test_depth_begins_with_all_that_is_allowed() -> None:
    assert Depth(3).allowed == 3


def test_guesses_that_rest_on_others_end_when_they_do_not_come_true() -> None:
    depth = Depth(2)
    for _ in range(40):
        depth.note(2, kept=False)

    assert depth.allowed == 1


def test_guesses_that_rest_on_none_go_on_whatever_becomes_of_them() -> None:
    depth = Depth(1)
    for _ in range(100):
        depth.note(1, kept=False)

    assert depth.allowed == 1


def test_a_depth_that_failed_is_tried_again_after_a_while() -> None:
    depth = Depth(2)
    for _ in range(40):
        depth.note(2, kept=False)
    tries = 0
    while depth.allowed == 1:
        depth.note(1, kept=True)
        tries += 1

    assert 1 < tries < 200


def test_a_depth_that_comes_true_stays_allowed() -> None:
    depth = Depth(2)
    for number in range(200):
        depth.note(2, kept=number % 2 == 0)

    assert depth.allowed == 2


@pytest.mark.parametrize("waste", [0.5, 1.0, 2.0])
def test_the_bar_comes_to_rest_where_no_more_is_wasted_than_may_be(waste: float) -> None:
    bar, chance = Bar(waste), random.Random(1)
    wasted = used = 0
    for _ in range(20_000):
        probability = chance.random() ** 3
        if probability < bar.level:
            continue
        kept = chance.random() < probability
        bar.note(kept)
        wasted, used = wasted + (not kept), used + kept
    assert 0.6 * waste < wasted / used <= waste


def test_the_bar_stays_low_enough_to_try_again_and_high_enough_to_mean_something() -> None:
    never, always = Bar(2.0), Bar(2.0)
    for _ in range(10_000):
        never.note(kept=False)
        always.note(kept=True)
    assert (always.level, never.level) == (Bar.LEAST, Bar.MOST)


@pytest.mark.parametrize(
    "given", ["https://API.example.com", "https://api.example.com/", " https://api.example.com/v1"]
)
def test_an_origin_is_read_however_it_is_written(given: str) -> None:
    assert Speculation(origins=(given,)).origins == ("https://api.example.com",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"origins": ("api.example.com",)},
        {"origins": "https://api.example.com"},
        {"origins": (7,)},
        {"budget": 0.5},
        {"breadth": "8"},
        {"breadth": True},
        {"wait_price": "a"},
        {"waste": -1},
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        Speculation(**wrong)
