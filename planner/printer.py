"""Prints scripts and plans in the notation; reading gives the same back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

from agentflow.planner.escapes import quoted
from agentflow.planner.plan import ALL, Answer, Arg, Each, Join, Node, PathStep, Plan, Ref, Template
from agentflow.planner.script import End, JoinMark, Line, Return, Script

_FIELD = re.compile(r"[^\W\d]\w*")


def print_script(script: Script) -> str:
    """The script as text, one call a line."""
    lines = [print_line(line) for line in script.lines]
    if end := _end(script.end):
        lines.append(end)
    return "".join(f"{line}\n" for line in lines)


def print_line(line: Line) -> str:
    """One line of a script, its thoughts above it."""
    thoughts = "".join(f"Thought: {text}\n" for text in line.thought.split("\n") if text)
    call = _call(line.tool, line.args, line.kwargs, 0)
    return f"{thoughts}${line.id} = {call}{_suffix(line.join, line.guard, 0)}"


def print_plan(plan: Plan) -> str:
    """The plan as text: node 0 is ``$1``. What must come first is shown in a comment."""
    lines = [print_node(index, node) for index, node in plan.items()]
    if plan.result is Answer.JOIN:
        lines.append("join()")
    elif plan.result is not Answer.NOTHING:
        lines.append(f"return {print_value(plan.result, shift=1)}")
    return "".join(f"{line}\n" for line in lines)


def print_node(index: int, node: Node) -> str:
    """One line of a plan."""
    text = f"${index + 1} = {_call(node.tool, node.args, node.kwargs, 1)}"
    text += _suffix(node.join, node.guard, 1)
    if node.after:
        text += f"  # after {', '.join(f'${before + 1}' for before in node.after)}"
    return text


def print_value(value: Arg, shift: int = 0) -> str:
    """One argument.

    Args:
        value: The argument. What the notation cannot hold is shown as ``<its type>``.
        shift: Added to the ids of references: 1 prints the indices of a plan as ids.
    """
    if isinstance(value, Ref):
        return f"${value.node + shift}{print_path(value.path)}"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Template):
        return _template(value, shift)
    if isinstance(value, Each):
        return f"each {print_value(value.source, shift)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(print_value(item, shift) for item in value)}]"
    if isinstance(value, dict):
        pairs = (f"{_key(key)}: {print_value(item, shift)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if (
        value is None
        or isinstance(value, int)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return repr(value)
    return f"<{type(value).__name__}>"


def print_path(path: Sequence[PathStep]) -> str:
    """The steps after a reference: ``.hits[0]["a b"][*]``."""
    return "".join(map(_step, path))


def template_text(template: Template, shift: int = 0) -> str:
    """The text of a string with references, each in braces."""
    return "".join(
        part if isinstance(part, str) else _braced(part, shift) for part in template.parts
    )


def _call(tool: str, args: Sequence[Arg], kwargs: Sequence[tuple[str, Arg]], shift: int) -> str:
    given = [print_value(value, shift) for value in args]
    given += [f"{name}={print_value(value, shift)}" for name, value in kwargs]
    return f"{tool}({', '.join(given)})"


def _suffix(join: Join, guard: Ref | None, shift: int) -> str:
    policy = "" if join.kind == "all" else f" join {join}"
    return policy if guard is None else f"{policy} if {print_value(guard, shift)}"


def _end(end: End) -> str:
    if isinstance(end, Return):
        return f"return {print_value(end.value)}"
    if isinstance(end, JoinMark):
        return "join()" if end.id is None else f"${end.id} = join()"
    return ""


def _key(key: object) -> str:
    return quoted(key) if isinstance(key, str) else json.dumps(str(key))


def _step(step: PathStep) -> str:
    if step is ALL:
        return "[*]"
    if isinstance(step, str):
        return f".{step}" if _FIELD.fullmatch(step) else f"[{json.dumps(step, ensure_ascii=False)}]"
    return f"[{step}]"


def _braced(ref: Ref, shift: int) -> str:
    return f"${{{ref.node + shift}{print_path(ref.path)}}}"


def _template(template: Template, shift: int) -> str:
    parts = []
    for part in template.parts:
        if isinstance(part, str):
            parts.append(quoted(part)[1:-1])
            continue
        if parts and parts[-1].endswith("\\\\"):  # a backslash would make the dollar plain
            parts[-1] = parts[-1][:-2] + "\\x5c"
        parts.append(json.dumps(_braced(part, shift), ensure_ascii=False)[1:-1])
    return f'"{"".join(parts)}"'
