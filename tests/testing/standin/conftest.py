"""A small project to ask questions about."""

from __future__ import annotations

from pathlib import Path

import pytest

FILES = {
    "README.md": """\
# Teapot

Teapot brews tea on a schedule. The kettle is heated before the leaves are added, because
cold water spoils them.

## Limits

A brew never takes longer than five minutes. After that it is poured, ready or not.
""",
    "src/kettle.py": '''\
"""Heating water."""

import math


class KettleError(Exception):
    """The kettle is dry."""


class Kettle:
    """Heats water to a temperature in degrees Celsius."""

    def heat(self, target: float) -> float:
        """Seconds until the water is hot."""
        if target > 100:
            raise KettleError("water boils at 100")
        return math.ceil(target * 1.5)
''',
    "src/brewing_plan.py": '''\
"""Decides when to brew."""

from kettle import Kettle


def next_brew(now: float) -> float:
    """The time of the next brew, in seconds."""
    return now + 3600
''',
    "tests/test_kettle.py": """\
from kettle import Kettle


def test_kettle_heats():
    assert Kettle().heat(80) == 120
""",
    "notes.txt": "The schedule starts at noon: the schedule is fixed.\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return tmp_path
