from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from agentflow.caches.speculation.bindings import BINDINGS, PRODUCTS, SCANNED, Binding, Finder
from agentflow.caches.speculation.forms import SHORTEST, Form, forms
from agentflow.caches.speculation.recipes import mine
from agentflow.caches.speculation.trail import Trail

Story = Callable[[Trail, int], dict[str, object]]


def found_again(story: Story) -> list[dict[str, object]]:
    """What the recipes mined from one session find in another one."""
    before, after = Trail(), Trail()
    recipes = mine("target", story(before, 1), list(before.steps))
    expected = story(after, 2)
    found = [
        dict(binding.arguments)
        for recipe in recipes
        for binding in Finder().find(recipe, after).values()
    ]
    assert expected in found
    return found


def result_path(trail: Trail, n: int) -> dict[str, object]:
    trail.called("profile", {}, {"user": {"id": f"user_{n}", "age": 30 + n}})
    return {"id": f"user_{n}"}


def list_element(trail: Trail, n: int) -> dict[str, object]:
    trail.called("profile", {}, {"orders": [f"a{n}", f"b{n}"]})
    return {"order": f"a{n}"}


def key_of_a_dict(trail: Trail, n: int) -> dict[str, object]:
    trail.called("profile", {}, {"cards": {f"card_{n}": {"kind": "gift"}}})
    return {"card": f"card_{n}"}


def earlier_argument(trail: Trail, n: int) -> dict[str, object]:
    trail.called("profile", {"who": f"user_{n}"}, None)
    return {"owner": f"user_{n}"}


def number_of_a_result(trail: Trail, n: int) -> dict[str, object]:
    trail.called("profile", {}, {"account": 1_000 + n})
    return {"account": 1_000 + n}


def words_of_the_user(trail: Trail, n: int) -> dict[str, object]:
    trail.said(f"my address is user{n}@example.com, thanks")
    return {"email": f"user{n}@example.com"}


def words_said_together(trail: Trail, n: int) -> dict[str, object]:
    name = ("Ada", "Mary")[n - 1]
    trail.said(f"I am {name} Byron and my zip code is 1234{n}.")
    return {"first": name, "last": "Byron", "zip": f"1234{n}"}


def fields_of_one_record(trail: Trail, n: int) -> dict[str, object]:
    trail.called("trips", {}, [{"to": f"X{n}", "day": f"d{n}"}, {"to": f"Y{n}", "day": f"e{n}"}])
    return {"day": f"e{n}", "to": f"Y{n}"}


def prefix(trail: Trail, n: int) -> dict[str, object]:
    trail.said(f"it is order 55500{n}")
    return {"order": f"#55500{n}"}


def part_in_another_case(trail: Trail, n: int) -> dict[str, object]:
    name = ("ada", "mary")[n - 1]
    trail.said(f"I am {name}_byron_77")
    return {"first": name.title()}


def day_in_words(trail: Trail, n: int) -> dict[str, object]:
    trail.said(f"a flight on May {n + 10}th, please")
    return {"date": f"2024-05-{n + 10}"}


def constant(trail: Trail, n: int) -> dict[str, object]:
    trail.said("anything new?")
    return {"app": "messaging", "deep": True}


def nothing_at_all(trail: Trail, n: int) -> dict[str, object]:
    return {}


