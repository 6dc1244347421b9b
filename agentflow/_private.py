"""Folders and files that only their owner may enter and read, whatever the umask says."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_hex


def make_folder(folder: Path) -> None:
    """Make a folder that nobody else may enter; those above it that are missing, likewise.

    Raises:
        OSError: It cannot be made.
    """
    for each in (*reversed(folder.parents), folder):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)


def own_folder(folder: Path) -> None:
    """Make a folder that nobody else may enter, in one that nobody else may change.

    Raises:
        PermissionError: Others could put files there.
        OSError: It cannot be made.
    """
    make_folder(folder)
    for path, open_to_others in ((folder.parent, 0o022), (folder, 0)):
        about = path.stat()
        if about.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user; name a folder of your own")
        if about.st_mode & open_to_others:
            raise PermissionError(f"others may write to {path}: chmod go-w {path}")
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def own_file(path: Path) -> None:
    """Make an empty file that nobody else may read; one that is there becomes such a file.

    A file that is there is never opened: SQLite's locks on it would be lost when it is closed.

    Raises:
        PermissionError: Something else is there: a link, a device, another user's file.
        OSError: It cannot be made.
    """
    if not os.path.lexists(path):
        draft = path.with_name(f"{path.name}.{token_hex(4)}.new")
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with suppress(FileExistsError):  # somebody else was faster
                os.link(draft, path)
        finally:
            os.unlink(draft)
    about = check_owner(path)
    if about is not None and about.st_mode & 0o077:
        path.chmod(0o600)


def replace_text(path: Path, text: str) -> None:
    """Write a file anew that nobody else may read: its old text is there until the new one is.

    Raises:
        PermissionError: Something else is there: a link, a device, another user's file.
        OSError: It cannot be written.
    """
    check_owner(path)
    draft = path.with_name(f"{path.name}.{token_hex(4)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def check_owner(path: Path) -> os.stat_result | None:
    """What a file is, without following a link; None if there is none.

    Raises:
        PermissionError: It is no regular file of this user.
    """
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(about.st_mode):
        what = "a link" if stat.S_ISLNK(about.st_mode) else "no regular file"
        raise PermissionError(f"{path} is {what}: name a file of your own")
    if about.st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user: name a file of your own")
    return about
