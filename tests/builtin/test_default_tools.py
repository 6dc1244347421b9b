"""What a run gets by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from agentflow.errors import DefinitionError
from agentflow.tools.builtin import default_tools
from agentflow.tools.builtin.files import FileText
from agentflow.tools.builtin.files_write import Written
from agentflow.tools.builtin.http import Page
from agentflow.tools.builtin.python import PythonResult
from agentflow.tools.builtin.sql import Rows


def names(root: Path | None = None, **options: Any) -> list[str]:
    return [tool.name for tool in default_tools(root, **options)]


def test_without_a_root_no_file_is_reached() -> None:
    assert names() == ["calculate", "http_get"]


def test_with_a_root_files_are_reached(folder: Path) -> None:
    assert names(folder)[2:] == ["read_file", "list_files", "search_text"]


def test_programs_run_only_if_asked_for(folder: Path) -> None:
    assert "python" not in names(folder)
    assert "python" in names(folder, python=True)


def test_files_are_written_only_if_asked_for(folder: Path) -> None:
    assert names(folder, write=True)[2:] == [
        *("read_file", "list_files", "search_text", "write_file")
    ]
    with pytest.raises(DefinitionError, match="name the root"):
        default_tools(write=True)


def test_a_database_is_read_only_if_it_is_named(folder: Path) -> None:
    assert "sql" not in names(folder, write=True)
    [*_, sql] = default_tools(folder, write=True, sql=folder / "app.db")
    assert (sql.name, str(sql.effect)) == ("sql", "reads(sql/app.db)")


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
        Written("a", 3, 1, created=True),
        Rows(["a"], [[1, 1.5, "x", None]], changed=1),
    ):
        adapter: TypeAdapter[Any] = TypeAdapter(type(value))
        assert adapter.validate_json(adapter.dump_json(value)) == value
