"""The JSON form of scripts, plan errors and tool lists, for checks from outside.

A reference is ``{"$ref": 1}``, with a path ``{"$ref": 1, "path": ["hits", 0, "*"]}``; a map
is ``{"$each": ...}``; a string with references in it is its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentflow.errors import PlanError
from agentflow.planner.plan import ALL, Arg, Each, Ref, Template
from agentflow.planner.printer import template_text
from agentflow.planner.script import JoinMark, Line, Return, Script
from agentflow.tools.effects import UNDECLARED, Effect, Kind
from agentflow.tools.spec import Parameter, ToolSpec


def script_as_json(script: Script) -> dict[str, Any]:
    """The script as plain data."""
    out: dict[str, Any] = {
        "ok": True,
        "tasks": [_line(line) for line in script.lines],
        "join": {"id": script.end.id} if isinstance(script.end, JoinMark) else None,
        "warnings": [warning.kind for warning in script.warnings],
    }
    if isinstance(script.end, Return):
        out["return"] = _value(script.end.value, iter(script.end.texts))
    return out


def error_as_json(error: PlanError) -> dict[str, Any]:
    """A plan's error as plain data."""
    return {"ok": False, "error": error.kind, "at": error.at, "message": str(error)}


def tools_from_json(entries: Iterable[Mapping[str, Any]]) -> dict[str, ToolSpec]:
    """Tool specifications from plain data.

    Args:
        entries: Each has ``name``, ``params`` (names in order) and ``required`` (how many of
            them), and may have ``schema`` (JSON schema of the arguments), ``effect`` (a kind,
            or ``{"kind", "resources", "idempotent"}``), ``open`` and ``description``.
    """
    return {tool.name: tool for tool in map(_tool, entries)}


def _line(line: Line) -> dict[str, Any]:
    texts = iter(line.texts)
    out: dict[str, Any] = {
        "id": line.id,
        "tool": line.tool,
        "args": [_value(value, texts) for value in line.args],
        "kwargs": {name: _value(value, texts) for name, value in line.kwargs},
        "deps": sorted({ref.node for ref in line.refs()}),
    }
    if line.thought:
        out["thought"] = line.thought
    if line.guard is not None:
        out["if"] = _ref(line.guard)
    if line.join.kind != "all":
        out["policy"] = str(line.join)
    return out


def _value(value: Arg, texts: Iterator[str]) -> Any:
    if isinstance(value, Ref):
        return _ref(value)
    if isinstance(value, Template):
        return next(texts, None) or template_text(value)
    if isinstance(value, Each):
        return {"$each": _value(value.source, texts)}
    if isinstance(value, dict):
        return {key: _value(item, texts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(item, texts) for item in value]
    return value


def _ref(ref: Ref) -> dict[str, Any]:
    if not ref.path:
        return {"$ref": ref.node}
    return {"$ref": ref.node, "path": ["*" if step is ALL else step for step in ref.path]}


def _tool(entry: Mapping[str, Any]) -> ToolSpec:
    required = int(entry.get("required", 0))
    schemas = entry.get("schema", {}).get("properties", {})
    return ToolSpec(
        name=entry["name"],
        parameters=tuple(
            Parameter(name, required=index < required, schema=schemas.get(name, {}))
            for index, name in enumerate(entry.get("params", ()))
        ),
        open=bool(entry.get("open", False)),
        effect=_effect(entry.get("effect")),
        description=entry.get("description", ""),
    )


def _effect(given: Kind | Mapping[str, Any] | None) -> Effect:
    if given is None:
        return UNDECLARED
    if isinstance(given, str):
        return Effect(given)
    return Effect(
        given["kind"], tuple(given.get("resources", ())), bool(given.get("idempotent", False))
    )
