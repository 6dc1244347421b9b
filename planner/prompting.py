"""Prompts: files of their own, laid out so that what does not change comes first.

Tools are sorted by name and described the same way every time, so that two requests with the
same tools share their prefix byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from agentflow.tools.spec import Parameter, ToolSpec
from agentflow.tools.values import as_text

RESULT_LIMIT = 4_000
"""Characters of one result that a model is shown."""


@cache
def prompt(name: str) -> str:
    """The text of a prompt file."""
    return (files("agentflow.planner") / "prompts" / f"{name}.md").read_text(encoding="utf-8")


def planner_prompt(tools: Iterable[ToolSpec]) -> str:
    """The system message of a planner."""
    listed = "\n".join(describe(spec) for spec in _sorted(tools))
    return prompt("plan").replace("{tools}", listed or "(none)").rstrip() + "\n"


def tool_definitions(tools: Iterable[ToolSpec]) -> list[dict[str, Any]]:
    """The tools as a chat API takes them."""
    return [
        {
            "type": "function",
            "function": {
                "name": spec.name,
                "description": spec.description,
                "parameters": spec.schema(),
            },
        }
        for spec in _sorted(tools)
    ]


def describe(spec: ToolSpec) -> str:
    """A tool as a planner reads it: its signature, then its description."""
    inside = ", ".join(_parameter(p) for p in spec.parameters)
    returns = f" -> {_type(spec.returns, spec.returns)}" if spec.returns else ""
    lines = [f"{spec.name}({inside}){returns}"]
    lines += [f"    {line}".rstrip() for line in spec.description.splitlines()]
    return "\n".join(lines)


def shown(value: Any, limit: int = RESULT_LIMIT) -> str:
    """A value as a model is shown it, cut where it is long, and saying so."""
    text = as_text(value)
    if len(text) <= limit:
        return text
    return f"{text[:limit]} ... ({len(text) - limit} more characters were cut)"


def observation(line: str, result: str) -> str:
    """A line of a plan and what came of it."""
    body = result.replace("\n", "\n   ")
    return f"{line}\n-> {body}"


def _sorted(tools: Iterable[ToolSpec]) -> list[ToolSpec]:
    return sorted(tools, key=lambda spec: spec.name)


def _parameter(p: Parameter) -> str:
    kind = _type(p.schema, p.schema)
    text = f"{p.name}: {kind}" if kind else p.name
    if not p.required:
        text += f" = {json.dumps(p.schema.get('default'), ensure_ascii=False)}"
    return text


_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def _type(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """A JSON schema as a short Python-like type."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        found = root.get("$defs", {}).get(name)
        return _fields(found, root) if found else name
    if "enum" in schema:
        return " | ".join(json.dumps(item, ensure_ascii=False) for item in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(filter(None, (_type(part, root) for part in schema["anyOf"])))
    kind = schema.get("type")
    if kind == "array":
        inner = _type(schema.get("items", {}), root)
        return f"list[{inner}]" if inner else "list"
    if kind == "object":
        return _fields(schema, root)
    return _TYPES.get(kind, "") if isinstance(kind, str) else ""


def _fields(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    names = ", ".join(schema.get("properties", {}))
    return f"{{{names}}}" if names else "dict"
