"""`read_file`, `list_files` and `search_text`: looking at the files below one folder."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from agentflow.context import Context
from agentflow.tools.builtin.files_write import write_tool
from agentflow.tools.builtin.globs import glob
from agentflow.tools.builtin.patterns import Search
from agentflow.tools.builtin.root import Entry, PathRefused, Root
from agentflow.tools.tool import Tool, tool

MAX_FILE = 4 * 2**20
"""Bytes of a file that are looked at."""

MAX_SEARCH = 256 * 2**20
"""Bytes that one search looks at."""

MAX_TEXT = 100_000
"""Characters that `read_file` gives at once."""

MAX_LINE = 300
"""Characters of a matching line that `search_text` gives."""

_PROBE = 8192  # bytes in which a NUL marks a binary file, as in git
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class FileText:
    """Lines of a file.

    Attributes:
        path: Relative to the root, links resolved.
        start: Number of the first line given; the first line of a file is 1.
        lines: How many lines are given.
        total: Lines of the file (of its first 4 MiB, if it is larger).
        text: The lines, joined by newlines; empty for a binary file.
        truncated: Whether lines follow that were not given.
        binary: Whether the file is not text.
    """

    path: str
    start: int
    lines: int
    total: int
    text: str
    truncated: bool
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A line that matches: its file, its number (from 1) and its text, cut if very long."""

    file: str
    line: int
    text: str


class Matcher(Protocol):
    """What a search looks for."""

    def may_match(self, text: str) -> bool:
        """False only if no line of the text can match."""
        ...

    def matches(self, line: str) -> bool:
        """Whether the line matches."""
        ...


class Literal:
    """A plain text to look for."""

    def __init__(self, text: str, *, ignore_case: bool) -> None:
        self._fold: Callable[[str], str] = str.casefold if ignore_case else str
        self._text = self._fold(text)

    def may_match(self, text: str) -> bool:
        """Whether it is in the text."""
        return self._text in self._fold(text)

    matches = may_match


def file_tools(root: str | os.PathLike[str], *, write: bool = False) -> tuple[Tool[..., Any], ...]:
    """`read_file`, `list_files` and `search_text` for one folder; nothing outside it is reached.

    Args:
        root: The folder.
        write: Whether `write_file` is among them.

    Raises:
        DefinitionError: It is no folder.
    """
    folder = Root(root)

    @tool(reads="files", timeout="30s")
    def read_file(path: str, start: int = 1, lines: int = 200) -> FileText:
        """Read lines of a text file, from line number `start` on."""
        return read(folder, path, start, lines)

    @tool(reads="files", timeout="30s")
    def list_files(
        path: str = ".", pattern: str = "**/*", max_files: int = 1000, *, ctx: Context
    ) -> list[str]:
        """List the files below a folder that match a pattern such as `*.py` or `src/**/*.md`."""
        found, cut = listed(folder, path, pattern, max_files)
        if cut:
            ctx.emit({"truncated": f"more than {max_files} files match"})
        return found

    @tool(reads="files", timeout="60s")
    def search_text(
        pattern: str,
        path: str = ".",
        max_matches: int = 50,
        regex: bool = False,
        ignore_case: bool = True,
        *,
        ctx: Context,
    ) -> list[Match]:
        """Find lines that contain a text (or match a regular expression) in the files of a folder.

        Exactly `max_matches` lines means that there may be more.
        """
        found, cut = search(folder, matcher(pattern, regex, ignore_case), path, max_matches)
        if cut:
            ctx.emit({"truncated": cut})
        return found

    tools = read_file, list_files, search_text
    return (*tools, write_tool(folder)) if write else tools


