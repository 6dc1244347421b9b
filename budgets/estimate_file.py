"""The file of estimates: where it is, and how processes share it."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentflow._private import check_owner, make_folder, replace_text
from agentflow.budgets.estimate_records import FORMAT

LARGEST = 32_000_000
"""Bytes of a file that is read."""

PATIENCE = 2.0
"""Seconds to wait for others who write it."""

_STEP = 0.02


def default_path(environ: Mapping[str, str] | None = None) -> Path | None:
    """The file that a user's estimates are kept in; None if there is no place for it.

    It is ``AGENTFLOW_ESTIMATES``, or ``agentflow/estimates.json`` in the user's state directory:
    ``XDG_STATE_HOME``, otherwise ``~/.local/state``.
    """
    environ = os.environ if environ is None else environ
    try:
        if named := environ.get("AGENTFLOW_ESTIMATES"):
            return Path(named).expanduser()
        state = Path(environ.get("XDG_STATE_HOME", ""))
        if not state.is_absolute():
            state = Path.home() / ".local" / "state"
    except RuntimeError:  # nobody knows where the home is
        return None
    return state / "agentflow" / "estimates.json"


class EstimateFile:
    """A file of JSON that processes read, change and write in turn.

    Args:
        path: Where it is; a link of the user's own is followed.
    """

    def __init__(self, path: Path) -> None:
        self._given = path
        self.path = Path(os.path.realpath(path))

    def read(self) -> Any:
        """What is kept; None if there is no file.

        Raises:
            OSError: It cannot be read: it is no regular file, or somebody else's.
            NewerFormat: A newer version of agentflow wrote it.
            ValueError: It is broken, or of an older version.
        """
        if self._checked() is None:
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(self.path, flags), encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError("it is too large")
        try:
            data = json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        version = data.get("format") if isinstance(data, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise NewerFormat(f"format {version} is of a newer version of agentflow")
        if version != FORMAT:
            raise ValueError("it is of another format")
        return data

    def write(self, data: Any) -> None:
        """Replace what is kept, at once and as a whole; only its owner may read it.

        Raises:
            OSError: It cannot be written.
        """
        replace_text(self.path, json.dumps(data, separators=(",", ":"), allow_nan=False))

    def set_aside(self) -> Path:
        """Move what cannot be used out of the way; where it is then.

        Raises:
            OSError: It cannot be moved.
        """
        aside = self.path.with_name(f"{self.path.name}.broken")
        self.path.replace(aside)
        return aside

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from writing it; the directory is made if there is none.

        Raises:
            OSError: The lock cannot be had, or (`TimeoutError`) somebody keeps it.
        """
        make_folder(self.path.parent)
        self._checked()
        lock = self.path.with_name(f"{self.path.name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(lock, flags, 0o600)
        try:
            _take(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _checked(self) -> os.stat_result | None:
        """What the file is, as `check_owner` says; nobody else may have put it, or a link, there.

        Raises:
            PermissionError: Somebody may have.
        """
        if self._given.is_symlink() and self._given.lstat().st_uid != os.getuid():
            raise PermissionError(f"{self._given} is another user's link")
        folder = self.path.parent
        if folder.exists() and folder.stat().st_mode & 0o1002 == 0o002:
            raise PermissionError(f"everybody may write to {folder}: chmod o-w {folder}")
        return check_owner(self.path)


class NewerFormat(Exception):
    """The file is of a newer version, which will want to use it again."""


def _take(descriptor: int) -> None:
    for _ in range(round(PATIENCE / _STEP)):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            threading.Event().wait(_STEP)
    raise TimeoutError(f"another process has been writing it for {PATIENCE:.0f} s")
