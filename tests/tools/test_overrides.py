"""`Tool.with_`: the same tool, called differently."""

from __future__ import annotations

import pytest

from agentflow import llm, tool, workflow
from agentflow.errors import DefinitionError
from agentflow.tools.tool import Tool


@tool(timeout=5, retries=1)
async def look(name: str) -> str:
    return name


@llm
async def title(text: str) -> str:
    """A title for: {text}"""
    raise NotImplementedError


@workflow
async def flow(name: str) -> str:
    return await look(name)


def test_what_is_not_overridden_stays() -> None:
    quick = look.with_(timeout="250ms")

    assert (quick.policy.timeout, quick.policy.retries) == (0.25, 1)
    assert (look.policy.timeout, quick.name, quick.origin) == (5.0, "look", look)


def test_overrides_add_up() -> None:
    assert look.with_(timeout=1).with_(retries=3).policy == look.with_(timeout=1, retries=3).policy


@pytest.mark.parametrize("made", [look, title, flow], ids=lambda made: made.name)
def test_the_kind_of_tool_is_kept(made: Tool[..., str]) -> None:
    assert type(made.with_(timeout=1)) is type(made)


async def test_an_overridden_tool_is_still_a_function_elsewhere() -> None:
    assert await look.with_(timeout=1)("Ada") == "Ada"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": "soon"}, "'soon' is not a duration"),
        ({"retries": -1}, "retries must be a whole number"),
        ({"retry_on": "OSError"}, "retry_on takes exception types"),
        ({"rate": "fast"}, "'fast' is not a rate"),
        ({"tries": 3}, "Did you mean 'retries'"),
    ],
)
def test_what_is_no_option_is_refused_where_it_is_written(
    options: dict[str, object], problem: str
) -> None:
    with pytest.raises(DefinitionError, match=problem):
        look.with_(**options)  # type: ignore[arg-type]  # wrong on purpose
