"""The public face: what ``agentflow`` exports exists, and is listed in order."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

import agentflow
import agentflow.testing


def test_public_names_are_sorted_and_unique() -> None:
    assert list(agentflow.__all__) == sorted(set(agentflow.__all__))


def test_checkers_and_programs_find_the_same_names_in_the_same_places(root: Path) -> None:
    tree = ast.parse((root / "agentflow" / "__init__.py").read_text("utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: str(node.module) for node in imports for alias in node.names}

    homes = {name: f"agentflow.{home}" for name, home in agentflow._HOME.items()}
    assert seen == homes
    assert list(homes) == agentflow.__all__


def test_public_names_exist_and_are_documented() -> None:
    for name in agentflow.__all__:
        value = getattr(agentflow, name)
        if callable(value) and not name.startswith("_"):
            assert value.__doc__, f"agentflow.{name} has no docstring"


@pytest.mark.parametrize("module", [agentflow, agentflow.testing], ids=lambda m: m.__name__)
def test_public_names_are_on_a_page(root: Path, module: ModuleType) -> None:
    pages = [root / "README.md", *(root / "docs").glob("*.md")]
    words = {word for page in pages for word in re.findall(r"\w+", page.read_text("utf-8"))}

    assert set(module.__all__) - words == set()


def test_dir_shows_the_public_names() -> None:
    assert set(agentflow.__all__) <= set(dir(agentflow))
