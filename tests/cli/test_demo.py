"""The demo does a real job on the repository's own files."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from agentflow.testing import Pace
from agentflow.testing.standin import serve_standin

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_it_plans_calls_a_dozen_tools_cites_files_and_compares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo", demo)
    spec.loader.exec_module(demo)
    monkeypatch.setattr(demo, "serve_standin", partial(serve_standin, pace=Pace()))
    monkeypatch.setattr(sys, "argv", ["demo.py"])

    asyncio.run(demo.main())

    out = capsys.readouterr().out
    assert "not a language model" in out
    assert re.search(r"\$1 = \w+\(", out)
    assert re.search(r"\(executor/calls/threads\.py:\d+\)", out)
    table = re.findall(r"^(plan|react) +([\d.]+) +(\d+) +(\d+) +([\d,]+)$", out, re.MULTILINE)
    assert [row[0] for row in table] == ["plan", "react"]
    assert all(int(tool_calls) >= 12 for *_, tool_calls, _tokens in table)
