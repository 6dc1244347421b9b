"""A folder that nothing opened through it can leave.

Every component of a path is opened by itself, relative to the descriptor of the one before
and never through a link; a link is read and its target walked the same way. So nothing that
is swapped in between two steps can lead outside, and ``..`` goes back along our own descriptors.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from agentflow.errors import AgentflowError, DefinitionError
from agentflow.wording import nearest

MAX_LINKS = 40
"""Links followed for one path, as in Linux."""

MAX_DEPTH = 64
"""Folders inside each other that are visited; each takes a descriptor."""

HISTORIES = frozenset({".git", ".hg", ".svn"})
"""What lies in there is run, as hooks and by settings: nothing is written to it."""

SKIPPED = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox"}
    | {".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".eggs", ".cache"}
)
"""Folders never walked: histories, environments and caches."""

MARKERS = frozenset({"pyvenv.cfg", "CACHEDIR.TAG"})
"""A folder that holds one of these is an environment or a cache."""


DRAFT = re.compile(r"\.agentflow-[0-9a-f]{16}\.part")
"""Name of a file that is still being written; such files are never listed."""


def flags(*names: str) -> int:
    """Flags of `os.open`; one that a system does not have is left out."""
    return sum(getattr(os, name, 0) for name in names)


_SHOWN = 200  # characters of a path

# O_NONBLOCK: opening a FIFO that was swapped in must not wait for its other end.
_FILE = flags("O_RDONLY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY")
_FOLDER = flags("O_RDONLY", "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY")


class PathRefused(AgentflowError, PermissionError):
    """The path leads out of the root, or to something that is not a file or folder."""


class PathNotFound(AgentflowError, FileNotFoundError):
    """Nothing is there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An open file or folder.

    Attributes:
        path: Relative to the root, with ``/``, links resolved.
        fd: Descriptor; closed by whoever opened it.
        folder: Whether it is a folder.
    """

    path: str
    fd: int
    folder: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file is, or would be.

    Attributes:
        path: Relative to the root, with ``/``, links resolved.
        fd: Descriptor of the deepest folder on the way that exists.
        missing: Names of the folders below it that do not, outermost first.
        name: The file's own.
        mode: Permission bits of the file, or None if there is none.
    """

    path: str
    fd: int
    missing: tuple[str, ...]
    name: str
    mode: int | None


@dataclass(slots=True)
class _Walk:
    """The way from the root to where we are: one open descriptor per folder."""

    fds: list[int]
    names: list[str] = field(default_factory=list)
    links: int = 0

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Root:
    """A folder whose files can be opened and walked, and nothing else.

    Args:
        path: The folder.

    Raises:
        DefinitionError: It is no folder, or the system cannot open relative to a descriptor.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if os.open not in os.supports_dir_fd:
            raise DefinitionError("file tools need a POSIX system (openat)")
        self.path = Path(path).expanduser().resolve()
        if not self.path.is_dir():
            raise DefinitionError(f"the root {str(path)!r} is not a folder")

    @contextmanager
    def open(self, path: str) -> Iterator[Entry]:
        """Open a regular file or a folder; closed at the end of the block.

        Raises:
            PathRefused: It leads out of the root, or is a device, FIFO or socket.
            PathNotFound: Nothing is there; the message names what is like it.
        """
        entry = self._resolve(path)
        try:
            yield entry
        finally:
            os.close(entry.fd)

    @contextmanager
    def place(self, path: str) -> Iterator[Place]:
        """Where a regular file is or would be; nothing is made.

        Raises:
            PathRefused: It leads out of the root, or something else is there.
        """
        walk = _Walk([os.open(self.path, _FOLDER)])
        try:
            yield self._place(walk, path)
        finally:
            walk.close()

    def files(self, folder: Entry) -> Generator[Entry, None, None]:
        """Every regular file below an open folder, sorted by name at each level.

        Links are not followed; `SKIPPED` folders, environments and caches are left out. A
        file's descriptor is the one of its *folder*: open it with `open_file`.
        """
        yield from self._files(folder.fd, "" if folder.path == "." else folder.path + "/", 0)

    def open_file(self, entry: Entry) -> int | None:
        """A descriptor of a file that `files` named, or None if it is gone or no file now."""
        try:
            return self._open_regular(entry.path.rpartition("/")[2], entry.fd)
        except OSError:
            return None

    def _files(self, fd: int, prefix: str, depth: int) -> Generator[Entry, None, None]:
        with os.scandir(fd) as scan:
            entries = sorted((e for e in scan if _shown(e.name)), key=lambda e: e.name)
        if depth and not MARKERS.isdisjoint(entry.name for entry in entries):
            return
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield Entry(prefix + entry.name, fd, folder=False)
            elif entry.is_dir(follow_symlinks=False) and entry.name not in SKIPPED:
                yield from self._below(entry.name, fd, prefix, depth + 1)

    def _below(self, name: str, fd: int, prefix: str, depth: int) -> Generator[Entry, None, None]:
        if depth > MAX_DEPTH:
            return
        try:
            folder = open_folder(name, fd)
        except OSError:  # not ours to read, or gone since it was listed
            return
        try:
            yield from self._files(folder, f"{prefix}{name}/", depth)
        finally:
            os.close(folder)

    def _resolve(self, path: str) -> Entry:
        todo = _components(path, path)
        walk = _Walk([os.open(self.path, _FOLDER)])
        try:
            while todo:
                name = todo.pop()
                if name == "..":
                    self._up(walk, path)
                elif (file := self._down(walk, name, todo, path)) is not None:
                    return Entry("/".join([*walk.names, name]), file, folder=False)
            return Entry("/".join(walk.names) or ".", walk.fds.pop(), folder=True)
        finally:
            walk.close()

    def _place(self, walk: _Walk, path: str) -> Place:
        if reason := refusal(path):
            raise PathRefused(f"{path!r}: {reason}")
        todo = _components(path, path)
        while todo:
            name = todo.pop()
            if name == "..":
                self._up(walk, path)
                continue
            try:
                mode = self._mode(name, walk.fds[-1])
                if stat.S_ISREG(mode) and not todo:
                    return _placed(walk, [name], mode & 0o777)  # setuid was for what it held
                self._enter(walk, name, todo, path, mode)
            except FileNotFoundError as error:
                if ".." in todo:
                    _explain(error, path, name, walk.fds[-1])
                return _placed(walk, [name, *reversed(todo)], None)
            except (OSError, ValueError) as error:
                _explain(error, path, name, walk.fds[-1])
        raise PathRefused(f"{path!r} is a folder: name a file in it")

    def _up(self, walk: _Walk, path: str) -> None:
        if not walk.names:
            raise PathRefused(f"{path!r} leads out of the root: use a path inside it")
        os.close(walk.fds.pop())
        walk.names.pop()

    def _down(self, walk: _Walk, name: str, todo: list[str], path: str) -> int | None:
        """Take one component: a folder is entered, a link unfolded, a file's descriptor given."""
        here = walk.fds[-1]
        try:
            mode = self._mode(name, here)
            if stat.S_ISREG(mode) and not todo:
                return self._open_regular(name, here)
            self._enter(walk, name, todo, path, mode)
        except (OSError, ValueError) as error:
            _explain(error, path, name, here)
        return None

    def _enter(self, walk: _Walk, name: str, todo: list[str], path: str, mode: int) -> None:
        if stat.S_ISLNK(mode):
            self._unfold(walk, name, todo, path)
        elif stat.S_ISDIR(mode):
            _check_depth(len(walk.names) + 1, path)
            walk.fds.append(open_folder(name, walk.fds[-1]))
            walk.names.append(name)
        else:
            what = "a file, not a folder" if stat.S_ISREG(mode) else "not a regular file"
            raise PathRefused(f"{path!r}: {name!r} is {what}")

    def _unfold(self, walk: _Walk, name: str, todo: list[str], path: str) -> None:
        walk.links += 1
        if walk.links > MAX_LINKS:
            raise PathRefused(f"{path!r} goes through more than {MAX_LINKS} links")
        todo += _components(os.readlink(name, dir_fd=walk.fds[-1]), path)

    def _mode(self, name: str, folder: int) -> int:
        """What a component is. What it says may be outdated when it is opened."""
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode

    def _open_regular(self, name: str, folder: int) -> int:
        fd = os.open(name, _FILE, dir_fd=folder)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise PathRefused(f"{name!r} is not a regular file")


