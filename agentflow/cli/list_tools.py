"""``agentflow tools``: the tools of a run, what they take, and what they may do to the world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentflow.cli import codes
from agentflow.cli.output import print_json
from agentflow.cli.toolset import toolbox
from agentflow.tools.spec import Parameter, ToolSpec

ONE_LINE = '@tool(pure=True), @tool(reads="web") or @tool(writes="orders")'
"""What to write so that a tool declares its effect."""


def command(options: Any) -> int:
    """List the tools that the options ask for; the exit code."""
    specs = [tool.spec for tool in toolbox(options, root=".").values()]
    if options.json:
        print_json([_as_json(spec) for spec in specs])
        return codes.OK
    print("\n\n".join("\n".join(_described(spec)) for spec in specs))
    silent = [spec.name for spec in specs if spec.effect.kind == "undeclared"]
    if silent:
        print(
            f"\n{', '.join(silent)}: no effect declared. Such calls wait for the end of a plan that "
            "a model writes, and are never cached, merged or started early.\n"
            f"One line changes that: {ONE_LINE}."
        )
    return codes.OK


def _as_json(spec: ToolSpec) -> dict[str, Any]:
    effect = spec.effect
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
    }


def _described(spec: ToolSpec) -> Iterator[str]:
    parameters = ", ".join(_parameter(p, spec) for p in spec.parameters)
    result = f" -> {_type(spec.returns, spec)}" if spec.returns else ""
    yield f"{spec.name}({parameters}){result}"
    yield f"    {spec.effect}"
    if first := spec.description.partition("\n")[0]:
        yield f"    {first}"


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
