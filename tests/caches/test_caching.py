"""What cannot be meant as a cache is refused where it is written, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentflow import Engine
from agentflow.caches.caching import Caching
from agentflow.caches.memory import MemoryStore
from agentflow.caches.store import SMALLEST_DISK
from agentflow.errors import DefinitionError


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        *(("memory", value, "a number of bytes, 1 or more") for value in (0, -1, "64", True, 1.5)),
        *(
            ("disk", value, f"{SMALLEST_DISK} or more")
            for value in (0, SMALLEST_DISK - 1, "1", True)
        ),
        *(("quota", value, "a share") for value in (0, -0.1, 1.01, float("nan"), "0.5", True)),
        *(("directory", value, "a directory") for value in (0, 1, True, b"here", {}, object())),
        *(("scope", value, "a text") for value in (None, 7, b"tenant")),
        ("store", {}, "lacks put, delete, flush, aclose, stats"),
        ("store", object(), "lacks get"),
        ("store", MemoryStore, "a class"),
    ],
)
def test_it_is_refused(name: str, value: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why) as refused:
        Caching(**{name: value})
    assert repr(value) in str(refused.value)


def test_there_is_one_second_tier() -> None:
    with pytest.raises(DefinitionError, match="not both"):
        Caching(directory="here", store=MemoryStore())


@pytest.mark.parametrize(
    "options",
    [
        {"memory": 1, "quota": 1},
        {"quota": 0.01, "disk": SMALLEST_DISK},
        {"directory": Path("here"), "scope": "tenant"},
        {"directory": "here", "scope": lambda: "tenant"},
        {"store": MemoryStore()},
    ],
)
def test_what_can_be_used_is_taken(options: dict[str, Any]) -> None:
    taken = Caching(**options)
    assert {name: getattr(taken, name) for name in options} == options


def test_an_empty_directory_is_none() -> None:
    assert Caching(directory="") == Caching()


@pytest.mark.parametrize("cache", [0, 1, {}])
def test_an_engine_says_what_a_cache_is(cache: Any) -> None:
    with pytest.raises(DefinitionError, match="a cache is True, False, a directory or a Caching"):
        Engine(cache=cache)
