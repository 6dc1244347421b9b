"""Removing a folder in which somebody else's program has been."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from agentflow.tools.builtin.root import open_folder


def remove(folder: Path) -> None:
    """Delete a folder: locked or not, and however deep, which `shutil.rmtree` is not up to.

    What is in an inner folder is moved up before that is removed, so that paths stay short. What
    cannot be removed stays.
    """
    with suppress(OSError):
        folder.chmod(0o700)
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while sum(_removed(name, top) for name in os.listdir(top)):
                pass
        finally:
            os.close(top)
        folder.rmdir()


def _removed(name: str, top: int) -> bool:
    """Whether a file or folder, or something in it, could be removed."""
    moved = False
    try:
        if not _unlocked(name, top):
            os.unlink(name, dir_fd=top)
            return True
        inner = open_folder(name, top)
        try:
            for child in os.listdir(inner):
                _unlocked(child, inner)
                os.rename(child, token_hex(8), src_dir_fd=inner, dst_dir_fd=top)
                moved = True
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)
    except OSError:
        return moved
    return True


def _unlocked(name: str, folder: int) -> bool:
    """Whether it is a folder, which can then be entered and moved."""
    is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    if is_folder:
        os.chmod(name, 0o700, dir_fd=folder)
    return is_folder
