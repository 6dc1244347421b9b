"""``agentflow tools``: the tools of a run, what they take, and what they may do to the world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentflow.cli import codes
from agentflow.cli.output import listed, print_json
from agentflow.cli.screen import Screen, show
from agentflow.cli.toolset import toolbox
from agentflow.tools.spec import Parameter, ToolSpec
from agentflow.tools.tool import Tool

UNDECLARED = (
    "such calls do nothing that can be seen before the end of a plan, or a turn, that a model "
    "writes, and are never cached, merged or started on a guess."
)
"""What becomes of calls of tools that declare no effect."""


def command(options: Any, _screen: Screen) -> int:
    """List the tools that the options ask for; the exit code."""
    tools = list(toolbox(options, root=".").values())
    if options.json:
        print_json([_as_json(tool) for tool in tools])
        return codes.OK
    show("\n\n".join("\n".join(_described(tool)) for tool in tools))
    silent = [tool for tool in tools if tool.effect.kind == "undeclared"]
    if silent:
        print(
            f"\n{', '.join(tool.name for tool in silent)}: no effect declared; {UNDECLARED}"
            f"{next(filter(None, map(advice, silent)), '')}"
        )
    return codes.OK


def advice(tool: Tool[..., Any]) -> str:
    """A sentence on how to declare an effect, for whoever can: not of a tool of ours."""
    if tool.fn.__module__.startswith("agentflow."):
        return ""
    lines = '@tool(pure=True), @tool(reads="web") or @tool(writes="orders")'
    return f" One line changes that: {lines}."


def _as_json(tool: Tool[..., Any]) -> dict[str, Any]:
    spec, effect = tool.spec, tool.effect
    return {
        "name": spec.name,
        "description": spec.description,
        "effect": {
            "kind": effect.kind,
            "resources": list(effect.resources),
            "idempotent": effect.idempotent,
        },
        "parameters": spec.schema(),
        "returns": spec.returns,
        "partial": _partial(tool),
    }


def _partial(tool: Tool[..., Any]) -> dict[str, Any]:
    """What it can do while a model still writes a call of it."""
    early, checks = tool.signature.roles.early, tool.signature.checks
    return {
        "warms_up": tool.origin.warm_up is not None,
        "streamed": [name for name, how in early.items() if how == "stream"],
        "late": [name for name, how in early.items() if how == "late"],
        "checked": [name for name in tool.signature.names if name in checks],
    }


def _described(tool: Tool[..., Any]) -> Iterator[str]:
    spec = tool.spec
    parameters = ", ".join(_parameter(p, spec) for p in spec.parameters)
    result = f" -> {_type(spec.returns, spec)}" if spec.returns else ""
    yield f"{spec.name}({parameters}){result}"
    yield f"    {spec.effect}"
    if early := "; ".join(_early(_partial(tool))):
        yield f"    while a call is written: {early}"
    if first := spec.description.partition("\n")[0]:
        yield f"    {first}"


def _early(partial: Mapping[str, Any]) -> Iterator[str]:
    if partial["warms_up"]:
        yield "warms up"
    if partial["streamed"]:
        yield f"reads {listed(partial['streamed'])}"
    if partial["late"]:
        yield f"begins before {listed(partial['late'])}"
    if partial["checked"]:
        yield f"checks {listed(partial['checked'])}"


def _parameter(parameter: Parameter, spec: ToolSpec) -> str:
    text = f"{parameter.name}: {_type(parameter.schema, spec)}"
    if parameter.required:
        return text
    return (
        f"{text} = {parameter.schema['default']!r}" if "default" in parameter.schema else f"{text}?"
    )


def _type(schema: Mapping[str, Any], spec: ToolSpec) -> str:
    """A JSON schema in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if options := schema.get("anyOf"):
        return " | ".join(dict.fromkeys(_type(option, spec) for option in options))
    if "enum" in schema:
        return " | ".join(map(repr, schema["enum"]))
    if schema.get("type") == "array" and schema.get("items"):
        return f"list of {_type(schema['items'], spec)}"
    return str(schema.get("title") or schema.get("type", "any"))
