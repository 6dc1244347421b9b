"""What the guards look at: the checkout, its settings and its Python files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def pyproject() -> dict[str, Any]:
    """The settings of the project."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="session")
def folders(pyproject: dict[str, Any]) -> dict[str, str]:
    """The folder of each part, by the name it is imported by."""
    mapping: dict[str, str] = pyproject["tool"]["setuptools"]["package-dir"]
    return mapping


@pytest.fixture(scope="session")
def modules(folders: dict[str, str]) -> dict[str, Path]:
    """The file of every module that is installed, by its dotted name."""
    found = {}
    for name, folder in folders.items():
        for path in (ROOT / folder).rglob("*.py"):  # does not enter links
            tail = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((name, *tail)).removesuffix(".__init__")] = path
    return found
