"""The typed program of `api.py` means to a type checker what it means at run time."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentflow import Engine, Plan
from agentflow.errors import ArgumentError, DefinitionError

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("api.py")


@pytest.fixture(scope="module")
def api() -> Any:
    """The program, imported."""
    spec = importlib.util.spec_from_file_location("typed_program", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = ModuleType("typed_program")
    sys.modules["typed_program"] = module  # where annotations are looked up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["typed_program"]


def test_mypy_accepts_the_program_and_finds_every_marked_error() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: the typed program is not checked")
    options = ["--strict", "--follow-imports=silent", "--cache-dir=.mypy_cache/typing"]

    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(PROGRAM)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


async def test_outside_a_workflow_tools_are_coroutine_functions(api: Any) -> None:
    assert await api.fetch("u", depth=1) == "page u 1"
    assert await api.size("four") == 4
    assert await api.lines("a\nb") == ["a", "b"]
    assert await api.fetch.map(["a", "b"]) == ["page a 0", "page b 0"]
    assert await api.cancel("o-1") is True


async def test_arguments_that_may_come_late_are_given_as_plain_values(api: Any) -> None:
    assert await api.write_file("a", "x\ny", 2) == "folder of a/a: x|y|x|y of 3"


async def test_references_and_elements_lead_where_their_types_say(api: Any) -> None:
    async with Engine() as engine:
        assert await engine.run(api.passing, "x") == "page x/0 2"
        assert await engine.run(api.mapping, "x") == 5


async def test_join_helpers_and_options_give_what_their_types_say(api: Any) -> None:
    async with Engine() as engine:
        assert await engine.run(api.joining) == "page a 0"
        assert await engine.run(api.overriding) == "page b 0"


def test_a_workflow_has_a_plan_before_it_runs(api: Any) -> None:
    plan = api.passing.plan("x")

    assert isinstance(plan, Plan)
    assert [node.tool for node in plan.nodes] == ["search", "fetch", "rank"]


async def test_wrong_arguments_are_errors_at_run_time_too(api: Any) -> None:
    async with Engine() as engine:
        with pytest.raises(ArgumentError, match="topic"):
            engine.start(api.passing)
        with pytest.raises(ArgumentError, match="time"):
            engine.start(api.asking, "x", time=3)
    with pytest.raises(DefinitionError, match="async def plain"):
        api.definitions()