def read(root: Root, path: str, start: int, lines: int) -> FileText:
    """Lines `start` to `start + lines - 1` of a file.

    Raises:
        PathRefused: It leads out of the root, or is no regular file.
        PathNotFound: Nothing is there.
        ValueError: `start` or `lines` is smaller than 1.
    """
    if start < 1 or lines < 1:
        raise ValueError(f"start and lines count from 1, not start={start}, lines={lines}")
    with root.open(path) as entry:
        if entry.folder:
            raise PathRefused(f"{path!r} is a folder: list_files shows what is in it")
        data = _read(entry.fd, MAX_FILE + 1)
    text = decode(data[:MAX_FILE])
    if text is None:
        return FileText(entry.path, start, 0, 0, "", truncated=False, binary=True)
    every = split(text)
    chosen = every[start - 1 : start - 1 + lines]
    given = "\n".join(chosen)
    shown = len(chosen) if len(given) <= MAX_TEXT else given.count("\n", 0, MAX_TEXT) + 1
    more = len(data) > MAX_FILE or len(given) > MAX_TEXT or start - 1 + shown < len(every)
    return FileText(entry.path, start, shown, len(every), given[:MAX_TEXT], truncated=more)


def listed(root: Root, path: str, pattern: str, max_files: int) -> tuple[list[str], bool]:
    """Paths below `path` that match, and whether there were more than `max_files`.

    Raises:
        PathRefused, PathNotFound: As in `read`.
        PatternError: The pattern cannot be read.
    """
    wanted = glob(pattern)
    found: list[str] = []
    with root.open(path) as start, closing(_files(root, start)) as files:
        prefix = 0 if start.path == "." or not start.folder else len(start.path) + 1
        for entry in files:
            if not start.folder or wanted(entry.path[prefix:]):
                if len(found) >= max_files:
                    return found, True
                found.append(entry.path)
    return found, False


def matcher(pattern: str, regex: bool, ignore_case: bool) -> Matcher:
    """What looks for a pattern.

    Raises:
        PatternError: The regular expression cannot be read.
        ValueError: The pattern is empty.
    """
    if not pattern:
        raise ValueError("the pattern is empty: write the text to look for")
    if regex:
        return Search(pattern, ignore_case=ignore_case)
    return Literal(pattern, ignore_case=ignore_case)


def search(
    root: Root, wanted: Matcher, path: str, max_matches: int
) -> tuple[list[Match], str | None]:
    """Matching lines of all files below `path`, in order, and why the search was cut, if it was.

    Raises:
        PathRefused, PathNotFound: As in `read`.
        PatternTooCostly: The pattern meets too many situations in these files.
    """
    found: list[Match] = []
    looked_at = 0
    with root.open(path) as start, closing(_files(root, start)) as files:
        for entry in files:
            data = _contents(root, start, entry)
            looked_at += len(data)
            for match in _in_file(entry.path, data, wanted):
                if len(found) >= max_matches:
                    return found, f"more than {max_matches} lines match"
                found.append(match)
            if looked_at > MAX_SEARCH:
                return found, f"stopped in {entry.path} after {MAX_SEARCH} bytes"
    return found, None


def decode(data: bytes) -> str | None:
    """Text of a file, or None if it is binary; what is not UTF-8 becomes U+FFFD."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding, "replace")
    if b"\0" in data[:_PROBE]:
        return None
    return data.decode("utf-8", "replace")


def split(text: str) -> list[str]:
    """The lines, as editors count them: only newlines separate."""
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _files(root: Root, start: Entry) -> Generator[Entry, None, None]:
    if start.folder:
        yield from root.files(start)
    else:
        yield start


def _contents(root: Root, start: Entry, entry: Entry) -> bytes:
    """The file's bytes; nothing of one that is too large or cannot be opened."""
    fd = os.dup(entry.fd) if entry is start else root.open_file(entry)
    if fd is None:
        return b""
    try:
        return _read(fd, MAX_FILE) if os.fstat(fd).st_size <= MAX_FILE else b""
    finally:
        os.close(fd)


def _in_file(path: str, data: bytes, wanted: Matcher) -> Iterator[Match]:
    text = decode(data)
    if text and wanted.may_match(text):
        for number, line in enumerate(split(text), start=1):
            if wanted.matches(line):
                short = line.strip()
                yield Match(path, number, short if len(short) <= MAX_LINE else _cut(short))


def _cut(line: str) -> str:
    return line[: MAX_LINE - 1] + "…"


def _read(fd: int, limit: int) -> bytes:
    """At most `limit` bytes, fewer only at the end of the file."""
    parts = []
    while limit > 0 and (part := os.read(fd, min(limit, 2**20))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)
