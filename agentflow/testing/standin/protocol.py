"""Reads the requests of a planner, a joiner and a tool-calling loop, and writes plans."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from agentflow.testing.chat import ChatCall, text_of
from agentflow.testing.standin.evidence import Evidence, Observation
from agentflow.testing.standin.moves import Move
from agentflow.testing.standin.toolbox import Role, Toolbox

PLANNER = "Write the plan in the notation."
JOINER = "Answer the question from the observations, or ask for another plan."

_QUESTION = re.compile(
    r"^[#*> ]*(?:Question|Task)[* ]*:[*\s]*(.+?)(?=\n\s*\n|\n#|\n\w[\w ]*:|\Z)",
    re.MULTILINE | re.DOTALL,
)
_LINE = re.compile(r"^(?:[-*]\s+)?\$(\d+)\s*=\s*([A-Za-z_][\w.-]*)\((.*)$", re.MULTILINE)
_ARGUMENT = re.compile(r"""(\w+)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|-?\d+(?:\.\d+)?)""")


class Kind(Enum):
    """What a request asks for."""

    PLAN = "plan"
    JOIN = "join"
    ACT = "act"
    CHAT = "chat"


def this_turn(call: ChatCall) -> ChatCall:
    """A request without the turns of its session that have been answered."""
    begins = 0
    for place, message in enumerate(call.messages):
        answered = message.get("role") == "assistant" and not message.get("tool_calls")
        if answered and not _LINE.search(text_of(message)):  # a plan is no answer
            begins = place + 1
    if not begins or begins == len(call.messages):
        return call
    told = [m for m in call.messages[:begins] if m.get("role") in ("system", "developer")]
    return replace(call, body={**call.body, "messages": [*told, *call.messages[begins:]]})


def kind_of(call: ChatCall) -> Kind:
    """Recognise a request by its messages alone."""
    system = call.said_by("system") + call.said_by("developer")
    if PLANNER in system:
        return Kind.PLAN
    if JOINER in system:
        return Kind.JOIN
    return Kind.ACT if call.tools else Kind.CHAT


def question_of(call: ChatCall) -> str:
    """The question: after ``Question:``, else the first paragraph a user wrote."""
    said = [text_of(m) for m in call.messages if m.get("role") == "user"]
    for text in said:
        if match := _QUESTION.search(text):
            return match[1].strip()
    return said[-1].strip().split("\n\n")[0] if said else ""


def observed(call: ChatCall) -> Evidence:
    """Everything the request tells of earlier calls, in text or in tool messages."""
    evidence = Evidence()
    for message in call.messages:
        text = text_of(message)
        if message.get("role") == "user":
            for observation in _in_text(text):
                evidence.absorb(observation)
        elif message.get("role") == "assistant":  # a plan, whose observations may be cut
            written = (_arguments(line[3]) for line in _LINE.finditer(text))
            evidence.tried.update(str(a["pattern"]).lower() for a in written if "pattern" in a)
    for observation in _in_tool_messages(call.messages):
        evidence.absorb(observation)
    return evidence


def first_free_id(call: ChatCall) -> int:
    """The number after the last line of the plans written so far."""
    return 1 + max(
        (
            int(line[1])
            for message in call.messages
            if message.get("role") in ("assistant", "user")
            for line in _LINE.finditer(text_of(message))
        ),
        default=0,
    )


def must_answer(call: ChatCall) -> bool:
    """Whether a joiner is told that no further plan is possible."""
    return "no further plan" in call.said_by("user").rpartition("\n\n")[2]


def plan_text(moves: Sequence[Move], toolbox: Toolbox, first: int = 1) -> str:
    """The moves in the notation, without those that no tool on offer can make.

    Args:
        moves: What to do.
        toolbox: With what.
        first: Id of the first line.
    """
    ids: dict[int, int] = {}
    lines: list[str] = []
    for move in moves:
        if not toolbox.offers(move.role) or (move.of is not None and id(move.of) not in ids):
            continue
        ids[id(move)] = first + len(lines)
        source = f"${ids[id(move.of)]}" if move.of is not None else ""
        literals = {name: _literal(value) for name, value in move.arguments.items()}
        spelt = toolbox.arguments(move.role, {**_place(move, source), **literals})
        written = ", ".join(f"{name}={value}" for name, value in spelt.items())
        guard = f" if {source}" if source and not move.every else ""
        lines.append(f"${ids[id(move)]} = {toolbox.name(move.role)}({written}){guard}")
    return "\n".join([*lines, "join()"])


def _literal(value: Any) -> str:
    """A value in the notation; a dollar sign in it is never a reference."""
    return json.dumps(value, ensure_ascii=False).replace("$", "\\u0024")


def _place(move: Move, source: str) -> dict[str, str]:
    """The arguments that say where to read, taken from an earlier result."""
    if move.of is None:
        return {}
    if move.of.role is Role.LIST:
        return {"path": f"{source}[0]"}
    if move.every:
        return {"path": f"each {source}[*].file", "start": f"each {source}[*].line"}
    return {"path": f"{source}[0].file", "start": f"{source}[0].line"}


def _in_text(text: str) -> Iterator[Observation]:
    """Lines ``$3 = tool(...)``, each followed by its indented result."""
    heads = list(_LINE.finditer(text))
    for number, head in enumerate(heads):
        end = heads[number + 1].start() if number + 1 < len(heads) else len(text)
        below = text[head.end() : end].split("\n")[1:]
        if result := "\n".join(_indented(below)):
            yield Observation(head[2], _arguments(head[3]), result)


def _indented(lines: Sequence[str]) -> Iterator[str]:
    """The lines that belong to the result: indented, blank between, or after an arrow."""
    for number, line in enumerate(lines):
        if line.strip() and not line[0].isspace() and not (number == 0 and line.startswith("->")):
            return
        yield line.removeprefix("->").strip() if number == 0 else line.strip()


def _arguments(text: str) -> dict[str, Any]:
    """The literal keyword arguments of a plan line."""
    found = {}
    for name, literal in _ARGUMENT.findall(text):
        try:
            found[name] = ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            continue
    return found


def _in_tool_messages(messages: Sequence[Mapping[str, Any]]) -> Iterator[Observation]:
    """The results in messages of role ``tool``, with the calls they answer."""
    calls = {
        call.get("id"): call["function"]
        for message in messages
        for call in message.get("tool_calls") or ()
        if "function" in call
    }
    for message in messages:
        if message.get("role") != "tool":
            continue
        function = calls.get(message.get("tool_call_id"))
        if function is not None:
            arguments = _json_object(function.get("arguments", ""))
            yield Observation(function.get("name", ""), arguments, text_of(message))


def _json_object(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
