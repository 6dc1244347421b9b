"""What planning needs to know of a tool: its name, parameters, effect and description."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agentflow.tools.effects import UNDECLARED, Effect
from agentflow.wording import nearest

Check: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool, without the ones the engine fills in.

    Attributes:
        name: As in the signature.
        required: Whether it has no default.
        schema: JSON schema of its type; empty when untyped.
        accepts_none: Whether its type says None is a value (a skipped input is then passed as None).
        keyword_only: Whether it is bound by name only.
    """

    name: str
    required: bool = True
    schema: Mapping[str, Any] = field(default_factory=dict)
    accepts_none: bool = False
    keyword_only: bool = False


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as planners and models see it.

    Attributes:
        name: ``[A-Za-z_][\\w.-]*``.
        parameters: In order; positional arguments of a plan line are bound to them.
        open: Takes any further keyword (``**kwargs``).
        effect: Declared effect.
        description: The docstring.
        returns: JSON schema of the result; empty when undeclared.
        version: Declared version of the implementation, or empty.
        definitions: ``$defs`` that the parameters' schemas refer to.
        rest: Takes any further positional argument (``*args``).
        batch: Name of the tool that does many of these calls as one, or empty. Its first
            parameter takes the list of this tool's first argument; it gives the list of values.
        check: Validates a call whose arguments are all known, and raises `ArgumentError`.
    """

    name: str
    parameters: tuple[Parameter, ...] = ()
    open: bool = False
    effect: Effect = UNDECLARED
    description: str = ""
    returns: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    definitions: Mapping[str, Any] = field(default_factory=dict)
    rest: bool = False
    batch: str = ""
    check: Check | None = field(default=None, compare=False, repr=False)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name; whatever does not fit is left out."""
        names = (p.name for p in self.parameters if not p.keyword_only)
        bound = dict(zip(names, args, strict=False))
        bound.update(kwargs)
        return bound

    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, as model APIs want it."""
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {p.name: dict(p.schema) for p in self.parameters},
            "required": [p.name for p in self.parameters if p.required],
            "additionalProperties": self.open,
        }
        if self.definitions:
            schema["$defs"] = dict(self.definitions)
        return schema


def unknown_tool(name: str, known: Sequence[str]) -> str:
    """The message for a tool that is not in the toolbox."""
    return f"there is no tool {name!r}. {nearest(name, known)}"
