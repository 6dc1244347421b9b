"""The public face: what ``agentflow`` exports exists, and is listed in order."""

from __future__ import annotations

import agentflow


def test_public_names_are_sorted_and_unique() -> None:
    assert list(agentflow.__all__) == sorted(set(agentflow.__all__))


def test_public_names_exist_and_are_documented() -> None:
    for name in agentflow.__all__:
        value = getattr(agentflow, name)
        if callable(value) and not name.startswith("_"):
            assert value.__doc__, f"agentflow.{name} has no docstring"


def test_dir_shows_the_public_names() -> None:
    assert set(agentflow.__all__) <= set(dir(agentflow))
