"""Rules of the house that ruff does not know."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_LINES = 400
FUNCTION_LINES = 50
FOLDERS = (
    "agentflow", "budgets", "caches", "executor", "planner", "tools", "benchmarks", "examples",
)  # fmt: skip

LONG: dict[str, str] = {}
"""Files, or ``file:function``, that may be longer, each with its reason."""

SLEEPS: dict[str, str] = {}
"""Test files that may sleep on the real clock, each with its reason."""

MACHINE_PATH = re.compile(r"(?<![\w.:/}-])/(?:home|root|work|Users)/\w")

SILENCED = re.compile(
    r"# (?:type: ignore\b(?:\[[\w, -]+\])?|noqa\b(?:: *[A-Z]+\d+(?:, *[A-Z]+\d+)*)?)(.*)"
)

# CPython before 3.11.5 loses the place of a group that is not given back.
NEVER_GIVEN_BACK = re.compile(r"\)(?:[*+?]|\{[0-9,]+\})\+|\(\?>")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(root: Path, *folders: str) -> Iterator[Path]:
    """The Python files of some folders, each once (links are not entered)."""
    for folder in folders:
        yield from (root / folder).rglob("*.py")


def functions(source: str) -> Iterator[tuple[Function, int]]:
    """The functions of a module, and how many lines each has without its docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            documented = ast.get_docstring(node, clean=False) is not None
            yield node, height(node) - (height(node.body[0]) if documented else 0)


def height(node: ast.stmt) -> int:
    """How many lines a statement takes."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def mentions_virtual(path: Path) -> bool:
    """Whether a test file, or the conftest beside it, runs on a virtual clock."""
    near = [path, path.with_name("conftest.py")]
    return any("virtual" in file.read_text("utf-8").lower() for file in near if file.exists())


def sleeps(source: str) -> Iterator[int]:
    """Lines that sleep for longer than ``sleep(0)``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".sleep"):
            if ast.unparse(node.func) not in {"time.sleep", "asyncio.sleep", "anyio.sleep"}:
                continue
            if not (node.args and ast.unparse(node.args[0]) == "0"):
                yield node.lineno


def unreasoned(source: str) -> Iterator[int]:
    """Lines that silence a checker and do not say why."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        silenced = SILENCED.match(token.string) if token.type == tokenize.COMMENT else None
        if silenced and not re.search(r"\w", silenced[1]):
            yield token.start[0]


def groups_never_given_back(source: str) -> Iterator[int]:
    """Lines with a text that holds a possessive or atomic group."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if NEVER_GIVEN_BACK.search(node.value):
            yield node.lineno


def test_no_file_outgrows_a_sitting(root: Path) -> None:
    lines = {
        path.relative_to(root).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in python_files(root, *FOLDERS)
    }

    assert {name: n for name, n in lines.items() if n > FILE_LINES and name not in LONG} == {}


def test_no_function_outgrows_a_screen(root: Path) -> None:
    lines = {
        f"{path.relative_to(root).as_posix()}:{function.name}": n
        for path in python_files(root, *FOLDERS)
        for function, n in functions(path.read_text("utf-8"))
    }

    assert {name: n for name, n in lines.items() if n > FUNCTION_LINES and name not in LONG} == {}


def test_the_length_of_a_function_leaves_out_its_docstring() -> None:
    [(function, n)] = functions(
        'def add(a, b):\n    """Add.\n\n    Numbers.\n    """\n    return a'
    )

    assert (function.name, n) == ("add", 2)


def test_tests_do_not_sleep_on_the_real_clock(root: Path) -> None:
    found = [
        f"{path.relative_to(root)}:{line}"
        for path in python_files(root, "tests")
        if not mentions_virtual(path) and path.relative_to(root).as_posix() not in SLEEPS
        for line in sleeps(path.read_text("utf-8"))
    ]

    assert not found, f"force the order by events, or use the virtual loop: {found}"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("await asyncio.sleep(0)", []),
        ("await asyncio.sleep(0.01)", [1]),
        ("pass\ntime.sleep(delay)", [2]),
        ("await clock.sleep(3)", []),
    ],
)
def test_a_sleep_is_found(source: str, lines: list[int]) -> None:
    assert list(sleeps(source)) == lines


def test_what_silences_a_checker_says_why(root: Path) -> None:
    found = [
        f"{path.relative_to(root)}:{line}"
        for path in python_files(root, *FOLDERS, "tests")
        if path.relative_to(root).parts != ("tests", "typing", "api.py")  # where errors are meant
        for line in unreasoned(path.read_text("utf-8"))
    ]

    assert not found


@pytest.mark.parametrize(
    ("comment", "lines"),
    [
        ("# type: ignore[misc]", [1]),
        ("# type: ignore", [1]),
        ("# noqa: B018, RUF001", [1]),
        ("# type: ignore[misc, arg-type]  # frozen", []),
        ("# noqa: B018  # read for its effect", []),
    ],
)
def test_a_silenced_checker_is_found(comment: str, lines: list[int]) -> None:
    assert list(unreasoned(f"x = 1  {comment}\n")) == lines


def test_patterns_have_no_group_that_is_not_given_back(root: Path) -> None:
    found = [
        f"{path.relative_to(root)}:{line}"
        for path in python_files(root, *FOLDERS)
        for line in groups_never_given_back(path.read_text("utf-8"))
    ]

    assert not found, f"CPython 3.11.0 to 3.11.4 match them wrongly: {found}"


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [("(?:ab)*+", [1]), ("(a|b)?+", [1]), ("(?:a){1,2}+", [1]), ("(?>a)", [1]), ("[ab]*+(c)*", [])],
)
def test_a_group_that_is_not_given_back_is_found(pattern: str, lines: list[int]) -> None:
    assert list(groups_never_given_back(f"re.compile({pattern!r})")) == lines


def test_no_tracked_file_names_a_path_of_one_machine(root: Path) -> None:
    if not (root / ".git").exists():
        pytest.skip("only a checkout knows its tracked files")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = root / name
        if path.is_file() and not path.is_symlink():
            text = path.read_text("utf-8", errors="replace")
            found += [f"{name}: {match[0]}" for match in MACHINE_PATH.finditer(text)]

    assert not found
