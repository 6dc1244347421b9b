"""What annotations and docstrings of a function say, and how types are shown."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from agentflow.errors import DefinitionError

_SECTION = re.compile(r"^\s*(Args|Arguments|Parameters):\s*$", re.MULTILINE)
_ENTRY = re.compile(r"^(\s+)(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


def hints_of(
    function: Callable[..., Any], name: str, local: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The annotations of a function, those written as text too.

    Raises:
        DefinitionError: One of them cannot be understood.
    """
    written: Any = function
    while isinstance(written, partial):
        written = written.func
    if not inspect.isroutine(written) and not isinstance(written, type):
        written = type(written).__call__
    try:
        return typing.get_type_hints(written, localns=dict(local or {}), include_extras=True)
    except TypeError:  # built-in functions carry none
        return {}
    except NameError as error:
        raise DefinitionError(
            f"tool {name!r}: annotation not understood: {error}. "
            "Import the name where the function is defined, not only for type checking."
        ) from None


def untitled(schema: Any) -> Any:
    """Without the titles pydantic makes up: they cost tokens and say nothing."""
    if isinstance(schema, dict):
        return {
            key: untitled(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [untitled(item) for item in schema] if isinstance(schema, list) else schema


def accepts_none(annotation: Any) -> bool:
    """Whether a type says that None is a value."""
    if annotation in (None, type(None)):
        return True
    if typing.get_origin(annotation) is typing.Annotated:
        return accepts_none(typing.get_args(annotation)[0])
    args = typing.get_args(annotation)
    return type(None) in args or (typing.get_origin(annotation) is typing.Literal and None in args)


def spelled(annotation: Any) -> str:
    """A type as messages show it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def described_parameters(doc: str) -> dict[str, str]:
    """Descriptions by parameter from the ``Args:`` section of a Google-style docstring."""
    if (section := _SECTION.search(doc)) is None:
        return {}
    out: dict[str, str] = {}
    name, depth = "", -1
    for line in doc[section.end() :].splitlines()[1:]:
        if line.strip() and not line[0].isspace():
            break
        entry = _ENTRY.match(line)
        if entry is not None and depth in (-1, len(entry[1])):
            depth, name = len(entry[1]), entry[2]
            out[name] = entry[3].strip()
        elif name and line.strip():
            out[name] = f"{out[name]} {line.strip()}"
    return out
