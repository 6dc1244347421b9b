"""Where a command finds the runs that are kept, and how a run is told from others there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentflow.cli.screen import Screen
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.journal.journal import Journal, default_path
from agentflow.executor.journal.store import JournalStore
from agentflow.settings import Settings


def file_of(options: Any) -> Path:
    """The journal that the options and the settings name, else the user's own.

    Raises:
        DefinitionError: None is kept.
    """
    if (path := _path(Settings.load(journal=options.journal))) is None:
        raise DefinitionError("no runs are kept here (journal is off): name a file with --journal")
    return path


async def for_run(options: Any, settings: Settings, screen: Screen) -> Journal | None:
    """The journal that a run is kept in, open; None for none.

    One that nobody asked for keeps no run from working.

    Raises:
        JournalError: The one that is named cannot be opened.
    """
    try:
        path = None if options.no_journal else _path(settings)
        return None if path is None else await open_journal(path)
    except (JournalError, DefinitionError) as error:
        if settings.journal is not True:
            raise
        screen.paragraph(f"agentflow: this run is not kept, and cannot be resumed: {error}")
        return None


async def open_journal(path: Path, *, create: bool = True) -> Journal:
    """A journal that was opened.

    Raises:
        JournalError: It cannot be.
    """
    journal = Journal(path)
    try:
        await journal.ask(lambda: journal.store.open(create=create))
    except JournalError:
        await journal.aclose()
        raise
    return journal


@contextmanager
def reading(options: Any) -> Iterator[JournalStore]:
    """The runs that are kept, for a command that makes no journal.

    Raises:
        JournalError: There is none, or it cannot be opened.
    """
    store = JournalStore(file_of(options))
    try:
        store.open(create=False)
        yield store
    finally:
        store.close()


def words_for(action: str, run: str, options: Any, *more: str) -> str:
    """The command that does something to a run, for a person to type."""
    place = [f"--journal={options.journal}"] if options.journal else []
    return shlex.join(["agentflow", action, run, *more, *place])


def _path(settings: Settings) -> Path | None:
    if settings.journal is True:
        return default_path()
    return Path(settings.journal).expanduser() if settings.journal else None
