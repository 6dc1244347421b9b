"""Toolboxes: tools by name, and how a user's module becomes one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from agentflow.errors import DefinitionError, PlanError
from agentflow.tools.spec import ToolSpec, unknown_tool
from agentflow.tools.tool import Tool
from agentflow.tools.warmup import needed

AnyTool = Tool[..., Any]


class Toolbox(Mapping[str, AnyTool]):
    """Tools by name; two of the same name do not fit into one.

    Raises:
        DefinitionError: Two different tools have one name.
    """

    def __init__(self, tools: Iterable[AnyTool] = ()) -> None:
        self._tools: dict[str, AnyTool] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: AnyTool) -> None:
        """Put a tool in.

        Raises:
            DefinitionError: It is no tool, has another's name, or lacks the warm-up it needs.
        """
        if not isinstance(tool, Tool):
            raise DefinitionError(f"{tool!r} is not a tool: decorate it with @tool")
        if self._tools.setdefault(tool.name, tool) is not tool:
            raise DefinitionError(
                f"two tools are called {tool.name!r}: give one another name, @tool(name=...)"
            )
        if (role := tool.signature.roles.warm) is not None:
            needed(tool.origin.warm_up, tool.name, role)
        if tool.batch is not None and tool.batch.name not in self._tools:
            self.add(tool.batch)

    def find(self, name: str) -> AnyTool:
        """A tool by name.

        Raises:
            PlanError: There is none (``unknown_tool``); the text has the nearest name.
        """
        try:
            return self._tools[name]
        except KeyError:
            raise PlanError("unknown_tool", unknown_tool(name, list(self._tools))) from None

    def spec(self, name: str) -> ToolSpec | None:
        """The spec of a tool, or None if it is not here."""
        tool = self._tools.get(name)
        return None if tool is None else tool.spec

    def __getitem__(self, name: str) -> AnyTool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)


def tools_of(module: ModuleType) -> list[AnyTool]:
    """The tools that a module defines or imports by name, in the order of the module."""
    found = {id(t): t for t in vars(module).values() if isinstance(t, Tool)}
    return list(found.values())


def load_module(where: str) -> ModuleType:
    """Import a user's module by name (``package.module``) or by path (``my_tools.py``).

    Raises:
        DefinitionError: It is not there, or it raises when it is imported.
    """
    try:
        if where.endswith(".py"):
            return _from_file(Path(where))
        return importlib.import_module(where)
    except DefinitionError:
        raise
    except (Exception, SystemExit) as error:
        raise DefinitionError(f"cannot load {where!r}: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise DefinitionError(f"there is no file {str(path)!r}")
    name = path.stem
    while name in sys.modules:
        name += "_"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks annotations up there
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module
