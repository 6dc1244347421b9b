"""The JSON form of scripts, errors and tools."""

from __future__ import annotations

import json

from agentflow.errors import PlanError
from agentflow.planner.jsonform import error_as_json, script_as_json, tools_from_json
from agentflow.planner.plan import Ref, Template
from agentflow.planner.reader import read_script
from agentflow.planner.script import Line, Script
from agentflow.tools.effects import PURE, UNDECLARED, Effect


def test_a_script_is_plain_data() -> None:
    script = read_script(
        "Thought: why\n"
        '$1 = search("a $5")\n'
        '$2 = fetch(each $1.hits[*]["u r l"], {"n": [$1, "see $1 and ${1.n}"]}) join first if $1\n'
        'return "${2[-1]}!"\n'
    )

    assert json.loads(json.dumps(script_as_json(script))) == {
        "ok": True,
        "tasks": [
            {
                "id": 1,
                "tool": "search",
                "args": ["a $5"],
                "kwargs": {},
                "deps": [],
                "thought": "why",
            },
            {
                "id": 2,
                "tool": "fetch",
                "args": [
                    {"$each": {"$ref": 1, "path": ["hits", "*", "u r l"]}},
                    {"n": [{"$ref": 1}, "see $1 and ${1.n}"]},
                ],
                "kwargs": {},
                "deps": [1],
                "if": {"$ref": 1},
                "policy": "first",
            },
        ],
        "join": None,
        "return": "${2[-1]}!",
        "warnings": ["unresolved_ref_literal"],
    }


def test_a_script_made_by_hand_shows_its_references_in_braces() -> None:
    line = Line(2, "f", (Template(("a ", Ref(1, ("b",)))),))

    assert script_as_json(Script((line,)))["tasks"][0]["args"] == ["a ${1.b}"]


def test_an_error_is_plain_data() -> None:
    assert error_as_json(PlanError("arity", "too few", 3)) == {
        "ok": False,
        "error": "arity",
        "at": 3,
        "message": "line $3: too few",
    }


def test_tools_are_made_from_plain_data() -> None:
    tools = tools_from_json(
        [
            {"name": "f", "params": ["a", "b"], "required": 1},
            {"name": "g", "params": ["a"], "required": 1, "effect": "pure", "description": "G."},
            {
                "name": "h",
                "params": ["a"],
                "required": 0,
                "open": True,
                "effect": {"kind": "writes", "resources": ["x/{a}"], "idempotent": True},
                "schema": {"properties": {"a": {"type": "integer"}}},
            },
        ]
    )

    assert [parameter.required for parameter in tools["f"].parameters] == [True, False]
    assert (tools["f"].effect, tools["g"].effect) == (UNDECLARED, PURE)
    assert tools["h"].effect == Effect("writes", ("x/{a}",), idempotent=True)
    assert tools["h"].parameters[0].schema == {"type": "integer"}
    assert tools["h"].open and tools["g"].description == "G."
