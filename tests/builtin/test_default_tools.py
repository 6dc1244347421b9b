"""What a run gets by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from agentflow.errors import DefinitionError
from agentflow.tools.builtin import default_tools
from agentflow.tools.builtin.files import FileText
from agentflow.tools.builtin.http import Page
from agentflow.tools.builtin.python import PythonResult


def names(root: Path | None = None, *, python: bool = False) -> list[str]:
    return [tool.name for tool in default_tools(root, python=python)]


def test_without_a_root_no_file_is_reached() -> None:
    assert names() == ["calculate", "http_get"]


def test_with_a_root_files_are_reached(folder: Path) -> None:
    assert names(folder)[2:] == ["read_file", "list_files", "search_text"]


def test_programs_run_only_if_asked_for(folder: Path) -> None:
    assert "python" not in names(folder)
    assert "python" in names(folder, python=True)


def test_a_root_that_is_no_folder_is_an_error(folder: Path) -> None:
    with pytest.raises(DefinitionError, match="not a folder"):
        default_tools(folder / "missing")


def test_results_are_described_and_survive_json(folder: Path) -> None:
    returns = {tool.name: tool.spec.returns for tool in default_tools(folder, python=True)}

    assert sorted(returns["http_get"]["properties"]) == [
        *("bytes", "content_type", "status", "text", "truncated", "url")
    ]
    assert returns["list_files"] == {"items": {"type": "string"}, "type": "array"}
    for value in (
        FileText("a", 1, 2, 3, "b", truncated=False),
        Page("http://a/", 200, "text/plain", "é", 2, truncated=True),
        PythonResult("out", "", 0),
    ):
        adapter: TypeAdapter[Any] = TypeAdapter(type(value))
        assert adapter.validate_json(adapter.dump_json(value)) == value
