from __future__ import annotations

from typing import Any

import pytest

from agentflow.tools.effects import PURE, SAMPLES, UNDECLARED, Effect, conflict, declared


@pytest.mark.parametrize(
    ("given", "effect"),
    [
        ((True, None, None, False), PURE),
        ((False, "web", None, False), Effect("reads", ("web",))),
        ((False, ["a", "b/{c}"], None, False), Effect("reads", ("a", "b/{c}"))),
        ((False, None, "web", True), Effect("writes", ("web",), True)),
        ((False, None, None, False), UNDECLARED),
    ],
)
def test_a_declaration_is_an_effect(given: tuple[Any, ...], effect: Effect) -> None:
    assert declared(*given) == effect


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((True, "web", None, False), "one of pure, reads or writes, not pure and reads"),
        ((False, "web", "web", False), "not reads and writes"),
        ((False, "web", None, True), "idempotent=True goes with writes"),
    ],
)
def test_a_contradiction_is_refused(given: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        declared(*given)


@pytest.mark.parametrize(
    ("effect", "early", "repeats"),
    [
        (PURE, True, True), (SAMPLES, True, True), (Effect("reads", ("x",)), True, True),
        (Effect("writes", ("x",)), False, False), (Effect("writes", ("x",), True), False, True),
        (UNDECLARED, False, False),
    ],
)  # fmt: skip
def test_what_the_engine_may_do_without_being_asked(
    effect: Effect, early: bool, repeats: bool
) -> None:
    assert (effect.starts_early, effect.repeats_safely) == (early, repeats)


@pytest.mark.parametrize(
    ("pattern", "arguments", "touched"),
    [
        ("web", {}, ("web",)),
        ("orders/{id}", {"id": 7}, ("orders", "7")),
        ("orders/{id}/lines", {"id": "a"}, ("orders", "a", "lines")),
        ("orders/{id}", {}, ("orders", "*")),
        ("orders/{id}", {"id": ["a"]}, ("orders", "*")),
        ("orders/{id}", {"id": None}, ("orders", "*")),
        ("orders/{a}-{b}", {"a": 1, "b": 2}, ("orders", "*")),
        ("/orders/", {}, ("orders",)),
        ("files/{path}", {"path": "a/b.txt"}, ("files", "a", "b.txt")),
        ("files/{path}", {"path": "./a//b"}, ("files", "a", "b")),
        ("files/{path}", {"path": ""}, ("files", "*")),
        ("files/{path}", {"path": "a/../b"}, ("files", "*")),
    ],
)
def test_a_call_touches_the_resources_its_arguments_name(
    pattern: str, arguments: dict[str, Any], touched: tuple[str, ...]
) -> None:
    assert Effect("reads", (pattern,)).touched(arguments) == (touched,)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a", "a", True), ("a", "a/b", True), ("a/b/c", "a", True), ("a/b", "a/c", False),
        ("a", "b", False), ("a/*", "a/b", True), ("*", "x/y", True), ("a/*/c", "a/b/d", False),
    ],
)  # fmt: skip
def test_resources_overlap_with_their_ancestors_and_descendants(
    one: str, other: str, overlap: bool
) -> None:
    left, right = tuple(one.split("/")), tuple(other.split("/"))
    assert conflict(left, right) is conflict(right, left) is overlap


def test_effects_read_as_they_are_declared() -> None:
    assert str(PURE) == "pure" and str(UNDECLARED) == "undeclared"
    assert str(Effect("writes", ("a", "b/{c}"), True)) == "writes(a, b/{c}), idempotent"
