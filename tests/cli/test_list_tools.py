"""``agentflow tools``: names, schemas, effects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Cli: TypeAlias = Callable[..., Any]


def test_the_built_in_tools_are_listed_with_their_effects(cli: Cli) -> None:
    done = cli("tools")

    assert done.code == 0
    assert "read_file(path: string, start: integer = 1, lines: integer = 200)" in done.out
    assert "    reads(files)\n" in done.out
    assert "python(" not in done.out
    assert "no effect declared" not in done.out


def test_tools_that_write_or_ask_a_database_are_there_if_asked_for(cli: Cli, project: Path) -> None:
    (project / "app.db").touch()

    names = [tool["name"] for tool in cli("tools", "--json").json]
    more = cli("tools", "--root", ".", "--write", "--sql", "app.db")

    assert not {"write_file", "sql"} & set(names)
    assert "write_file(path: string, text: string) -> object\n" in more.out
    assert "    writes(files/{path}), idempotent\n" in more.out
    assert "sql(query: string, params: " in more.out
    assert "    reads(sql/app.db)\n" in more.out


def test_a_folder_to_write_to_must_be_named(cli: Cli) -> None:
    done = cli("tools", "--write")

    assert done.code == 2
    assert "--write needs --root DIR" in done.err


@pytest.mark.parametrize(
    ("path", "why"), [("missing.db", "there is no such file"), (".", "it is no file")]
)
def test_a_database_that_is_not_there_is_an_error(cli: Cli, path: str, why: str) -> None:
    done = cli("tools", "--sql", path)

    assert done.code == 2
    assert f"--sql {path}: {why}" in done.err


def test_tools_that_declare_nothing_are_named_with_the_line_to_add(cli: Cli) -> None:
    done = cli("tools", "--tools", "flow.py", "--python")

    assert (
        "\npython, shout, total, thrice, hopeless, outer: no effect declared; such calls"
        in done.out
    )
    assert '@tool(pure=True), @tool(reads="web") or @tool(writes="orders")' in done.out
    assert "One line changes that" not in cli("tools", "--python").out


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
