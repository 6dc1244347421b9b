"""`sql`: ask a SQLite database, and change it only if that was allowed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeAlias

from agentflow.clock import seconds
from agentflow.errors import DefinitionError
from agentflow.tools.builtin.sql_database import Database, Rows, SqlFailed
from agentflow.tools.streaming import Commit, Warm
from agentflow.tools.tool import Tool, tool

__all__ = ["Rows", "SqlFailed", "sql_tool"]

Params: TypeAlias = "list[str | int | float | None] | None"


def sql_tool(
    database: str | os.PathLike[str],
    *,
    write: bool = False,
    timeout: float | str = "10s",
    max_rows: int = 1000,
    name: str = "sql",
) -> Tool[..., Any]:
    """A tool that runs single statements on a SQLite database.

    It opens the database while a model still writes the statement. Nothing but the tables of
    this file can be reached: no other files, no extensions.

    Args:
        database: The file; it is never created.
        write: Whether statements may change it. Each is a transaction of its own.
        timeout: Seconds (or ``"10s"``) that a statement may take.
        max_rows: Rows that are given.
        name: Of the tool.

    Raises:
        DefinitionError: A limit is out of range.
    """
    limit = seconds(timeout)
    if max_rows < 1 or not limit:
        raise DefinitionError(f"sql_tool(max_rows={max_rows}, timeout={timeout!r}): more than 0")
    path = Path(database).expanduser().absolute()
    resource = "sql/" + path.name.replace("{", "").replace("}", "")
    made = (_writing if write else _reading)(name, resource, limit + 5)

    async def opened() -> AsyncIterator[Database]:
        found = Database(path, writes=write, limit=limit, max_rows=max_rows)
        async with aclosing(found):
            await found.open()
            yield found

    made.warm(opened)
    return made


def _reading(name: str, resource: str, timeout: float) -> Tool[..., Any]:
    @tool(name=name, reads=resource, timeout=timeout)
    async def sql(query: str, params: Params = None, *, database: Warm[Database]) -> Rows:
        """Ask a SQLite database with one SELECT statement; `params` fill its `?`.

        `SELECT sql FROM sqlite_master` shows its tables.
        """
        return await database.run(query, params or ())

    return sql


def _writing(name: str, resource: str, timeout: float) -> Tool[..., Any]:
    @tool(name=name, writes=resource, timeout=timeout)
    async def sql(
        query: str, params: Params = None, *, database: Warm[Database], commit: Commit
    ) -> Rows:
        """Ask a SQLite database, or change it, with one SQL statement; `params` fill its `?`.

        `SELECT sql FROM sqlite_master` shows its tables.
        """
        await commit()
        return await database.run(query, params or ())

    return sql
