"""Splitting a program into statements while it is written."""

from __future__ import annotations

import ast
import random
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.tools.builtin import statements as module
from agentflow.tools.builtin.statements import Statement, Statements

LIBRARY = Path(sysconfig.get_path("stdlib"))


def split(pieces: Iterable[str]) -> list[Statement]:
    statements = Statements()
    found = [statement for piece in pieces for statement in statements.feed(piece)]
    return found + statements.finish()


def texts(program: str) -> list[str]:
    return [statement.text for statement in split([program])]


def cut(program: str, seed: int, longest: int = 30) -> Iterator[str]:
    """The program in pieces of random lengths."""
    chance, place = random.Random(seed), 0
    while place < len(program):
        end = place + chance.randint(1, longest)
        yield program[place:end]
        place = end


@pytest.mark.parametrize(
    "parts",
    [
        ["x = 1\n", "y = 2\n"],
        ["x = 1\n", "y = 2"],
        ["import os; x = 1\n", "y = (\n1,\n2)\n", "z = 3\n"],
        ["if a:\n    b\nelif c:\n    d\nelse:\n    e\n", "f\n"],
        ["try:\n    a\nexcept B:\n    c\nelse:\n    d\nfinally:\n    e\n", "f\n"],
        ["if a: b\nelse: c\n", "elsewhere = 1\n", "exceptional(1)\n"],
        ["match x:\n    case 1:\n        y\n", "match = 1\n", "case = 2\n", "z\n"],
        ["@a\n\n# b\n@c(\n1)\ndef f():\n    pass\n\n# after\n", "@d\nclass E: pass\n", "f()\n"],
        ["#!/bin/python\n# -*- coding: utf-8 -*-\n\n'doc'\n", "\n# about x\nx = 1\n", "\n# end\n"],
        ["x = '''\nimport a\n'''\n", "y = '\\\nz = 1'\n", 'z = "\'" # \' """\n', "w\n"],
        ["x = r'\\'' + r\"\\\\\"\n", "y = rb'''\\'''y'''\n", "z = f'{x!r:>{y}}'\n", "w\n"],
        ["x = 1 + \\\n2\n", "y = [  # (\n# ]\n3]\n", "async def f():\n  pass\n", "z\n"],
        ["with a:\n    x = '''\nnot indented\n'''\n    y\n", "z\n"],
        ["x = 1\r\n", "if x:\r\n    y = '\\\r\n'\r\n", "z = 1 + \\\r\n2\r\n", "w"],
        ["if x:\n    y\n\t\n  # z\n", "w = 1\n"],
        ["while a:\n    b\n", "(c)\n", "for d in e: f\n", "'g'\n", "[h]\n"],
        ["x = 'ü\N{GRINNING FACE}'\n", "größe = 1\n", "if größe:\n    y\n", "é = 1\n"],
        ["print('\\d')\n", "x = f'\\N{EM DASH}'\n", "y = f'\\{x}'\n", "z\n"],
        [],
    ],
)
def test_a_statement_is_whole_and_alone(parts: list[str]) -> None:
    assert texts("".join(parts)) == parts


@pytest.mark.parametrize(
    ("pieces", "complete"),
    [
        (["import json"], 0),
        (["import json", "\n"], 1),
        (["import (", "\n"], 0),
        (["if a:\n    b\n", "\n# still\n"], 0),
        (["if a:\n    b\n", "e"], 0),
        (["if a:\n    b\n", "else"], 0),
        (["if a:\n    b\n", "elsew"], 0),
        (["if a:\n    b\n", "elsewhere"], 1),
        (["if a:\n    b\n", "x ="], 1),
        (["if a:\n    b\n", "("], 1),
        (["if a:\n    b\n", "'"], 1),
        (["@a\n", "d", "ef f(): pass\n"], 0),
    ],
)
def test_a_statement_is_given_as_soon_as_it_cannot_go_on(pieces: list[str], complete: int) -> None:
    statements = Statements()

    assert sum(len(statements.feed(piece)) for piece in pieces) == complete


def test_a_statement_knows_its_line_and_what_it_is() -> None:
    found = split(["import a\n\n\nif b:\r\n    c\r\n", "import d; e\rf = '''\n\n'''\n", "g"])

    assert [statement.line for statement in found] == [1, 2, 6, 10]
    assert [[type(node).__name__ for node in statement.body] for statement in found] == [
        ["Import"],
        ["If"],
        ["Import", "Expr", "Assign"],
        ["Expr"],
    ]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (["x = 1\n"], "y = )\nz = 1\nw = 2\n"),
        (["x = 1\n"], "  y = 1\nz = 1\n"),
        (["x\n"], "else:\n    y\nz = 1\nw = 2"),
        (["x\n"], "@a\ny = 1\nz = 1\n"),
        (["x\n"], "y = '\nz = 1\nw = 1\n"),
        (["x\n"], "y = \0\nz = 1\n"),
        (["x\n"], "y = '\ud800'\nz = 1\n"),
        (["x\n"], "y = " + "-" * 10**5 + "1\nz = 1\n"),
        (["x\n"], "y = " + "(" * 300 + ")" * 300 + "\nz = 1\n"),
        (["x\n"], "if a:\n    b(\nc\n"),
        (["x\n"], "if a:\n    b b\nccc = 1\nd = 2\n"),
        ([], "%magic\nx = 1\n"),
        ([], "x = '''\ny = 1\n"),
    ],
)
def test_what_follows_an_error_stays_in_one_piece(good: list[str], bad: str) -> None:
    program = "".join(good) + bad

    assert texts(program) == [*good, bad]
    assert split([program])[-1].body == []
    assert split(program) == split(cut(program, 1)) == split([program])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="quotes did not nest in f-strings")
