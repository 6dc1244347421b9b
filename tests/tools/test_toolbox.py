from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentflow import tool
from agentflow.errors import DefinitionError, PlanError
from agentflow.tools.toolbox import Toolbox, load_module, tools_of

MODULE = """
from __future__ import annotations
import dataclasses
from agentflow import tool
import helper_of_this_folder

@dataclasses.dataclass
class Hit:
    url: str

@tool
async def second(hit: Hit) -> Hit:
    return hit

@tool
async def first() -> int:
    return helper_of_this_folder.NUMBER

alias = first
"""


@tool
async def search(query: str) -> str:
    return query


def test_tools_are_found_by_name() -> None:
    box = Toolbox([search])
    assert (
        box["search"] is box.find("search") is search and len(box) == 1 and list(box) == ["search"]
    )
    assert box.spec("search") is search.spec and box.spec("other") is None


def test_an_unknown_tool_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(PlanError, match=r"no tool 'serch'. Did you mean 'search'") as unknown:
        Toolbox([search]).find("serch")
    assert unknown.value.kind == "unknown_tool"


def test_two_tools_of_one_name_do_not_fit_into_one() -> None:
    other = tool(name="search")(search.fn)
    assert len(Toolbox([search, search])) == 1
    with pytest.raises(DefinitionError, match="two tools are called 'search'"):
        Toolbox([search, other])


def test_only_tools_are_taken() -> None:
    with pytest.raises(DefinitionError, match="decorate it with @tool"):
        Toolbox([search.fn])  # type: ignore[list-item]  # on purpose


def test_a_tool_brings_the_one_that_does_many_of_its_calls() -> None:
    @tool(pure=True)
    async def many(texts: list[str]) -> list[str]:
        return texts

    @tool(pure=True, batch=many)
    async def one(text: str) -> str:
        return text

    assert set(Toolbox([one])) == {"one", "many"}


def test_a_file_of_tools_is_loaded_with_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "my_tools.py").write_text(MODULE, "utf-8")
    (tmp_path / "helper_of_this_folder.py").write_text("NUMBER = 7\n", "utf-8")
    before = list(sys.path)
    module = load_module(str(tmp_path / "my_tools.py"))
    assert [made.name for made in tools_of(module)] == ["second", "first"]
    assert sys.path == before
    second = tools_of(module)[0]
    assert second.signature.validate(({"url": "u"},), {})[0][0].url == "u"


def test_a_file_may_be_called_as_a_module_that_is_there_already(tmp_path: Path) -> None:
    import json

    (tmp_path / "json.py").write_text("MINE = 1\n", "utf-8")
    assert load_module(str(tmp_path / "json.py")).MINE == 1
    assert sys.modules["json"] is json


def test_a_module_is_loaded_by_its_name() -> None:
    assert load_module("agentflow.tools.toolbox").Toolbox is Toolbox


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import not_there_at_all\n", "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "SystemExit"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why_and_leaves_nothing(
    tmp_path: Path, content: str, text: str
) -> None:
    path = tmp_path / "broken_tools_of_a_test.py"
    path.write_text(content, "utf-8")
    with pytest.raises(DefinitionError, match=text):
        load_module(str(path))
    assert path.stem not in sys.modules


@pytest.mark.parametrize("where", ["nowhere/my_tools.py", "no_such_package.module"])
def test_what_is_not_there_is_said_to_be_missing(where: str) -> None:
    with pytest.raises(DefinitionError):
        load_module(where)


def test_a_tool_definition_error_in_a_file_is_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "t.py"
    path.write_text("from agentflow import tool\ntool(pure=True, reads='x')(print)\n", "utf-8")
    with pytest.raises(DefinitionError, match="one of pure, reads or writes"):
        load_module(str(path))
