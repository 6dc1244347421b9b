"""The pages of the documentation, and the fenced blocks on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
TUTORIAL = ROOT / "docs" / "tutorial.md"
"""Its blocks go on from each other: `test_tutorial.py` follows it."""

FENCE = re.compile(r" *(?P<marks>`{3,}|~{3,})(?P<info>[^`]*)")


@dataclass(frozen=True)
class Block:
    """A fenced block: where its text starts, what it is, and what it holds."""

    page: str
    line: int
    language: str
    flags: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def scan(page: str, markdown: str) -> tuple[str, list[Block]]:
    """What a page says outside of fenced blocks, and the blocks."""
    prose, blocks = [], []
    lines = iter(enumerate(markdown.splitlines(), 1))
    for number, line in lines:
        fence = FENCE.fullmatch(line.rstrip())
        if fence is None:
            prose.append(line)
            continue
        inside = []
        for _, line in lines:
            if line.strip() == fence["marks"]:
                break
            inside.append(line)
        language, *flags = fence["info"].split() or [""]
        text = dedent("\n".join(inside)) + "\n"
        blocks.append(Block(page, number + 1, language, tuple(flags), text))
    return "\n".join(prose), blocks
