"""Plans as JSON, and back: ``plan_from_json(to_json(plan)) == plan``.

A reference is ``{"$ref": 1, "path": ["hits", 0]}``, where ``"*"`` stands for every element.
``$each``, ``$text``, ``$tuple``, ``$bytes`` and ``$float`` mark what JSON has no form for, and
``{"$dict": [[key, value], ...]}`` is an object whose keys are not text or look like a mark.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NoReturn

from agentflow.errors import PlanError
from agentflow.planner.plan import (
    ALL,
    JOIN_ALL,
    Answer,
    Arg,
    Each,
    Join,
    Node,
    PathStep,
    Plan,
    Ref,
    Template,
)
from agentflow.planner.verify import line_id
from agentflow.tools.policy import DEFAULT, Policy

VERSION = 1

_PLAIN = (str, int, bool, type(None))
_OPTIONS = ("timeout", "idle", "retries", "backoff", "backoff_limit", "limit", "rate")


def to_json(plan: Plan) -> str:
    """A plan as JSON text.

    Raises:
        PlanError: An argument, or an option of a call, has no JSON form.
    """
    result = {"answer": plan.result.value} if isinstance(plan.result, Answer) else None
    data = {
        "version": VERSION,
        "base": plan.base,
        "nodes": [_node(index, node) for index, node in plan.items()],
        "result": result or {"return": _arg(plan.result, None)},
    }
    return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2)


def plan_from_json(text: str) -> Plan:
    """The plan that `to_json` wrote.

    Raises:
        PlanError: The text is not such a plan.
    """
    try:
        data = json.loads(text, parse_constant=_refuse)
        if data["version"] != VERSION:
            raise PlanError("bad_json", f"this is version {data['version']!r}, not {VERSION}")
        result = data["result"]
        return Plan(
            tuple(map(_read_node, data["nodes"])),
            _read(result["return"]) if "return" in result else Answer(result["answer"]),
            data["base"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, PlanError):
            raise
        text = f"{type(error).__name__}: {error}"
        raise PlanError("bad_json", f"the text is not a plan in JSON ({text})") from None


def _node(index: int, node: Node) -> dict[str, Any]:
    at = line_id(index, node)
    data: dict[str, Any] = {
        "id": index,
        "tool": node.tool,
        "args": [_arg(value, at) for value in node.args],
        "kwargs": {name: _arg(value, at) for name, value in node.kwargs},
    }
    if node.guard is not None:
        data["guard"] = _arg(node.guard, at)
    if node.join != JOIN_ALL:
        data["join"] = {"kind": node.join.kind, "count": node.join.count}
    if node.options is not None:
        data["options"] = _options(node.options, at)
    optional = {"after": list(node.after), "rank": node.rank, "speculable": node.speculable}
    data.update({name: value for name, value in optional.items() if value})
    if node.label is not None:
        data["label"] = node.label
    return data


def _read_node(data: dict[str, Any]) -> Node:
    join = data.get("join")
    return Node(
        data["tool"],
        tuple(map(_read, data["args"])),
        tuple((name, _read(value)) for name, value in data["kwargs"].items()),
        _read(data["guard"]) if "guard" in data else None,
        JOIN_ALL if join is None else Join(join["kind"], join["count"]),
        tuple(data.get("after", ())),
        DEFAULT.revised(**data["options"]) if "options" in data else None,
        data.get("rank", 0.0),
        data.get("speculable", False),
        _label(data.get("label")),
    )


def _refuse(constant: str) -> NoReturn:
    """Python's JSON has NaN and Infinity; a plan writes them as marks."""
    raise ValueError(f"{constant} is no JSON")


def _label(label: Any) -> int | None:
    if label is not None and type(label) is not int:
        raise ValueError(f"{label!r} is not the number of a line")
    return label


def _options(options: Any, at: int) -> dict[str, Any]:
    """The fields of a policy that are not the default."""
    if not isinstance(options, Policy):
        raise _no_form(options, at)
    changed = [
        f.name for f in fields(Policy) if getattr(options, f.name) != getattr(DEFAULT, f.name)
    ]
    for name in changed:
        if name not in _OPTIONS:
            raise PlanError("bad_json", f"the option {name!r} has no JSON form", at)
    return {name: getattr(options, name) for name in changed}


def _arg(value: Arg, at: int | None) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is Ref:
        path = {"path": [_step(step) for step in value.path]} if value.path else {}
        return {"$ref": value.node, **path}
    if kind is list:
        return [_arg(item, at) for item in value]
    if kind is dict:
        return _dict(value, at)
    if kind is tuple:
        return {"$tuple": [_arg(item, at) for item in value]}
    if kind is Each:
        return {"$each": _arg(value.source, at)}
    if kind is Template:
        return {"$text": [_arg(part, at) for part in value.parts]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    raise _no_form(value, at)


def _dict(value: dict[Any, Arg], at: int | None) -> dict[str, Any]:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _arg(item, at) for key, item in value.items()}
    return {"$dict": [[_arg(key, at), _arg(item, at)] for key, item in value.items()]}


def _no_form(value: Any, at: int | None) -> PlanError:
    return PlanError("bad_json", f"a value of type {type(value).__name__} has no JSON form", at)


def _step(step: PathStep) -> Any:
    if step is ALL:
        return "*"
    return {"key": "*"} if step == "*" else step


def _read_step(step: Any) -> PathStep:
    if isinstance(step, dict):
        step = step["key"]
    elif step == "*":
        return ALL
    if type(step) is str or type(step) is int:
        return step
    raise ValueError(f"{step!r} is not a step of a path")


def _read(data: Any) -> Arg:
    if isinstance(data, list):
        return [_read(item) for item in data]
    if not isinstance(data, dict):
        return data
    mark = next(iter(data), "")
    if not mark.startswith("$"):
        return {key: _read(item) for key, item in data.items()}
    if mark not in _READERS:
        raise ValueError(f"there is no mark {mark!r}")
    return _READERS[mark](data)


def _read_ref(data: dict[str, Any]) -> Ref:
    if type(data["$ref"]) is not int:
        raise ValueError(f"{data['$ref']!r} is not an id")
    return Ref(data["$ref"], tuple(map(_read_step, data.get("path", ()))))


_READERS: dict[str, Callable[[dict[str, Any]], Arg]] = {
    "$ref": _read_ref,
    "$each": lambda data: Each(_read(data["$each"])),
    "$text": lambda data: Template(tuple(map(_read, data["$text"]))),
    "$tuple": lambda data: tuple(map(_read, data["$tuple"])),
    "$dict": lambda data: {_read(key): _read(value) for key, value in data["$dict"]},
    "$bytes": lambda data: base64.b64decode(data["$bytes"]),
    "$float": lambda data: float(data["$float"]),
}
