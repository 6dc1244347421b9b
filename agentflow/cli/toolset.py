"""The tools of a command: the built-in ones, and those of the user's modules."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from agentflow.errors import DefinitionError
from agentflow.tools.builtin import default_tools
from agentflow.tools.tool import Tool
from agentflow.tools.toolbox import Toolbox, load_module, tools_of

_LIMITS = ("budget", "budget_tokens", "deadline")


def toolbox(options: Any, *, root: str | None = None) -> Toolbox:
    """The tools that the options ask for.

    Args:
        options: Of the command line.
        root: Where the file tools look if no option says so; without one there are none.

    Raises:
        DefinitionError: A module cannot be loaded or has no tools, the root is no folder, none
            was named to write to, or there is no database.
    """
    if options.write and not options.root:
        raise DefinitionError("--write needs --root DIR: the folder that may be written to")
    if options.sql is not None and not os.path.isfile(options.sql):
        what = "it is no file" if os.path.exists(options.sql) else "there is no such file"
        raise DefinitionError(f"--sql {options.sql}: {what}")
    box = Toolbox(
        default_tools(
            options.root or root,
            write=options.write,
            allow_private=options.allow_private,
            sql=options.sql,
            python=options.python,
            remaining=any(getattr(options, name, None) is not None for name in _LIMITS),
        )
    )
    for where in options.tools:
        for tool in _from(where):
            box.add(tool)
    return box


def load(where: str) -> ModuleType:
    """Import a user's module; names are looked up from the working folder first.

    Raises:
        DefinitionError: It is not there, or it raises when it is imported.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    return load_module(where)


def _from(where: str) -> list[Tool[..., Any]]:
    if not (found := tools_of(load(where))):
        raise DefinitionError(
            f"--tools {where}: there is no tool in it. Decorate functions with @tool."
        )
    return found
