"""Whether a literal can be what a JSON schema asks for.

Only what is certainly wrong is reported: a tool's own validation reads ``"5"`` as a number and
text as a date, so what is in doubt is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

_GIVEN = {
    dict: "an object",
    list: "a list",
    tuple: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
_WANTED = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "null",
}
_TRUTHS = frozenset(["0", "1", "on", "off", "t", "f", "true", "false", "y", "n", "yes", "no"])


def mismatch(value: Any, schema: Schema, definitions: Schema, where: str = "it") -> str:
    """What is certainly wrong with a literal, such as ``it must be a list, not text``; or empty."""
    if type(value) not in _GIVEN:
        return ""
    if isinstance(target := schema.get("$ref"), str):
        schema = definitions.get(target.rpartition("/")[2], {})
    for choice in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(choice), Sequence) and options:
            found = [mismatch(value, option, definitions, where) for option in options]
            return "" if "" in found else ", or ".join(dict.fromkeys(found))
    if isinstance(options := schema.get("enum"), Sequence):
        return _not_among(value, options, where)
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _WANTED:
        return ""
    if not _can_be(value, kind, formatted="format" in schema):
        return f"{where} must be {_WANTED[kind]}, not {_GIVEN[type(value)]}"
    return _inside(value, schema, definitions, where)


def _can_be(value: Any, kind: str, formatted: bool) -> bool:
    given = type(value)
    match kind:
        case "string":
            return given is str or (formatted and given in (int, float))  # dates as timestamps
        case "integer":
            return given in (int, bool) or _is_number(value, whole=True)
        case "number":
            return given in (int, float, bool) or _is_number(value)
        case "boolean":
            return given is bool or str(value).lower() in _TRUTHS or value in (0, 1)
        case "array":
            return given in (list, tuple)
        case "object":
            return given is dict
    return value is None


def _is_number(value: Any, whole: bool = False) -> bool:
    if not isinstance(value, str | float):
        return False
    try:
        number = float(value)
    except ValueError:
        return False
    return number.is_integer() if whole else True


def _not_among(value: Any, options: Sequence[Any], where: str) -> str:
    if value in options or str(value) in map(str, options):
        return ""
    return f"{where} must be one of {', '.join(map(repr, options))}, not {value!r}"


def _inside(value: Any, schema: Schema, definitions: Schema, where: str) -> str:
    """The first thing wrong inside a list or an object."""
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        parts = [(f"{where}.{key}", item, inner.get(key, {})) for key, item in value.items()]
        missing = [name for name in schema.get("required", ()) if name not in value]
        if missing:
            return f"{where} lacks {missing[0]!r}"
    elif isinstance(value, list | tuple):
        inner = schema.get("items", {})
        parts = [(f"{where}[{index}]", item, inner) for index, item in enumerate(value)]
    else:
        return ""
    for place, item, wanted in parts:
        if isinstance(wanted, Mapping) and (wrong := mismatch(item, wanted, definitions, place)):
            return wrong
    return ""
