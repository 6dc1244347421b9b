"""`write_file`: a text is written out of sight while it comes, and seen when that is certain."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from agentflow.errors import AgentflowError
from agentflow.tools.builtin.root import PathRefused, Place, Root, flags, open_folder, refusal
from agentflow.tools.builtin.threads import settled
from agentflow.tools.streaming import Commit, Stream, TextStream
from agentflow.tools.tool import Tool, tool

MAX_WRITE = 16 * 2**20
"""Bytes of a file that is written."""

_BATCH = 2**16  # bytes that are worth going to the disk for
_NEW = flags("O_WRONLY", "O_CREAT", "O_EXCL", "O_CLOEXEC", "O_NOFOLLOW")


class WriteFailed(AgentflowError, OSError):
    """A file could not be written; what was there before is as it was."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written.

    Attributes:
        path: Relative to the root, links resolved.
        bytes: Its length, in UTF-8.
        lines: How many lines it has.
        created: Whether there was none before.
    """

    path: str
    bytes: int
    lines: int
    created: bool


def write_tool(root: Root) -> Tool[..., Any]:
    """The tool `write_file`, for the files below a root."""

    @tool(writes="files/{path}", idempotent=True, check={"path": refusal})
    async def write_file(path: str, text: Stream[str], *, commit: Commit) -> Written:
        """Write a text file as a whole.

        A file that is there is replaced; folders that are missing are made.
        """
        return await write(root, path, text, commit)

    return write_file


async def write(root: Root, path: str, text: TextStream, commit: Commit) -> Written:
    """Write a text to a file while it comes; the file is seen as a whole, or not at all.

    Raises:
        PathRefused: The path leads out of the root, or to no regular file, or to one that
            nobody may write to.
        WriteFailed: The text is too long or no text, or the system refuses.
    """
    draft, rest = Draft(root, path), bytearray()
    size = lines = 0
    last = "\n"
    try:
        with suppress(OSError):  # it counts what is in the way when the call is certain
            await settled(draft.begin)
        async for piece in text:
            rest += _encoded(piece, path)
            lines, last = lines + piece.count("\n"), piece[-1]
            if size + len(rest) > MAX_WRITE:
                raise WriteFailed(f"{path!r} would be longer than {MAX_WRITE} bytes: split it")
            if draft.begun and len(rest) >= _BATCH:
                await settled(draft.write, bytes(rest))
                size += len(rest)
                rest.clear()
        await commit()
        place = await settled(draft.publish, bytes(rest))
        return Written(place.path, size + len(rest), lines + (last != "\n"), place.mode is None)
    finally:
        await settled(draft.discard)


class Draft:
    """A file that nobody is shown until it takes its place. Everything it does blocks.

    It is made in the deepest folder on its way that exists, to be on the same file system.

    Args:
        root: Where all of it happens.
        path: Of the file it becomes.
    """

    def __init__(self, root: Root, path: str) -> None:
        self._root = root
        self._path = path
        self._folder = -1
        self._file = -1
        self._name = ""

    @property
    def begun(self) -> bool:
        """Whether it is there to write to."""
        return self._file >= 0

    def begin(self) -> None:
        """Make it, empty and for nobody else to read."""
        with self._root.place(self._path) as place:
            self._folder = os.dup(place.fd)
        name = _fresh_name()
        self._file = os.open(name, _NEW, 0o600, dir_fd=self._folder)
        self._name = name

    def write(self, data: bytes) -> None:
        """Add to it."""
        view = memoryview(data)
        with self._explained():
            while view:
                view = view[os.write(self._file, view) :]

    def publish(self, rest: bytes) -> Place:
        """Add the rest and put it where it belongs; where that is, and what was there."""
        with self._explained():
            if not self.begun:
                self.discard()
                self.begin()
            self.write(rest)
            with self._root.place(self._path) as place, _folder_of(place) as folder:
                mode = _default_mode(folder) if place.mode is None else place.mode
                if not mode & 0o222:
                    raise PathRefused(f"{place.path!r} is read-only")
                os.fchmod(self._file, mode)
                os.fsync(self._file)
                os.rename(self._name, place.name, src_dir_fd=self._folder, dst_dir_fd=folder)
                self._name = ""
                with suppress(OSError):  # it is there; not every file system can do this
                    os.fsync(folder)
                return place

    def discard(self) -> None:
        """Close it; unless it was published, nothing of it is left."""
        if self._name:
            with suppress(OSError):  # somebody else has removed it, or all of the folder
                os.unlink(self._name, dir_fd=self._folder)
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._name, self._file, self._folder = "", -1, -1

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except AgentflowError:
            raise
        except OSError as error:
            message = f"{self._path!r} could not be written: {error.strerror}"
            raise WriteFailed(message) from error


@contextmanager
def _folder_of(place: Place) -> Iterator[int]:
    """The folder of a file; what had to be made is taken back if the file does not get there."""
    with ExitStack() as opened, ExitStack() as made:
        folder = place.fd
        for name in place.missing:
            with suppress(FileExistsError):  # another call was faster
                os.mkdir(name, dir_fd=folder)
                made.callback(_take_back, name, folder)
                os.fsync(folder)
            folder = open_folder(name, folder)
            opened.callback(os.close, folder)
        yield folder
        made.pop_all()


def _take_back(name: str, folder: int) -> None:
    with suppress(OSError):  # another call uses it by now
        os.rmdir(name, dir_fd=folder)


def _default_mode(folder: int) -> int:
    """Permission bits of a new file: the umask is known only by trying."""
    name = _fresh_name()
    file = os.open(name, _NEW, 0o666, dir_fd=folder)
    try:
        return stat.S_IMODE(os.fstat(file).st_mode)
    finally:
        os.close(file)
        os.unlink(name, dir_fd=folder)


def _fresh_name() -> str:
    """A name that `root.DRAFT` knows."""
    return f".agentflow-{secrets.token_hex(8)}.part"


def _encoded(piece: str, path: str) -> bytes:
    try:
        return piece.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(piece[error.start]):04X}"
        raise WriteFailed(f"{path!r}: {half} is half a character: write a whole one") from None
