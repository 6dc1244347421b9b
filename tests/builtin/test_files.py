"""`read_file`, `list_files` and `search_text` on a small project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agentflow.context import Context
from agentflow.tools.builtin import file_tools
from agentflow.tools.builtin.files import MAX_FILE, MAX_LINE, MAX_TEXT, FileText, Match
from agentflow.tools.builtin.globs import glob
from agentflow.tools.builtin.regex import PatternError
from agentflow.tools.builtin.root import PathNotFound, PathRefused


@pytest.fixture
def tools(folder: Path) -> Any:
    """The three functions; `list_files` and `search_text` want a context."""
    return [tool.fn for tool in file_tools(folder)]


@pytest.fixture
def read(tools: Any) -> Any:
    return tools[0]


@pytest.fixture
def listing(tools: Any) -> Any:
    return lambda *args, **kwargs: tools[1](*args, **kwargs, ctx=Context())


@pytest.fixture
def search(tools: Any) -> Any:
    return lambda *args, **kwargs: tools[2](*args, **kwargs, ctx=Context())


def test_the_tools_say_what_they_are(folder: Path) -> None:
    tools = file_tools(folder)

    assert [tool.name for tool in tools] == ["read_file", "list_files", "search_text"]
    assert {str(tool.effect) for tool in tools} == {"reads(files)"}
    assert [[p.name for p in tool.spec.parameters] for tool in tools] == [
        ["path", "start", "lines"],
        ["path", "pattern", "max_files"],
        ["pattern", "path", "max_matches", "regex", "ignore_case"],
    ]


async def test_they_are_plain_functions_outside_a_run(folder: Path) -> None:
    read_file, list_files, search_text = file_tools(folder)

    assert (await read_file("README.md", lines=1)).text == "# Title"
    assert await list_files("src") == ["src/deep/notes.txt", "src/main.py"]
    assert await search_text("hello world") == [Match("README.md", 3, "hello world")]


# read_file


def test_a_file_is_read_by_lines(read: Any) -> None:
    assert read("src/deep/notes.txt", 2, 1) == FileText(
        "src/deep/notes.txt", start=2, lines=1, total=3, text="two", truncated=True
    )
    assert read("src/deep/notes.txt", start=2) == FileText(
        "src/deep/notes.txt", start=2, lines=2, total=3, text="two\nthree", truncated=False
    )


def test_reading_past_the_end_gives_nothing(read: Any) -> None:
    past = read("README.md", start=100)

    assert (past.text, past.lines, past.total, past.truncated) == ("", 0, 3, False)


@pytest.mark.parametrize(
    ("data", "text", "total"),
    [
        (b"", "", 0),
        (b"\n", "", 1),
        (b"a\r\nb\r\n", "a\nb", 2),
        (b"no newline", "no newline", 1),
        (b"form\x0cfeed\n\xe2\x80\xa8line\n", "form\x0cfeed\n\u2028line", 2),
        (b"\xef\xbb\xbfbom\n", "bom", 1),
        ("utf-16 ü\n".encode("utf-16"), "utf-16 ü", 1),
        (b"caf\xe9\n", "caf\ufffd", 1),
    ],
)
def test_text_is_decoded_and_split_as_editors_do(
    folder: Path, read: Any, data: bytes, text: str, total: int
) -> None:
    (folder / "file").write_bytes(data)

    found = read("file")

    assert (found.text, found.total, found.binary) == (text, total, False)


def test_a_binary_file_is_named_as_such(folder: Path, read: Any) -> None:
    (folder / "image.png").write_bytes(b"\x89PNG\0\0\0")

    found = read("image.png")

    assert (found.binary, found.text, found.lines) == (True, "", 0)


def test_a_huge_file_is_read_up_to_the_limit(folder: Path, read: Any) -> None:
    with (folder / "huge.log").open("wb") as file:
        file.write(b"line\n" * 2000)  # enough to look like text
        file.truncate(2**40)  # sparse: takes no space

    found = read("huge.log", lines=10)

    assert (found.lines, found.truncated) == (10, True)
    assert found.total <= MAX_FILE


def test_a_huge_line_is_cut(folder: Path, read: Any) -> None:
    (folder / "min.js").write_text("first\n" + "x" * (2 * MAX_TEXT) + "\nlast\n")

    found = read("min.js")

    assert (len(found.text), found.lines, found.truncated) == (MAX_TEXT, 2, True)


@pytest.mark.parametrize(("start", "lines"), [(0, 1), (-1, 1), (1, 0)])
def test_lines_count_from_one(read: Any, start: int, lines: int) -> None:
    with pytest.raises(ValueError, match="count from 1"):
        read("README.md", start, lines)


def test_a_folder_is_not_read(read: Any) -> None:
    with pytest.raises(PathRefused, match="list_files"):
        read("src")


def test_what_is_outside_is_neither_read_listed_nor_searched(tools: Any) -> None:
    for path in ("../secret.txt", "..", "/etc"):
        for call in (tools[0], tools[1]):
            with pytest.raises(PathRefused):
                call(path, **({} if call is tools[0] else {"ctx": Context()}))
        with pytest.raises(PathRefused):
            tools[2]("secret", path, ctx=Context())


# list_files


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*", ["README.md", "src/deep/notes.txt", "src/main.py"]),
        ("*", ["README.md", "src/deep/notes.txt", "src/main.py"]),
        ("*.py", ["src/main.py"]),
        ("src/*", ["src/main.py"]),
        ("./src/**", ["src/deep/notes.txt", "src/main.py"]),
        ("src/**/*.txt", ["src/deep/notes.txt"]),
        ("**/*.{py,md}", ["README.md", "src/main.py"]),
        ("[!R]*", ["src/deep/notes.txt", "src/main.py"]),
        ("*.PY", []),
    ],
)
def test_files_are_listed_by_pattern(listing: Any, pattern: str, found: list[str]) -> None:
    assert listing(pattern=pattern) == found


def test_a_pattern_is_relative_to_the_folder_listed(listing: Any) -> None:
    assert listing("src", "deep/*") == ["src/deep/notes.txt"]
    assert listing("src/main.py") == ["src/main.py"]


def test_a_list_that_is_cut_says_so(tools: Any) -> None:
    said: list[Any] = []

    assert tools[1](max_files=2, ctx=Context(sink=said.append)) == [
        "README.md",
        "src/deep/notes.txt",
    ]
    assert said == [{"truncated": "more than 2 files match"}]


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/*/b", "a/x/y/b", False),
        ("a?c", "abc", True),
        ("a?c/d", "a/c/d", False),
        ("{a,b}.c", "x/b.c", True),
        ("a,b", "a,b", True),
        ("a}b", "a}b", True),
        ("a[!b]c", "a/c", False),
        ("a[{]b", "a{b", True),
        ("a.b", "axb", False),
        ("[]x]", "]", True),
        ("[a-c]1", "b1", True),
        ("(a|b)*+", "(a|b)+", True),
    ],
)
def test_globs(pattern: str, path: str, matches: bool) -> None:
    assert glob(pattern)(path) is matches


def test_a_glob_full_of_stars_is_not_slow() -> None:
    assert not glob("**/" * 20 + "*a" * 50 + "b")("a" * 5000)


# search_text


def test_text_is_found_with_its_line(search: Any) -> None:
    assert search("hello") == [
        Match("README.md", 3, "hello world"),
        Match("src/main.py", 5, "print('Hello')"),
    ]
    assert search("hello", ignore_case=False) == [Match("README.md", 3, "hello world")]
    assert search("one", "src/deep") == [Match("src/deep/notes.txt", 1, "one")]
    assert search("import", "src/main.py") == [Match("src/main.py", 1, "import os")]
    assert search("(") == [
        Match("src/main.py", 4, "def main():"),
        Match("src/main.py", 5, "print('Hello')"),
    ]


def test_a_regular_expression_is_found(search: Any) -> None:
    assert search(r"^def \w+\(", regex=True) == [Match("src/main.py", 4, "def main():")]
    assert search("^(one|TWO)$", regex=True) == [
        Match("src/deep/notes.txt", 1, "one"),
        Match("src/deep/notes.txt", 2, "two"),
    ]


def test_a_search_that_is_cut_says_so(tools: Any) -> None:
    said: list[Any] = []

    found = tools[2]("o", max_matches=2, ctx=Context(sink=said.append))

    assert len(found) == 2
    assert said == [{"truncated": "more than 2 lines match"}]


def test_a_search_that_finds_exactly_the_limit_is_not_cut(tools: Any) -> None:
    said: list[Any] = []

    assert len(tools[2]("hello", max_matches=2, ctx=Context(sink=said.append))) == 2
    assert said == []


def test_a_long_line_is_cut(folder: Path, search: Any) -> None:
    (folder / "min.js").write_text("needle" + "x" * 10_000)

    [found] = search("needle")

    assert (len(found.text), found.text[-1]) == (MAX_LINE, "…")


def test_binary_huge_and_unreadable_files_are_passed_over(folder: Path, search: Any) -> None:
    (folder / "binary").write_bytes(b"needle\0")
    with (folder / "huge").open("wb") as file:
        file.write(b"needle\n")
        file.truncate(2**40)
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("../secret.txt")

    assert search("needle") == []
    assert search("secret") == []


def test_an_evil_pattern_is_not_slow(folder: Path, search: Any) -> None:
    (folder / "a.txt").write_text("a" * 20_000 + "b\n")

    assert search(r"(a+)+$", "a.txt", regex=True) == []
    assert search(r"(a|aa)*c", "a.txt", regex=True) == []


@pytest.mark.parametrize(("pattern", "regex"), [("", False), ("", True), ("(", True)])
def test_a_bad_pattern_is_an_error(search: Any, pattern: str, regex: bool) -> None:
    with pytest.raises(ValueError, match="pattern"):
        search(pattern, regex=regex)


def test_a_missing_folder_is_an_error(search: Any, listing: Any) -> None:
    with pytest.raises(PathNotFound, match="Did you mean 'src'"):
        search("x", "srk")
    with pytest.raises(PathNotFound, match="Did you mean 'src'"):
        listing("srk")


@pytest.mark.parametrize(("pattern", "at"), [("a/[z-a]", 2), ("a/{b,c", 2)])
def test_an_error_in_a_file_pattern_says_where(pattern: str, at: int) -> None:
    with pytest.raises(PatternError) as wrong:
        glob(pattern)

    assert wrong.value.at == at
