"""The tools that come with agentflow; each works on real input and within limits.

`http_get` fetches pages, `read_file`, `list_files` and `search_text` look into one folder and
`calculate` does arithmetic. Off unless asked for: `write_file` writes into that folder, `sql`
asks a database, `python` runs programs, `remaining` tells a model what is left of its limits,
and with `read_output` it reads on in what was too long to be shown.
"""

from __future__ import annotations

import os
from typing import Any

from agentflow.errors import DefinitionError
from agentflow.tools.builtin.calculate import calculate
from agentflow.tools.builtin.files import file_tools
from agentflow.tools.builtin.http import http_tools
from agentflow.tools.builtin.python import python_tool
from agentflow.tools.builtin.read_output import read_output
from agentflow.tools.builtin.remaining import remaining as remaining_tool
from agentflow.tools.builtin.sql import sql_tool
from agentflow.tools.tool import Tool

__all__ = [
    "calculate",
    "default_tools",
    "file_tools",
    "http_tools",
    "python_tool",
    "read_output",
    "remaining_tool",
    "sql_tool",
]


def default_tools(
    root: str | os.PathLike[str] | None = None,
    *,
    write: bool = False,
    allow_private: bool = False,
    sql: str | os.PathLike[str] | None = None,
    python: bool = False,
    remaining: bool = False,
    outputs: bool = False,
) -> list[Tool[..., Any]]:
    """The built-in tools of a run.

    Args:
        root: Folder the file tools look into; without one there are no file tools.
        write: Whether `write_file` is among them.
        allow_private: Whether `http_get` may reach loopback and private networks.
        sql: SQLite database that the `sql` tool reads; without one there is no such tool.
        python: Whether the `python` tool is among them.
        remaining: Whether `remaining` is among them, for runs that have limits.
        outputs: Whether `read_output` is among them: results that are too long to be shown are
            then put by in files, where a model can read on.

    Raises:
        DefinitionError: The root is no folder, or there is none to write to.
    """
    if write and root is None:
        raise DefinitionError("write_file needs a folder to write to: name the root")
    tools = [calculate, *http_tools(allow_private=allow_private)]
    if root is not None:
        tools += file_tools(root, write=write)
    if sql is not None:
        tools.append(sql_tool(sql))
    if python:
        tools.append(python_tool())
    if remaining:
        tools.append(remaining_tool)
    if outputs:
        tools.append(read_output)
    return tools
