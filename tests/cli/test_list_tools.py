"""``agentflow tools``: names, schemas, effects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Cli: TypeAlias = Callable[..., Any]


def test_the_built_in_tools_are_listed_with_their_effects(cli: Cli) -> None:
    done = cli("tools")

    assert done.code == 0
    assert "read_file(path: string, start: integer = 1, lines: integer = 200)" in done.out
    assert "    reads(files)\n" in done.out
    assert "python(" not in done.out
    assert "no effect declared" not in done.out


def test_tools_that_declare_nothing_are_named_with_the_line_to_add(cli: Cli) -> None:
    done = cli("tools", "--tools", "flow.py", "--python")

    assert "\npython, shout, total, thrice, hopeless, outer: no effect declared." in done.out
    assert '@tool(pure=True), @tool(reads="web") or @tool(writes="orders")' in done.out


def test_json_has_the_schemas(cli: Cli) -> None:
    tools = {tool["name"]: tool for tool in cli("tools", "--tools=flow", "--json").json}

    double = tools["double"]
    assert double["description"] == "Two times a number."
    assert double["effect"] == {"kind": "pure", "resources": [], "idempotent": False}
    assert double["parameters"]["properties"] == {"n": {"type": "integer"}}
    assert double["parameters"]["required"] == ["n"]
    assert double["returns"] == {"type": "integer"}


def test_two_tools_of_one_name_are_refused(cli: Cli, project: Path) -> None:
    (project / "mine.py").write_text(
        "from agentflow import tool\n\n@tool\nasync def calculate(x: int) -> int:\n    return x\n"
    )

    done = cli("tools", "--tools", "mine.py")

    assert done.code == 2
    assert "two tools are called 'calculate'" in done.err