def test_quotes_nest_in_f_strings() -> None:
    parts = ["x = f'{\"'\"}' + f'{y['z']}'\n", "w\n"]

    assert texts("".join(parts)) == parts


def some_files() -> list[Path]:
    files = [path for path in LIBRARY.rglob("*.py") if "site-packages" not in path.parts]
    return random.Random(4).sample(sorted(files), 60)


def outline(body: Iterable[ast.stmt], shift: int = 0) -> list[tuple[str, int, int]]:
    """What there is on which lines; strings may differ, escapes are hidden from the parser."""
    return [
        (type(node).__name__, node.lineno + shift, (node.end_lineno or 0) + shift)
        for child in body
        for node in ast.walk(child)
        if isinstance(node, ast.stmt)
    ]


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_the_standard_library_falls_into_its_statements() -> None:
    for path in some_files():
        program = path.read_bytes().decode("utf-8", "replace")
        found = split(cut(program, seed=len(program)))

        assert "".join(statement.text for statement in found) == program, path
        assert found == split([program])
        try:
            whole = ast.parse(program)
        except (SyntaxError, ValueError):  # there to be refused
            continue
        pieces = [outline(statement.body, statement.line - 1) for statement in found]
        assert [line for piece in pieces for line in piece] == outline(whole.body), path
        assert len([piece for piece in pieces if piece]) == len({n.lineno for n in whole.body}), (
            path
        )


FRAGMENTS = [
    "import math\n",
    "from math import (\n    pi,\n    e,\n)\n",
    "n = len(told) + 1\n",
    "told.append('''a\nif b:\n''')\n",
    "told.append(f'{n:>{4}} \\N{EM DASH} {\"a\" * 2}')\n",
    "told.append(r'\\\\' + \"'#(\")  # '''(\n",
    "for i in range(3):\n    n = i\n\n    if n % 2:\n        continue\nelse:\n    n = 0\n",
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    told.append('e')\nfinally:\n    n = 3\n",
    "\n# a comment: '\n\n",
    "def keep(f):\n    told.append(f)\n\n@keep\n# why\ndef g(): return told\n",
    "match told:\n    case []:\n        n = 1\n    case [x, *_]:\n        n = 2\n",
    "n = 1 + \\\n2; m = [\n{'a': (\n)}]\n",
    "class A:\n    '''Not a doc\nstring.'''\n    x: int = 1\n",
    "with open(__file__) as f: pass\n",
    "'a string'\n",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), st.integers(0, 2**32))
def test_running_the_pieces_is_running_the_program(program: str, seed: int) -> None:
    found = split(cut(program, seed))

    assert "".join(statement.text for statement in found) == program
    assert found == split([program])
    assert told_by([statement.text for statement in found]) == told_by([program])


def told_by(programs: Iterable[str]) -> tuple[list[str], list[str], str]:
    """What programs that share one namespace tell and leave in it, and how they fail."""
    told: list[Any] = []
    names: dict[str, Any] = {"__file__": __file__, "told": told}
    error = ""
    try:
        for program in programs:
            exec(compile(program, "program", "exec"), names)  # noqa: S102  # our own programs
    except NameError as raised:
        error = str(raised)
    left = sorted(name for name in names if not name.startswith("__"))
    return [re.sub("0x.*", "", str(item)) for item in told], left, error


def work(program: str, size: int) -> int:
    """Calls of functions, and characters handed to those that read their text."""
    readers, count = ("feed", "_add", "_scan", "_parse"), 0

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        if event == "call" and frame.f_code.co_filename == module.__file__:
            texts = (frame.f_locals.get(name, "") for name in ("text", "line"))
            count += 1 + sum(map(len, texts)) * (frame.f_code.co_name in readers)

    sys.setprofile(watch)
    try:
        split(program[place : place + size] for place in range(0, len(program), size))
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("size", [1, 16, 10**6])
@pytest.mark.parametrize(
    "repeated",
    [
        "x = 1\n",
        "a",
        "'a', ",
        "if x:\n    y\nelse:\n    z\n",
        "# comment\n",
        "@a\ndef b(): c\n",
        "'''",
        "(\n",
        "\\\n",
        "\n",
        "\r",
        "x = )\n",
        "if x:\n    y y\n",
    ],
)
def test_work_grows_as_the_program_does(repeated: str, size: int) -> None:
    few, many = (work(repeated * count, size) for count in (200, 1600))

    assert len(repeated) * 1600 < many < 8.5 * few
