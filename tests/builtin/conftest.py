"""A small project to look at."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project, with a secret beside it that must not be reached."""
    (tmp_path / "secret.txt").write_text("secret\n")
    root = tmp_path / "project"
    (root / "src" / "deep").mkdir(parents=True)
    (root / "README.md").write_text("# Title\n\nhello world\n")
    (root / "src" / "main.py").write_text("import os\n\n\ndef main():\n    print('Hello')\n")
    (root / "src" / "deep" / "notes.txt").write_text("one\ntwo\nthree\n")
    return root
