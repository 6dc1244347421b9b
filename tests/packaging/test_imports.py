"""Imports point one way, are absolute, and a plain import stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LEAVES = {
    f"agentflow.{name}"
    for name in (
        *("errors", "errors_backend", "errors_base"),
        *("events", "events_base", "events_early"),
        *("clock", "context", "money", "redaction", "wording"),
        *("_http", "_loopback", "_private"),
    )
}
RANKS = {"tools": 1, "budgets": 1, "planner": 2, "caches": 3, "executor": 4}
FACE, TESTING = 5, 6
HEAVY = {"diskcache", "httpx", "httpx2", "networkx", "openai", "structlog"}


def rank(module: str) -> int:
    """How high a module stands; it may import what stands lower, and its own part."""
    if module in LEAVES:
        return 0
    part = module.split(".")[1] if "." in module else ""
    return TESTING if part == "testing" else RANKS.get(part, FACE)


def part_of(module: str) -> str:
    """The part a module belongs to: a folder, the leaves, or the face."""
    if module in LEAVES:
        return "leaf"
    part = module.split(".")[1] if "." in module else ""
    return part if part in RANKS or part == "testing" else "face"


def imported(tree: ast.AST, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of what is imported at run time, inside functions too."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield from imported(ast.Module([other], []), known)
        elif isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = "." * child.level + (child.module or "")
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield child.lineno, full if full in known else base
        else:
            if isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
                yield from ((child.lineno, name) for name in literals(child.args))
            yield from imported(child, known)


def literals(arguments: list[ast.expr]) -> Iterator[str]:
    """The arguments that are written out as text."""
    for argument in arguments:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def faults(module: str, source: str, known: set[str]) -> Iterator[str]:
    """What is wrong with the imports of a module."""
    for line, name in imported(ast.parse(source, module), known):
        top = name.partition(".")[0]
        if name.startswith("."):
            yield f"{module}:{line}: write the import of {name} out in full"
        elif top in RANKS:
            yield f"{module}:{line}: import agentflow.{name}, not {name}"
        elif top == "agentflow" and part_of(name) != part_of(module):
            # The stand-in server lives in agentflow.testing, and the face starts it.
            served = part_of(module) == "face" and part_of(name) == "testing"
            if rank(name) >= rank(module) and not served:
                yield f"{module}:{line}: {part_of(module)} may not import {name}"


def test_imports_point_one_way(modules: dict[str, Path]) -> None:
    found = [
        fault
        for module, path in modules.items()
        for fault in faults(module, path.read_text("utf-8"), set(modules))
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("agentflow.tools.spec", "from agentflow.planner import plan"),
        ("agentflow.tools.spec", "from agentflow.budgets import ledger"),
        ("agentflow.planner.plan", "def late():\n    import agentflow.executor.driver"),
        ("agentflow.planner.plan", "from agentflow import executor"),
        ("agentflow.executor.driver", "import agentflow"),
        ("agentflow.executor.driver", "from agentflow.testing import server"),
        ("agentflow.errors", "from agentflow.tools.spec import ToolSpec"),
        ("agentflow.planner.plan", "from tools.spec import ToolSpec"),
        ("agentflow.planner.plan", "from .reader import read"),
        ("agentflow.planner.plan", "importlib.import_module('agentflow.executor')"),
        ("agentflow.tools.spec", "if TYPE_CHECKING:\n    pass\nelse:\n    import agentflow.caches"),
    ],
)
def test_an_arrow_that_points_back_is_found(module: str, source: str) -> None:
    assert len(list(faults(module, source, {"agentflow.executor"}))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("agentflow.executor.driver", "from agentflow.planner.plan import Plan"),
        ("agentflow.planner.plan", "from agentflow import errors"),
        ("agentflow.context", "from agentflow.clock import now"),
        ("agentflow.tools.spec", "if TYPE_CHECKING:\n    from agentflow.executor import driver"),
        ("agentflow.cli.main", "from agentflow.testing import ScriptedServer"),
        ("agentflow.testing.server", "import agentflow.cli.main"),
    ],
)
def test_an_arrow_that_points_forward_is_fine(module: str, source: str) -> None:
    assert not list(faults(module, source, {"agentflow.errors"}))


def test_a_plain_import_is_light() -> None:
    program = "import agentflow, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(done.stdout.split())

    assert "agentflow" in loaded
    assert not loaded & HEAVY
    assert not loaded & set(RANKS), "the parts are reached through agentflow only"
