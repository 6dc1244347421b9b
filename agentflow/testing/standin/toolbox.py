"""The tools a request offers, and which of them can search, read, list and calculate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Role(Enum):
    """What a tool is good for here."""

    SEARCH = "search"
    READ = "read"
    LIST = "list"
    CALCULATE = "calculate"


_NAMES = {
    Role.SEARCH: re.compile(r"search_?text|grep|search_?(files|code)|find_?(text|lines)"),
    Role.READ: re.compile(r"read_?(file|text|lines)|open_?file"),
    Role.LIST: re.compile(r"list_?(files|dir|folder)|glob|find_?files"),
    Role.CALCULATE: re.compile(r"calc"),
}
_SPELLINGS = {  # our name of an argument: other names for it
    "pattern": ("pattern", "query", "text", "glob"),
    "max_matches": ("max_matches", "max_results", "limit", "k"),
    "path": ("path", "file", "filename"),
    "start": ("start", "start_line", "offset"),
    "lines": ("lines", "count", "limit"),
    "expression": ("expression", "expr"),
}


@dataclass(frozen=True, slots=True)
class ToolView:
    """A tool as a request describes it: its name and the names of its parameters."""

    name: str
    parameters: tuple[str, ...]


def role_of(tool: str) -> Role | None:
    """What a tool of that name is good for, or None."""
    return next((role for role, names in _NAMES.items() if names.search(tool.lower())), None)


class Toolbox:
    """The tools on offer, by what they are good for."""

    def __init__(self, tools: Iterable[ToolView]) -> None:
        self._by_role: dict[Role, ToolView] = {}
        for tool in tools:
            if (role := role_of(tool.name)) is not None:
                self._by_role.setdefault(role, tool)

    def offers(self, role: Role) -> bool:
        """Whether there is a tool for it."""
        return role in self._by_role

    def name(self, role: Role) -> str:
        """Name of the tool for it."""
        return self._by_role[role].name

    def arguments(self, role: Role, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments under the names that tool has for them; what it does not take is left."""
        offered = self._by_role[role].parameters
        spelt = {name: next((s for s in _SPELLINGS[name] if s in offered), None) for name in wanted}
        return {spelling: wanted[name] for name, spelling in spelt.items() if spelling}


def from_schemas(functions: Sequence[Mapping[str, Any]]) -> Toolbox:
    """The toolbox of a request that carries tools as JSON schemas."""
    return Toolbox(
        ToolView(str(f.get("name", "")), tuple((f.get("parameters") or {}).get("properties", ())))
        for f in functions
    )


_SIGNATURE = re.compile(
    r"^[\s>*`#-]*([A-Za-z_][\w.-]*)\(((?:[^()\n]|\([^()\n]*\))*)\)", re.MULTILINE
)
_NAME = re.compile(r"^\s*\*{0,2}([A-Za-z_]\w*)\s*(?::|=|$)")


def from_signatures(text: str) -> Toolbox:
    """The toolbox of a prompt that lists tools as ``name(parameter: type = default, ...)``."""
    views = []
    for name, inside in _SIGNATURE.findall(text):
        names = [_NAME.match(part) for part in re.split(r",(?![^\[]*\])", inside)]
        views.append(ToolView(name, tuple(match[1] for match in names if match)))
    return Toolbox(views)
