"""A few random bytes in a file, new ones after every change elsewhere.

Reading them takes a microsecond or two, so that the loop can see that nothing has changed
without asking the database. A file that is short, missing or another one is a change.
The file is read, never mapped: a mapped file that somebody truncates is a SIGBUS.
"""

from __future__ import annotations

import os
from pathlib import Path

SIZE = 16


class Generation:
    """The bytes in a file. `now` and `close` belong to one thread, the others to any.

    Args:
        path: The file; its folder need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._descriptor: int | None = None
        self._file = (0, 0)

    def now(self) -> bytes | None:
        """The bytes, read through a descriptor that is kept; None if there are none."""
        try:
            about = os.stat(self._path)
            if self._descriptor is None or (about.st_dev, about.st_ino) != self._file:
                self._reopen()
            assert self._descriptor is not None  # it was opened just now
            found = os.pread(self._descriptor, SIZE, 0)
        except OSError:
            return None
        return found if len(found) == SIZE else None

    def read(self) -> bytes | None:
        """The bytes; None if there are none."""
        try:
            with open(self._path, "rb") as file:
                found = file.read(SIZE)
        except OSError:
            return None
        return found if len(found) == SIZE else None

    def renew(self) -> bytes:
        """Write new bytes and give them.

        Raises:
            OSError: They cannot be written.
        """
        fresh = os.urandom(SIZE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.pwrite(descriptor, fresh, 0)
        finally:
            os.close(descriptor)
        return fresh

    def close(self) -> None:
        """Close the descriptor that `now` keeps."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _reopen(self) -> None:
        self.close()
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        about = os.fstat(self._descriptor)
        self._file = (about.st_dev, about.st_ino)
