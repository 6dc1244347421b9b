"""The documentation runs: its Python, its commands, its data and its links.

In README.md, CONTRIBUTING.md, CHANGELOG.md, SECURITY.md and docs/*.md:

* a ``python`` block runs in a fresh namespace (top-level ``await`` is allowed);
* in a ``console``, ``sh`` or ``bash`` block, the lines ``$ agentflow ...`` and
  ``$ python examples/...`` run, in order, in a copy of the checkout;
* ``toml``, ``json`` and ``jsonl`` blocks parse;
* relative links lead to a file, and to a heading where they name one.

``not-run`` after the language leaves a block out (Python must still compile); any other
language, such as ``text``, is left alone. The blocks of docs/tutorial.md go on from each other:
`test_tutorial.py` follows that page.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.pages import PAGES, ROOT, TUTORIAL, Block, scan

SHELLS = {"console", "sh", "bash", "shell"}
COMMAND = re.compile(r"\$ ((?:agentflow|python3? examples/).*)")
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]: +(\S+)", re.MULTILINE)


def anchors(markdown: str) -> set[str]:
    """The names under which the headings of a page can be linked."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *#*$", scan("", markdown)[0], re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = next(n for n in range(len(found) + 1) if numbered(slug, n) not in found)
        found.add(numbered(slug, number))
    return found


def numbered(slug: str, number: int) -> str:
    """The slug of a heading that occurs for the (number + 1)-th time."""
    return f"{slug}-{number}" if number else slug


def commands(text: str) -> list[str]:
    """The command lines of a block that can be run here, continued lines joined."""
    return [
        match[1]
        for line in text.replace("\\\n", " ").splitlines()
        if (match := COMMAND.fullmatch(line.strip()))
    ]


def all_blocks(*languages: str) -> list[Any]:
    """Every block in one of the languages, as parameters of a test."""
    return [
        pytest.param(block, id=str(block))
        for page in PAGES
        if page != TUTORIAL
        for block in scan(page.relative_to(ROOT).as_posix(), page.read_text("utf-8"))[1]
        if block.language in languages
    ]


@pytest.mark.parametrize("block", all_blocks("python"))
def test_python_runs(block: Block, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's line
    code = compile(source, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if "not-run" in block.flags:
        return
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where annotations are looked up
    result = eval(code, module.__dict__)
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("block", all_blocks(*SHELLS))
def test_commands_run(block: Block, checkout: Path, shell_path: str) -> None:
    for command in () if "not-run" in block.flags else commands(block.text):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env={**os.environ, "PATH": shell_path, "PYTHONPATH": str(checkout)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", all_blocks("toml", "json", "jsonl"))
def test_data_parses(block: Block) -> None:
    if block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    else:
        assert all(json.loads(line) is not None for line in block.text.splitlines())


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_relative_links_lead_somewhere(page: Path) -> None:
    prose, _ = scan(page.name, page.read_text("utf-8"))
    for match in LINK.finditer(re.sub(r"`[^`\n]*`", "", prose)):
        target, _, anchor = (match[1] or match[2]).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text("utf-8")), f"{page.name}: no #{anchor}"


def test_blocks_know_their_line_language_and_flags() -> None:
    page = "a\n\n```python not-run\nx = 1\n```\n\n- item\n  ~~~text\n  y\n  ~~~\nb"

    prose, blocks = scan("p.md", page)

    assert prose == "a\n\n\n- item\nb"
    assert blocks == [
        Block("p.md", 4, "python", ("not-run",), "x = 1\n"),
        Block("p.md", 9, "text", (), "y\n"),
    ]


def test_only_our_own_commands_are_run() -> None:
    text = "$ make demo\n$ agentflow run \\\n  plan.txt\noutput\n$ python examples/first.py\n"

    assert commands(text) == ["agentflow run    plan.txt", "python examples/first.py"]


def test_repeated_headings_get_numbered_anchors() -> None:
    assert anchors("# Say `what`, now\n## Why\n## Why\n") == {"say-what-now", "why", "why-1"}
