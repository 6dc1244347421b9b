"""Fuzzing on fixed seeds; `python -m tests.fuzz` (make fuzz) goes on for as long as it is told."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])

if ROOT not in sys.path:  # the readers and the mutator are modules beside this one
    sys.path.append(ROOT)
