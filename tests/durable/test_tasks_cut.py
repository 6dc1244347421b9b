"""A task that breaks off after any of its records goes on: replies are not asked for again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentflow import Engine, Task, _http
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import ScriptedServer
from agentflow.testing.chat import ChatCall
from agentflow.testing.clock import run_virtual
from agentflow.testing.replies import Call, Pace
from tests.durable.conftest import Desk, records, rows
from tests.durable.programs import Programs

PLAN = """$1 = double(n=3)
$2 = look(name="pear")
$3 = note(text="${1} and ${2.name}")
$4 = put(name="pear", count=$1)
join()
"""


def react(call: ChatCall) -> list[Any]:
    """Three turns."""
    turns = sum(message["role"] == "assistant" for message in call.messages)
    if turns == 0:
        return [
            Call("double", {"n": 3}),
            Call("look", {"name": "pear"}),
            Call("note", {"text": "a"}),
        ]
    if turns == 1:
        return ["I put it there.", Call("put", {"name": "pear", "count": 6})]
    return ["It is 6."]


def plan(call: ChatCall) -> list[Any]:
    """A plan, and an answer to what came of it."""
    if "observation" in str(call.messages[-1]["content"]).lower() or len(call.messages) > 2:
        return ["Answer: It is 6."]
    return [PLAN]


def run(desk: Desk, strategy: Any, path: Path, asked: list[int], resumed: str = "") -> str:
    """Begin the task, or go on with it; how many requests that took is added to `asked`."""
    programs = Programs(desk.made, desk.ended)
    tools: list[Any] = [programs.double, programs.look, programs.note, programs.put]

    async def main() -> str:
        model_of: Any = {"react": react, "plan": plan}[strategy]
        server = ScriptedServer(model_of, pace=Pace(0.2, 0.05))
        http = _http.client(transport=server.transport())
        model = OpenAIBackend("http://scripted/v1", "tiny", http=http)
        await model.connect()
        async with Engine(model=model, tools=tools, journal=path, seed=1) as engine:
            if resumed:
                value = await engine.resume(resumed, in_doubt="retry")
            else:
                value = await engine.run(Task("How many?", strategy=strategy))
        asked.append(len(server.requests))
        await http.aclose()
        await server.aclose()
        return str(value)

    return run_virtual(main())


@pytest.mark.parametrize("strategy", ["react", "plan"])
def test_a_task_that_broke_off_anywhere_ends_as_it_would_have(desk: Desk, strategy: Any) -> None:
    whole, asked = desk.path(), [0]
    answer = run(desk, strategy, whole, asked)
    kept, made = records(whole), Counter(desk.made)
    assert answer == "It is 6."
    for count in range(1, len(kept)):
        desk.made.clear()
        desk.ended.clear()
        cut = desk.cut(whole, count)
        where = f"after {count} records, the last of them {kept[count - 1]}"

        assert run(desk, strategy, cut, asked, rows(cut)[0].id) == answer, where

        before = {r["step"] for r in kept[:count] if r["event"] == "node_finished"}
        after = {r["step"] for r in records(cut)[count:] if r["event"] == "node_finished"}
        assert not before & after, where
        assert len(before | after) == len(made) == 4, where
        whole_replies = sum(r["event"] == "reply_ended" for r in kept[:count])
        assert asked[-1] <= asked[1] - whole_replies, where
