"""Arguments of a workflow as words: ``name=value``, or in order."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.errors import ArgumentError
from agentflow.planner.literals import mismatch
from agentflow.tools.spec import Parameter
from agentflow.tools.tool import Tool
from agentflow.wording import nearest

_TYPED = ("type", "anyOf", "oneOf", "enum", "const", "$ref")
_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def read_arguments(
    words: Sequence[str], tool: Tool[..., Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, converted to what the signature asks for.

    A word is taken as text where text is allowed, and read as JSON where it is not.

    Raises:
        ArgumentError: One is unknown, missing or of the wrong type.
    """
    parameters = {p.name: p for p in tool.spec.parameters}
    places = iter([p for p in tool.spec.parameters if not p.keyword_only])
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        if (match := _NAMED.fullmatch(word)) is None:
            args.append(_value(word, next(places, None), tool))
        elif match[1] in parameters or tool.spec.open:
            kwargs[match[1]] = _value(match[2], parameters.get(match[1]), tool)
        else:
            raise ArgumentError(
                f"{tool.name} has no parameter {match[1]!r}. {_hint(match[1], list(parameters))}",
                tool=tool.name,
                argument=match[1],
            )
    valid, named = tool.signature.validate(tuple(args), kwargs)
    return valid, {name: named[name] for name in kwargs}  # without the defaults


def _value(word: str, parameter: Parameter | None, tool: Tool[..., Any]) -> Any:
    """The word itself where text fits the schema, what it says as JSON where that fits."""
    schema: Mapping[str, Any] = {} if parameter is None else parameter.schema
    try:
        value = json.loads(word)
    except (ValueError, RecursionError):
        return word
    if schema.keys().isdisjoint(_TYPED) or mismatch(word, schema, tool.spec.definitions):
        return value
    return word


def _hint(name: str, known: Sequence[str]) -> str:
    return nearest(name, known) if known else "It takes no arguments."
