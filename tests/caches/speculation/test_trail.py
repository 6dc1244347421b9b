from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.speculation.leaves import LEAVES, Leaf, leaves
from agentflow.caches.speculation.trail import Origin, Trail, call_key
from agentflow.caches.speculation.words import days, shape, tokens, words


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("mia_li_3668", "a_a_9{4}"),
        ("#W6390527", "#X{8}"),
        ("28236", "9{5}"),
        ("Noah", "Aa"),
        ("JFK", "A{3}"),
        ("noah@example.com", "a@a.a"),
        ("iPhone12", "x"),
    ],
)
def test_a_shape_tells_runs_of_letters_and_digits_apart(token: str, expected: str) -> None:
    assert shape(token) == expected


def test_tokens_lose_closing_punctuation_and_keep_their_place() -> None:
    found = tokens("Hi, I'm mia_li_3668. My order: #W6390527!")
    assert [token.text for token in found] == [
        "Hi",
        "I'm",
        "mia_li_3668",
        "My",
        "order",
        "#W6390527",
    ]
    assert found[2].place == 2


def test_of_a_long_text_the_end_is_looked_at() -> None:
    assert [token.text for token in tokens("first " + " " * 10_000 + "last")] == ["last"]


def test_words_are_lower_case_without_ids_and_short_ones() -> None:
    assert words(tokens("My Desk Lamp costs 30 USD, id AB12")) == {"desk", "lamp", "costs", "usd"}


@pytest.mark.parametrize("text", ["on May 20th, please", "the 20 May", "May 20"])
def test_a_day_in_words_is_found_in_either_order(text: str) -> None:
    [day] = days(tokens(text))
    assert day.text == "05-20"
    assert {"May", "20", "20th"} & {tokens(text)[day.place].text}


def test_a_day_that_does_not_exist_is_none() -> None:
    assert list(days(tokens("May 32 and Maybe 3"))) == []


def test_leaves_carry_the_path_and_the_places_of_list_elements() -> None:
    value = {"id": 7, "flights": [{"date": "a"}, {"date": "b"}]}
    assert leaves(value) == [
        Leaf("id", (), 7),
        Leaf("flights.*.date", (0,), "a"),
        Leaf("flights.*.date", (1,), "b"),
    ]


def test_a_key_with_digits_is_data() -> None:
    assert leaves({"card_12": {"brand": "x"}}) == [
        Leaf("*key", (0,), "card_12"),
        Leaf("*.brand", (0,), "x"),
    ]


def test_text_that_is_json_is_read_and_other_text_is_not() -> None:
    assert leaves('{"a": 1}') == [Leaf("a", (), 1)]
    assert leaves("{no json") == [Leaf("", (), "{no json")]


def test_leaves_are_bounded_in_number_length_and_depth() -> None:
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    assert len(leaves(list(range(10_000)))) == LEAVES
    assert leaves(["x" * 1_000, deep, object()]) == []


def test_equal_calls_have_one_key_whatever_the_order_of_arguments() -> None:
    assert call_key("t", {"a": 1, "b": 2}) == call_key("t", {"b": 2, "a": 1})
    assert len({call_key("t", {"a": value}) for value in (1, 1.0, True, "1")}) == 4


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.none())))
def test_the_key_of_a_call_is_json(tool: str, arguments: dict[str, object]) -> None:
    assert json.loads(call_key(tool, arguments)) == [tool, arguments]


def test_a_step_knows_where_its_values_stand_and_what_belongs_together() -> None:
    trail = Trail()
    trail.called("look", {}, {"who": "Ada", "rows": [{"id": 1, "is": "A Lamp"}, {"id": 2}]})
    [step] = trail.steps
    who, row = Origin("result", "look", "who"), Origin("result", "look", "rows.*.id")
    assert step.sources[int, 2] == [(row, ((1,), 2))]
    assert step.folded["ada"] == ["Ada"]
    assert [step.first(row, at) for at in [(1,), (1, 5), (), (2,)]] == [
        ((1,), 2),
        ((1,), 2),
        ((0,), 1),
        None,
    ]
    assert step.first(who, (1,)) == ((), "Ada")
    assert step.words_of((0,)) == {"a", "lamp"}
    assert not step.words_of(())


def test_a_trail_forgets_its_oldest_steps() -> None:
    trail = Trail(limit=3)
    for number in range(10):
        trail.called("look", {"id": number}, {"found": number})
    found = trail.offering(Origin("result", "look", "found"))
    assert trail.length == 10
    assert [step.position for step in trail.steps] == [7, 8, 9]
    assert [step.offers[Origin("result", "look", "found")][0].value for step in found] == [7, 8, 9]


def test_nothing_is_left_of_a_kind_of_value_whose_steps_are_forgotten() -> None:
    trail = Trail(limit=1)
    trail.called("look", {}, {"found": 1})
    trail.said("hello")
    assert not trail.offering(Origin("result", "look", "found"))


def test_a_failed_call_offers_its_arguments_only() -> None:
    trail = Trail()
    trail.called("look", {"id": 1}, "not found", failed=True)
    assert list(trail.steps[0].offers) == [Origin("argument", "look", "id")]


def test_supposing_a_call_leaves_the_trail_as_it_was() -> None:
    trail = Trail("shop", limit=2)
    trail.said("hello")
    trail.called("look", {"id": 1}, {"next": 2})
    supposed = trail.supposing("look", {"id": 2}, {"next": 3})
    assert (trail.length, supposed.length) == (2, 3)
    assert supposed.workflow == "shop"
    assert [step.position for step in trail.steps] == [0, 1]
    origin = Origin("result", "look", "next")
    assert [len(one.offering(origin)) for one in (trail, supposed)] == [1, 2]
