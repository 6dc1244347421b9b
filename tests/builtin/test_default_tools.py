"""What a run gets by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.errors import DefinitionError
from agentflow.tools.builtin import default_tools


def names(*args: Path, **kwargs: bool) -> list[str]:
    return [tool.name for tool in default_tools(*args, **kwargs)]


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
