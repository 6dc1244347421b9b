"""Which imports of a program can be made before the program is there."""

from __future__ import annotations

import pytest

from agentflow.tools.builtin.python_imports import OpeningImports


def imports(program: str) -> list[tuple[str, list[str]]]:
    """What is known to be imported first when a program has been written."""
    opening = OpeningImports()
    return [found for piece in program for found in opening.feed(piece)]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import json\n", [("json", [])]),
        ("import json", []),
        ("import a.b as c, d\n", [("a.b", []), ("d", [])]),
        ("from a.b import c as d, e\n", [("a.b", ["c", "e"])]),
        ("from a import (\n    b,  # the first\n)\n", [("a", ["b"])]),
        ("from a import *\n", [("a", ["*"])]),
        ("import a; import b\n", [("a", []), ("b", [])]),
        ("import größe\n", [("größe", [])]),
        ("#!/bin/python\n'''Doc.\nimport a\n'''\n\nimport b\n", [("b", [])]),
        ("from __future__ import annotations\nimport a\n", [("__future__", ["annotations"])]),
    ],
)
def test_imports_at_the_beginning_are_found(
    program: str, expected: list[tuple[str, list[str]]]
) -> None:
    assert imports(program)[: len(expected)] == expected
    assert len(imports(program)) == len(expected) + ("__future__" in program)


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.environ['A'] = 'b'\nimport json\n",
        "import os\nimport a; a.use()\nimport json\n",
        "import os\nif os:\n    import json\nimport a\n",
        "import os\ntry:\n    import json\nexcept ImportError:\n    pass\nimport a\n",
        "import os\nf'{os}'\nimport json\n",
        "import os\nimport (\nimport json\n",
        "import os\nfrom . import a\nimport json\n",
        "import os\nfrom .a import b\nimport json\n",
    ],
)
def test_imports_behind_anything_else_are_left_to_the_program(program: str) -> None:
    assert imports(program) == [("os", [])]


@pytest.mark.parametrize(
    "acting",
    [
        "import this",
        "import antigravity",
        "import tkinter.ttk",
        "from turtle import *",
        "import idlelib",
        "import __main__",
        "import json, this",
    ],
)
def test_modules_that_act_when_imported_are_left_to_the_program(acting: str) -> None:
    assert imports(f"import os\n{acting}\nimport a\n") == [("os", [])]
