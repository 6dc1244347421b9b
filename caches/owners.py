"""Who of several processes is alive: each holds a lock that its death releases."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex


class Owner:
    """This process among those that use a folder; the lock is of a file named like it.

    Args:
        folder: Where the files are; made when needed.

    Attributes:
        name: Differs from the name of every other owner, also in this process.
    """

    def __init__(self, folder: Path) -> None:
        self.name = token_hex(8)
        self._folder = folder
        self._descriptor: int | None = None

    def appear(self) -> None:
        """Be alive from now on.

        Raises:
            OSError: The file cannot be made or locked.
        """
        if self._descriptor is not None:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._folder / self.name, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._descriptor = descriptor

    def vanish(self) -> None:
        """Be alive no more."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.unlink(self._folder / self.name)
            os.close(self._descriptor)
            self._descriptor = None

    def lives(self, name: str) -> bool:
        """Whether an owner is alive; one that is not is forgotten."""
        if name == self.name:
            return True
        path = self._folder / os.path.basename(name)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            with suppress(OSError):
                os.unlink(path)
            return False
        finally:
            os.close(descriptor)
