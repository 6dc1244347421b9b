"""What models are told: tools, results, and always the same beginning."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from agentflow.context import Context
from agentflow.planner.check import read_plan
from agentflow.planner.prompting import (
    OBSERVED_LIMIT,
    describe,
    further_plan,
    joining,
    observation,
    planner_prompt,
    prompt,
    shown,
    tool_definitions,
)
from agentflow.tools.spec import Parameter, ToolSpec
from agentflow.tools.tool import tool


class Hit(BaseModel):
    url: str
    score: float = 0.0


class Unit(Enum):
    METRE = "m"
    FOOT = "ft"


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


@tool
async def search(query: str, k: int = 5, *, fast: bool = False) -> list[Hit]:
    """Search the web.

    Returns the best first.
    """
    return []


@tool
async def convert(value: float, unit: Unit, to: Literal["m", "ft"] | None = None) -> float:
    """Convert a length."""
    return value


@tool
async def anything(*args: Any, **kwargs: Any) -> Any:
    """Take anything."""


@tool
async def report(ctx: Context, hit: Hit, hits: dict[str, Hit], note: str | int = "") -> Tree:
    """Write a report."""
    return Tree(name=str(note))


def test_a_tool_is_described_by_its_signature_and_docstring() -> None:
    assert describe(search.spec) == (
        "search(query: str, k: int = 5, fast: bool = false) -> list[{url, score}]\n"
        "    Search the web.\n"
        "\n"
        "    Returns the best first."
    )


def test_named_types_are_spelt_out() -> None:
    head = describe(convert.spec).splitlines()[0]
    assert head == 'convert(value: float, unit: "m" | "ft", to: "m" | "ft" | None = null) -> float'
    head = describe(report.spec).splitlines()[0]
    assert head == (
        'report(hit: {url, score}, hits: dict, note: str | int = "") -> {name, children}'
    )


def test_further_arguments_are_shown() -> None:
    assert describe(anything.spec).splitlines()[0] == "anything(*args, **kwargs)"


def test_a_default_that_has_no_json_form_is_shown_as_dots() -> None:
    spec = ToolSpec("wait", (Parameter("until", required=False),))

    assert describe(spec) == "wait(until = ...)"


def test_a_type_that_refers_to_itself_comes_to_an_end() -> None:
    from pydantic import JsonValue

    @tool
    async def keep(value: JsonValue, forest: Annotated[list[Tree], Field(max_length=3)]) -> None:
        """Keep it."""

    assert "forest: list[{name, children}]" in describe(keep.spec)


def test_the_same_tools_in_any_order_give_the_same_prompt() -> None:
    tools = [search.spec, convert.spec, report.spec]

    assert planner_prompt(tools) == planner_prompt(reversed(tools))
    assert tool_definitions(tools) == tool_definitions(reversed(tools))
    assert planner_prompt(tools).startswith(planner_prompt([]).partition("(none)")[0])


def test_the_example_in_the_planners_prompt_is_a_plan() -> None:
    @tool(name="tool_a")
    async def a(query: str) -> Any:
        """A."""

    @tool(name="tool_b")
    async def b(path: str, lines: int = 0) -> Any:
        """B."""

    @tool(name="tool_c")
    async def c(text: str, hits: Any) -> Any:
        """C."""

    example = "\n".join(line[4:] for line in prompt("plan").splitlines() if line.startswith("    "))
    script = read_plan(example, {t.name: t.spec for t in (a, b, c)})

    assert [line.id for line in script.lines] == [1, 2, 3, 4, 5]
    assert script.warnings == ()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("plan", "Write the plan in the notation."),
        ("join", "Answer the question from the observations, or ask for another plan."),
    ],
)
def test_a_prompt_says_what_it_is_about_first(name: str, line: str) -> None:
    assert line in prompt(name).splitlines()[0]


def test_tools_are_defined_as_chat_apis_take_them() -> None:
    [definition] = tool_definitions([search.spec])

    function = definition["function"]
    assert (definition["type"], function["name"]) == ("function", "search")
    assert function["parameters"]["required"] == ["query"]
    assert function["description"].startswith("Search the web.")


def test_a_short_value_is_shown_as_it_is_and_a_long_one_says_what_is_missing() -> None:
    assert shown("abc", 3) == "abc"
    assert shown("abcdefghij", 4) == "abc ... (6 of 10 characters were cut) ... j"
    assert shown("abcd", 3) == "abc ... (1 of 4 characters were cut) ..."
    assert shown([1, "é"]) == '[1, "é"]'


def test_every_line_of_a_result_is_indented() -> None:
    assert observation("$1 = f()", "a\n$2 = g()") == "$1 = f()\n-> a\n   $2 = g()"


def test_a_further_plan_is_asked_for_with_what_is_known() -> None:
    text = further_plan(
        ["$1 = f()\n-> x"], reason="more", not_called=[2, 3], written=[1], following=4
    )

    assert text == (
        "Observations:\n\n$1 = f()\n-> x\n\n"
        "Not called, because the plan broke off: $2, $3\n\n"
        "Done already, do not do it again: $1\n\n"
        "Why another plan is needed: more\n\n"
        "Write the next plan. Number its lines from $4 on."
    )


def test_a_joiner_is_shown_the_latest_results_and_told_what_was_cut() -> None:
    text = joining("Why?", ["a" * OBSERVED_LIMIT, "b" * 10])

    assert text.startswith(
        "Question: Why?\n\nObservations:\n\n(the first 8000 characters were cut)"
    )
    assert text.endswith("a\n" + "b" * 10)
    assert joining("Why?", []).endswith("(none)")
