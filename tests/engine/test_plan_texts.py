"""Plans as text, read and run by an engine."""

from __future__ import annotations

import pytest

from agentflow import Engine, tool
from agentflow.errors import PlanError
from agentflow.planner.printer import print_plan


@tool(pure=True)
async def add(a: int, b: int) -> int:
    return a + b


@tool(pure=True)
async def negate(a: int) -> int:
    return -a


async def test_a_text_becomes_a_plan_that_runs() -> None:
    async with Engine(tools=[add]) as engine:
        plan = engine.plan("1. add(1, b=2)\n2. add($1, $1)\nreturn $2")

        assert await engine.run(plan) == 6
        assert await engine.run(plan) == 6


async def test_a_plan_without_return_gives_all_values_by_node() -> None:
    async with Engine(tools=[add]) as engine:
        assert await engine.run(engine.plan("$1 = add(1, 2)\n$2 = add($1, 4)")) == {0: 3, 1: 7}


async def test_passes_have_rewritten_what_plan_gives() -> None:
    text = "$1 = negate(1)\n$2 = negate(a=1)\n$3 = negate(5)\nreturn [$1, $2]"
    async with Engine(tools=[negate]) as engine:
        plan = engine.plan(text)

        assert print_plan(plan) == "$1 = negate(1)\nreturn [$1, $1]\n"
        assert await engine.run(plan) == [-1, -1]


async def test_tools_given_with_the_text_replace_those_of_the_engine() -> None:
    async with Engine(tools=[add]) as engine:
        plan = engine.plan("$1 = negate(1)\nreturn $1", tools=[negate])

        assert await engine.run(plan, tools=[negate]) == -1
        with pytest.raises(PlanError, match="negate"):
            engine.plan("$1 = negate(1)")


@pytest.mark.parametrize(
    ("text", "kind", "at"),
    [
        ("$1 = ad(1, 2)", "unknown_tool", 1),
        ("$1 = add(1)", "arity", 1),
        ("$1 = add(1, 2)\n$2 = add(1, c=2)", "unknown_param", 2),
        ('$1 = add("one", 2)', "bad_args", 1),
        ("$1 = add($2, 1)\n$2 = add(1, 1)", "forward_ref", 1),
        ("$1 = add($2, 1)\n$2 = add($1, 1)", "cycle", 1),
        ("", "empty_plan", None),
        ("Nothing to do.", "empty_plan", None),
    ],
)
def test_a_text_that_cannot_be_run_is_refused_before_anything_is(
    text: str, kind: str, at: int | None
) -> None:
    with pytest.raises(PlanError) as refused:
        Engine(tools=[add]).plan(text)

    assert (refused.value.kind, refused.value.at) == (kind, at)
