"""Whoever follows the tutorial sees what it shows.

A ``python`` block is a file, named in its first line. A ``console`` block has commands (``$``),
each with what it prints. Times, amounts of money and ids of runs may be others, and what is
logged depends on the machine; a line ``...`` stands for lines that are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.packaging.pages import TUTORIAL, scan

NAME = re.compile(r"# (\w+\.py)\n")
LOGGED = re.compile(r"^(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d \[.*\n", re.MULTILINE)
RUN = re.compile(r"\b[0-9a-f]{8}-\d+\b")
VARIES = re.compile(r"(?<=\$)\d+\.\d+|\d+(\.\d+)? ?m?s\b")


@dataclass
class Reader:
    """Somebody who saves files in a folder and types commands there.

    Attributes:
        folder: Where.
        env: The environment of the commands.
        runs: The ids of runs, by those that the page has.
    """

    folder: Path
    env: dict[str, str]
    runs: dict[str, str] = field(default_factory=dict)

    def save(self, text: str) -> None:
        """Save a block as the file that it names."""
        name = NAME.match(text)
        assert name is not None, f"no file is named in the first line of:\n{text}"
        (self.folder / name[1]).write_text(text, "utf-8")

    def type(self, command: str) -> str:
        """What a command prints; ids of runs are replaced by their own."""
        done = subprocess.run(
            ["bash", "-c", RUN.sub(lambda match: self.runs[match[0]], command)],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    def sees(self, shown: str, printed: str) -> bool:
        """Whether that was printed, and from now on which runs the page speaks of."""
        parts = [re.escape(steady(part)) for part in shown.split("...\n")]
        seen = re.fullmatch("(.*\n)*?".join(parts), steady(printed)) is not None
        if seen:
            self.runs |= zip(RUN.findall(shown), RUN.findall(printed), strict=False)
        return seen


def steady(text: str) -> str:
    """A text without what is another one each time."""
    return VARIES.sub("#", RUN.sub("ID", LOGGED.sub("", text)))


def transcript(text: str) -> list[tuple[str, str]]:
    """Each command of a block, and what it is said to print."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


def test_the_tutorial_goes_as_it_says(tmp_path: Path, checkout: Path, shell_path: str) -> None:
    env = {**os.environ, "PATH": shell_path, "PYTHONPATH": str(checkout)}
    reader = Reader(tmp_path / "desk", env)
    reader.folder.mkdir()
    for block in scan("docs/tutorial.md", TUTORIAL.read_text("utf-8"))[1]:
        if block.language == "python":
            reader.save(block.text)
        for command, shown in transcript(block.text) if block.language == "console" else ():
            printed = reader.type(command)
            assert reader.sees(shown, printed), f"{block}: $ {command}\n{printed}"


@pytest.mark.parametrize(
    ("printed", "sees"),
    [
        ("done in 1.5 s, $0.03\nto go on: resume 0123abcd-2\n", True),
        ("done in 1.5 s, $0.03\na\nb\nto go on: resume 0123abcd-2\n", True),
        ("12:30:00 [info     ] x\ndone in 1.5 s, $0.03\nto go on: resume 0123abcd-2\n", True),
        ("done in 1.5 s, $0.03\nto go on: resume\n", False),
        ("done in 1.5 s, $0.03\nto go on: resume 0123abcd-2\nand more\n", False),
    ],
)
def test_what_varies_may_be_another_and_all_else_has_to_be_the_same(
    printed: str, sees: bool
) -> None:
    reader = Reader(Path(), {})

    assert reader.sees("done in 99 ms, $1.2\n...\nto go on: resume 89abcdef-1\n", printed) is sees
    assert reader.runs == ({"89abcdef-1": "0123abcd-2"} if sees else {})


def test_a_transcript_is_commands_and_what_they_print() -> None:
    assert transcript("$ one\na\nb\n$ two\n") == [("one", "a\nb\n"), ("two", "")]
