"""What the guards look at: the checkout, its settings and its Python files."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.pages import ROOT

IGNORED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


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


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout to work in, without settings of this machine."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=IGNORED)
    monkeypatch.chdir(copy)
    for name in os.environ:
        if name.startswith(("OPENAI_", "AGENTFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return copy


@pytest.fixture
def shell_path(tmp_path: Path) -> str:
    """A search path on which ``agentflow`` and ``python`` are the ones under test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, arguments in (("agentflow", " -m agentflow"), ("python", ""), ("python3", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