STORIES: list[Story] = [
    result_path,
    list_element,
    key_of_a_dict,
    earlier_argument,
    number_of_a_result,
    words_of_the_user,
    words_said_together,
    fields_of_one_record,
    prefix,
    part_in_another_case,
    day_in_words,
    constant,
    nothing_at_all,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_what_explains_a_call_finds_the_like_of_it_elsewhere(story: Story) -> None:
    found_again(story)


def test_fields_of_different_records_are_not_mixed() -> None:
    found = found_again(fields_of_one_record)
    assert {"day": "d2", "to": "X2"} in found
    assert {"day": "d2", "to": "Y2"} not in found


def test_text_and_numbers_are_not_taken_for_each_other() -> None:
    trail = Trail()
    trail.called("profile", {}, {"account": 12})
    [recipe] = mine("target", {"account": "12"}, list(trail.steps))
    assert "constant" in repr(recipe)


def test_a_long_text_that_comes_from_nowhere_is_not_remembered() -> None:
    assert mine("think", {"thought": "x" * 200}, []) == []


def test_a_recipe_says_where_its_arguments_come_from() -> None:
    trail = Trail()
    list_element(trail, 1)
    [recipe] = mine("target", {"order": "a1"}, list(trail.steps))
    assert str(recipe) == "order = result orders[*] of profile"


def test_what_a_recipe_finds_is_bounded_and_distinct() -> None:
    trail = Trail()
    trail.called("profile", {}, {"orders": ["a"]})
    [recipe] = mine("target", {"order": "a"}, list(trail.steps))
    trail.called("profile", {}, {"orders": [f"o{n % 50}" for n in range(100)]})
    found = [binding.arguments["order"] for binding in Finder().find(recipe, trail).values()]
    assert found == [f"o{n}" for n in range(BINDINGS)]


def _ids(found: Mapping[str, Binding]) -> Iterator[object]:
    return (binding.arguments["id"] for binding in found.values())


def test_a_finder_sees_what_has_come_since() -> None:
    trail = Trail()
    finder = Finder()
    trail.called("profile", {}, {"orders": ["a"]})
    [recipe] = mine("target", {"order": "a"}, list(trail.steps))
    assert len(finder.find(recipe, trail)) == 1
    trail.called("profile", {}, {"orders": ["b"]})
    assert [b.arguments["order"] for b in finder.find(recipe, trail).values()] == ["b", "a"]


def test_a_finder_of_a_supposed_trail_starts_from_what_is_known_and_keeps_its_own() -> None:
    trail = Trail()
    trail.called("list", {}, {"ids": ["a1"]})
    [recipe] = mine("target", {"id": "a1"}, list(trail.steps))
    known = Finder()
    found = known.find(recipe, trail)
    untouched, changed = (
        trail.supposing("other", {}, 1),
        trail.supposing("list", {}, {"ids": ["b2"]}),
    )
    assert Finder(known).find(recipe, untouched) is found
    assert [*_ids(Finder(known).find(recipe, changed))] == ["b2", "a1"]
    assert known.find(recipe, trail) is found


def test_what_one_trail_supposes_is_not_found_in_another() -> None:
    trail = Trail()
    trail.called("list", {}, {"ids": ["a1"]})
    [recipe] = mine("target", {"id": "a1"}, list(trail.steps))
    known = Finder()
    supposed = trail.supposing("list", {}, {"ids": ["b2"]})
    trail.called("list", {}, {"ids": ["c3"]})
    assert [*_ids(known.find(recipe, trail))] == ["c3", "a1"]
    assert [*_ids(Finder(known).find(recipe, supposed))] == ["b2", "a1"]


def test_of_many_equal_values_only_so_many_are_looked_at() -> None:
    trail = Trail()
    trail.called("list", {}, {"ids": ["a1"]})
    [recipe] = mine("target", {"id": "a1"}, list(trail.steps))
    trail.called("list", {}, {"ids": ["same"] * SCANNED})
    assert [*_ids(Finder().find(recipe, trail))] == ["same"]


def test_arguments_from_many_steps_are_combined_in_the_order_of_their_ranks() -> None:
    trail, given = Trail(), {}
    for name in "abcdefgh":
        trail.called(name, {}, [f"{name}{number}" for number in range(9)])
        given[name] = f"{name}0"
    [*_, recipe] = mine("target", given, list(trail.steps))
    found = [binding.arguments for binding in Finder().find(recipe, trail).values()]
    assert len(found) == PRODUCTS
    assert found[0] == given
    assert all(sum(int(value[1:]) for value in each.values()) == 1 for each in found[1:])


@pytest.mark.parametrize(
    ("source", "target"),
    [("ABC", "abc"), ("abc", "Abc"), ("W123", "#W123"), ("mia_li_3", "Mia"), ("a b12", "B12")],
)
def test_a_form_gives_the_target_from_its_source(source: str, target: str) -> None:
    found = list(forms(source, target))
    assert found
    assert all(form.apply(source) == target for form in found)


def test_texts_that_share_too_little_have_no_form() -> None:
    assert list(forms("ab", "#ab")) == []
    assert SHORTEST == 3


def test_a_form_that_does_not_fit_gives_nothing() -> None:
    assert Form("part", part=3).apply("a_b") is None


@pytest.mark.parametrize(
    "dumped", [["exec", "", 0, "", ""], ["part", "rot13", 0, "", ""], ["same"]]
)
def test_a_foreign_form_is_refused(dumped: list[object]) -> None:
    with pytest.raises(ValueError, match=r"form|unpack"):
        Form.load(dumped)
