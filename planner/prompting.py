"""Prompts: files of their own, laid out so that what does not change comes first.

Tools are sorted by name and described the same way every time, so that two requests with the
same tools share their prefix byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from agentflow.tools.spec import Parameter, ToolSpec
from agentflow.tools.values import as_text

RESULT_LIMIT = 4_000
"""Characters of one result that a model is shown, unless its tool or its engine says otherwise."""

OBSERVED_LIMIT = 32_000
"""Characters of results that a model is shown at once; the oldest are cut."""

CUT = 8_000
"""Characters that are cut at once, so that what is left begins as it did for a while."""


_LINE_END = re.compile(r"\r\n?|[\n\v\f\x1c-\x1e\x85\u2028\u2029]")  # as `str.splitlines` has them


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


# What a planner and a joiner are told in the course of a task


def question(text: str) -> str:
    """The question, as planners and joiners read it."""
    return f"Question: {text}"


def observation(line: str, result: str) -> str:
    """A line of a plan and what came of it, in which nothing looks like another line."""
    return f"{shown(line)}\n-> {_indented(result)}"


def further_plan(
    observed: Sequence[str],
    *,
    reason: str,
    not_called: Sequence[int] = (),
    written: Sequence[int] = (),
    following: int,
) -> str:
    """Asks for the next plan.

    Args:
        observed: What came of the last one.
        reason: Why another one is needed.
        not_called: Lines of the last one that were not run.
        written: Lines that changed something, in all plans.
        following: The first number that is free.
    """
    parts = []
    if observed:
        parts.append(_observations(observed))
    if not_called:
        parts.append(f"Not called, because the plan broke off: {_ids(not_called)}")
    if written:
        parts.append(f"Done already, do not do it again: {_ids(written)}")
    parts.append(f"Why another plan is needed: {_indented(reason)}")
    parts.append(f"Write the next plan. Number its lines from ${following} on.")
    return "\n\n".join(parts)


def joining(asked: str, observed: Sequence[str]) -> str:
    """Asks for the answer; when more was observed it only grows, unless `lost` does.

    Args:
        asked: The question.
        observed: What came of all calls so far.
    """
    return f"{question(asked)}\n\n{_observations(observed)}"


def closing(problem: str, *, last: bool) -> str:
    """What a joiner is told of the moment, after everything else; perhaps nothing.

    Args:
        problem: What went wrong with the last plan, if something did.
        last: There can be no further plan.
    """
    parts = [f"The last plan failed: {_indented(problem)}"] if problem else []
    if last:
        parts.append("There is no further plan: answer with what there is.")
    return "\n\n".join(parts)


def lost(observed: Sequence[str]) -> int:
    """How many characters are cut, at the beginning, of what was observed."""
    return _lost("\n".join(observed))


def _lost(text: str) -> int:
    over = max(0, len(text) - OBSERVED_LIMIT)
    return -(-over // CUT) * CUT


def _observations(observed: Sequence[str]) -> str:
    text = "\n".join(observed) or "(none)"
    if lost := _lost(text):
        # Half a line must not look like one of the plan.
        text = f"(the first {lost} characters were cut)\n   ...{text[lost:]}"
    return f"Observations:\n\n{text}"


def _indented(text: str) -> str:
    """A text of others within ours: all of its lines but the first are set off."""
    return _LINE_END.sub("\n   ", text)


def _ids(lines: Sequence[int]) -> str:
    return ", ".join(f"${line}" for line in lines)


# Tools and values


def describe(spec: ToolSpec) -> str:
    """A tool as a planner reads it: its signature, then its description."""
    parameters = [_parameter(p, spec.definitions) for p in spec.parameters]
    parameters += ["*args"] if spec.rest else []
    parameters += ["**kwargs"] if spec.open else []
    returns = _type(spec.returns, spec.returns.get("$defs", {}))
    head = f"{spec.name}({', '.join(parameters)})"
    lines = [f"{head} -> {returns}" if returns else head]
    lines += [f"    {line}".rstrip() for line in spec.description.splitlines()]
    return "\n".join(lines)


def shown(value: Any, limit: int = RESULT_LIMIT) -> str:
    """A value as a model is shown it: of a long one its beginning and its end, and how long it is."""
    text = as_text(value)
    if len(text) <= limit:
        return text
    tail = limit // 4
    cut = f"... ({len(text) - limit} of {len(text)} characters were cut) ..."
    return f"{text[: limit - tail]} {cut} {text[len(text) - tail :]}".rstrip()


def kept(text: str, name: str, limit: int = RESULT_LIMIT) -> str:
    """The beginning of a long text that has been put by under a name, and how to read on."""
    rest = f"({len(text) - limit} of {len(text)} characters are left out"
    return f'{text[:limit]} ... {rest}: read_output(id="{name}", start={limit}) reads on)'


def _sorted(tools: Iterable[ToolSpec]) -> list[ToolSpec]:
    return sorted(tools, key=lambda spec: spec.name)


def _parameter(p: Parameter, definitions: Mapping[str, Any]) -> str:
    kind = _type(p.schema, definitions)
    text = f"{p.name}: {kind}" if kind else p.name
    if not p.required:
        default = p.schema.get("default", ...)
        text += f" = {'...' if default is ... else json.dumps(default, ensure_ascii=False)}"
    return text


_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_DEEPEST = 4  # types may refer to themselves


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int = 0) -> str:
    """A JSON schema as a short Python-like type; empty if it says nothing."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        known = definitions.get(name, {})
        return (_type(known, definitions, depth + 1) if depth < _DEEPEST else "") or name
    for word in ("const", "enum"):
        if word in schema:
            values = schema[word] if word == "enum" else [schema[word]]
            return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            parts = (_type(part, definitions, depth + 1) for part in schema[word])
            return " | ".join(dict.fromkeys(filter(None, parts)))
    kind = schema.get("type")
    if kind == "array":
        inner = _type(schema.get("items", {}), definitions, depth + 1)
        return f"list[{inner}]" if inner else "list"
    if kind == "object":
        names = ", ".join(schema.get("properties", {}))
        return f"{{{names}}}" if names else "dict"
    return _TYPES.get(kind, "") if isinstance(kind, str) else ""
