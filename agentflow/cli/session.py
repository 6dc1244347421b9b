"""``--session FILE``: a question goes on with a conversation that a file keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from agentflow._private import replace_text
from agentflow.errors import DefinitionError
from agentflow.executor.sessions.history import Message
from agentflow.sessions import Session


def read_session(path: str) -> Session:
    """The session that a file keeps; a new one if there is no such file.

    Raises:
        DefinitionError: It cannot be read, is no session, or could not be written afterwards.
    """
    if not os.access(folder := Path(path).absolute().parent, os.W_OK | os.X_OK):
        why = "you may not write there" if folder.is_dir() else "there is no such folder"
        raise DefinitionError(f"--session {path}: it could not be kept in {folder}: {why}")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Session()
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"--session {path}: it cannot be read: {error}") from None
    try:
        return Session.from_json(text)
    except DefinitionError as error:
        raise DefinitionError(f"--session {path}: {error}") from None


@contextmanager
def kept(session: Session | None, path: str | None) -> Iterator[None]:
    """Write a session to its file when its turn is over, however that ended.

    Raises:
        DefinitionError: It cannot be written, or another process has written there meanwhile.
    """
    if session is None or path is None:
        yield
        return
    before = session.messages
    try:
        yield
    finally:
        try:
            _write(session, Path(path), before)
        except OSError as error:
            raise DefinitionError(f"--session {path}: it cannot be written: {error}") from error


def _write(session: Session, path: Path, before: tuple[Message, ...]) -> None:
    """Write a session to its file, or beside it if that is not as it was before any more."""
    text = session.to_json() + "\n"
    if not (why := _changed(path, before)):
        replace_text(path, text)
        return
    beside = path.with_name(f"{path.name}.{token_hex(4)}")
    replace_text(beside, text)
    raise DefinitionError(f"{why}; this conversation is in {beside}")


def _changed(path: Path, before: tuple[Message, ...]) -> str:
    """Why a file does not hold what it did before; empty if it does, or is not there."""
    try:
        if not path.exists() or read_session(str(path)).messages == before:
            return ""
    except DefinitionError as error:
        return str(error)
    return f"--session {path}: another process has gone on with it meanwhile"
