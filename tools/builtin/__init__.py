"""The tools that come with agentflow; each works on real input and within limits.

`http_get` fetches pages, `read_file`, `list_files` and `search_text` look into one folder,
`calculate` does arithmetic and `python`, which is off unless asked for, runs programs.
"""

from __future__ import annotations

import os
from typing import Any

from agentflow.tools.builtin.calculate import calculate
from agentflow.tools.builtin.files import file_tools
from agentflow.tools.builtin.http import http_tools
from agentflow.tools.builtin.python import python_tool
from agentflow.tools.tool import Tool

__all__ = ["calculate", "default_tools", "file_tools", "http_tools", "python_tool"]


def default_tools(
    root: str | os.PathLike[str] | None = None, *, allow_private: bool = False, python: bool = False
) -> list[Tool[..., Any]]:
    """The built-in tools of a run.

    Args:
        root: Folder the file tools look into; without one there are no file tools.
        allow_private: Whether `http_get` may reach loopback and private networks.
        python: Whether the `python` tool is among them.

    Raises:
        DefinitionError: The root is no folder.
    """
    tools = [calculate, *http_tools(allow_private=allow_private)]
    if root is not None:
        tools += file_tools(root)
    if python:
        tools.append(python_tool())
    return tools