def _components(text: str, path: str) -> list[str]:
    """The names of a path, last first."""
    if text.startswith("/"):
        raise PathRefused(f"{path!r} is absolute: write it relative to the root")
    return [name for name in reversed(text.split("/")) if name not in ("", ".")]


def refusal(path: str) -> str | None:
    """Why a path can be no file's, whatever there is; None if it can be."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/"):
        return "it is absolute: write it relative to the root"
    if names[:1] == [".."]:
        return "it leads out of the root: use a path inside it"
    if path.rpartition("/")[2] in ("", ".", ".."):
        return "it names a folder: name a file in it"
    if not HISTORIES.isdisjoint(map(str.casefold, names)):
        return "it is in a repository's own folder, which tools do not write to"
    if any(map(DRAFT.fullmatch, names)):
        return "files of that name are drafts, which nobody is shown: take another"
    return None if _printable(path) and "\0" not in path else "no file can be called that"


def open_folder(name: str, folder: int) -> int:
    """A descriptor of a folder in another, which is no link."""
    return os.open(name, _FOLDER, dir_fd=folder)


def _check_depth(folders: int, path: str) -> None:
    if folders > MAX_DEPTH:
        raise PathRefused(f"{path[:_SHOWN]!r} lies in more than {MAX_DEPTH} folders")


def _placed(walk: _Walk, names: list[str], mode: int | None) -> Place:
    path = "/".join([*walk.names, *names])
    _check_depth(len(walk.names) + len(names) - 1, path)
    if reason := refusal(path):  # now that links are resolved
        raise PathRefused(f"{path!r}: {reason}")
    return Place(path, walk.fds[-1], tuple(names[:-1]), names[-1], mode)


def _shown(name: str) -> bool:
    return _printable(name) and DRAFT.fullmatch(name) is None


def _printable(name: str) -> bool:
    """Whether a name is UTF-8: any other could not be passed on in JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explain(error: Exception, path: str, name: str, folder: int) -> NoReturn:
    """Say where, relative to the root, and what is there instead."""
    if isinstance(error, AgentflowError):
        raise error
    if not isinstance(error, FileNotFoundError):
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PathRefused(f"{path!r}: {name!r} cannot be opened: {reason}") from error
    known: list[str] = []
    with suppress(OSError):
        known = [entry for entry in os.listdir(folder) if _shown(entry)]
    hint = nearest(name, known) if known else "The folder is empty."
    raise PathNotFound(f"{path!r}: there is no {name!r}. {hint}") from error
