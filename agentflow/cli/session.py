"""``--session FILE``: a question goes on with a conversation that a file keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentflow._private import replace_text
from agentflow.errors import DefinitionError
from agentflow.sessions import Session


def read_session(path: str) -> Session:
    """The session that a file keeps; a new one if there is no such file.

    Raises:
        DefinitionError: It cannot be read, or is no session.
    """
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
        DefinitionError: It cannot be written.
    """
    try:
        yield
    finally:
        if session is not None and path is not None:
            try:
                replace_text(Path(path), session.to_json() + "\n")
            except OSError as error:
                raise DefinitionError(f"--session {path}: it cannot be written: {error}") from error
