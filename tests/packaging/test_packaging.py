"""The parts install, and are imported, as ``agentflow.<part>``, and nothing else ships."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import agentflow

IGNORED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


@pytest.fixture(scope="module")
def archives(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built offline from a copy of the checkout."""
    setuptools = pytest.importorskip("setuptools", "77", "builds need setuptools 77")
    assert setuptools is not None
    copy = tmp_path_factory.mktemp("build") / "checkout"
    shutil.copytree(root, copy, symlinks=True, ignore=IGNORED)
    build = "from setuptools.build_meta import *; build_sdist('dist'); build_wheel('dist')"
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return copy / "dist"


def test_every_package_is_listed(
    root: Path, folders: dict[str, str], pyproject: dict[str, Any]
) -> None:
    found = {
        ".".join((name, *init.parent.relative_to(root / folder).parts))
        for name, folder in folders.items()
        for init in (root / folder).rglob("__init__.py")  # does not enter links
    }

    assert found == set(pyproject["tool"]["setuptools"]["packages"])


@pytest.mark.skipif(
    not (Path(__file__).parents[2] / ".git").exists(), reason="an sdist carries no links"
)
def test_links_agree_with_the_map(root: Path, folders: dict[str, str]) -> None:
    for name, folder in folders.items():
        assert root.joinpath(*name.split(".")).resolve() == (root / folder).resolve()


def test_the_wheel_holds_agentflow_and_nothing_else(
    archives: Path, modules: dict[str, Path]
) -> None:
    [wheel] = archives.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert all(name.startswith("agentflow/") for name in names)
    assert "agentflow/py.typed" in names
    assert len([name for name in names if name.endswith(".py")]) == len(modules)


def test_the_wheel_holds_the_data_files_of_every_part(
    archives: Path, root: Path, folders: dict[str, str]
) -> None:
    [wheel] = archives.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {
        "/".join((*name.split("."), path.relative_to(root / folder).as_posix()))
        for name, folder in folders.items()
        for path in (root / folder).rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix not in {".py", ".pyc"}
    }

    assert data <= names, "list them under [tool.setuptools.package-data]"


def test_every_module_of_the_wheel_can_be_imported(
    archives: Path, modules: dict[str, Path], tmp_path: Path
) -> None:
    [wheel] = archives.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    names = sorted(name for name in modules if not name.endswith("__main__"))
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(sys.modules['agentflow'].__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "agentflow" / "__init__.py"


def test_the_sdist_keeps_the_folders_and_the_tests(archives: Path, folders: dict[str, str]) -> None:
    [sdist] = archives.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    for folder in folders.values():
        assert f"{folder}/__init__.py" in names
    assert {"LICENSE", "Makefile", "pyproject.toml", "tests/packaging/test_packaging.py"} <= names


def test_core_dependencies_are_the_agreed_ones(pyproject: dict[str, Any]) -> None:
    names = {re.split(r"[\W_]", line)[0] for line in pyproject["project"]["dependencies"]}

    assert names == {
        "diskcache", "httpx", "networkx", "openai", "pydantic", "structlog", "tenacity",
    }  # fmt: skip


def test_the_version_is_the_same_everywhere(root: Path, pyproject: dict[str, Any]) -> None:
    version = pyproject["project"]["version"]
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)

    assert agentflow.__version__ == version
    assert headings[0] == "Unreleased"
    if ".dev" not in version:
        assert headings[1] == version, "a released version has its heading in CHANGELOG.md"
    assert version.partition(".dev")[0] not in headings or ".dev" not in version
