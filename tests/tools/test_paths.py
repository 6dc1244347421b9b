from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest

from agentflow.tools.paths import ALL, resolve


@dataclass
class Page:
    url: str = "u"
    links: list[str] = field(default_factory=lambda: ["a", "b"])
    _secret: str = "s"

    @property
    def moody(self) -> str:
        raise RuntimeError("not today")

    def method(self) -> str:
        return "called"


@pytest.mark.parametrize(
    ("value", "path", "found"),
    [
        (5, (), 5),
        ({"a": {"b": 1}}, ("a", "b"), 1),
        ([10, 20], (-1,), 20),
        ((10, 20), (0,), 10),
        ({"a": [1, 2]}, ("a", 1), 2),
        ({7: "seven"}, (7,), "seven"),
        (MappingProxyType({"a": 1}), ("a",), 1),
        (Page(), ("links", 0), "a"),
        ([{"u": 1}, {"u": 2}], (ALL, "u"), [1, 2]),
        ([[1, 2], [3]], (ALL, ALL), [[1, 2], [3]]),
        ([[{"u": 1}], []], (ALL, ALL, "u"), [[1], []]),
        ({"items": "method of dict"}, ("items",), "method of dict"),
        ([], (ALL, "u"), []),
    ],
)
def test_a_path_leads_into_a_value(value: Any, path: tuple[Any, ...], found: Any) -> None:
    assert resolve(value, path) == found


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        ({"a": 1}, ("b",), "there is no 'b' among 'a'"),
        ({}, ("b",), "among no keys at all"),
        ({str(n): n for n in range(20)}, ("x",), ", ..."),
        ([1], (3,), "there is no [3] in a list of 1"),
        (None, ("a",), "null has no field 'a'"),
        (5, (0,), "[0] needs a list, not a value of type int"),
        ("text", (0,), "[0] needs a list"),
        ("text", ("upper",), "has no field 'upper'"),
        (5, (ALL,), "[*] needs a list"),
        ({"a": 1}, (ALL,), "[*] needs a list"),
        (Page(), ("_secret",), "has no field '_secret'"),
        (Page(), ("__class__",), "has no field '__class__'"),
        (Page(), ("method",), "has no field 'method'"),
        (Page(), ("other",), "has no field 'other'"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(
    value: Any, path: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(LookupError) as lost:
        resolve(value, path)
    assert text in str(lost.value)


def test_an_attribute_that_raises_raises() -> None:
    with pytest.raises(RuntimeError, match="not today"):
        resolve(Page(), ("moody",))
