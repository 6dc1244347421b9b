"""The strategy ``react``: a model calls tools turn by turn, several at once, until it answers.

After ReAct (Yao et al., 2023), over the chat API's own tool calls. A call that only reads
starts as soon as its arguments are complete; the others when the turn is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentflow.errors import AnswerInvalid, ArgumentError, ModelRefusal, PlanError
from agentflow.executor.models.base import CallPiece, CallRequest, ChatRequest, Message, Reply
from agentflow.executor.models.calls import (
    BadArguments,
    CallAssembler,
    CallClosed,
    CallEvent,
    read_arguments,
)
from agentflow.executor.run import Run
from agentflow.executor.strategies.bench import Workbench
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Node
from agentflow.planner.prompting import prompt, tool_definitions
from agentflow.planner.verify import verify_call
from agentflow.tools.spec import unknown_tool

ROUNDS = 12
"""Turns at most, unless the task says otherwise."""


@dataclass(slots=True)
class _Turn:
    """The calls of one turn: a node for each, or why there is none."""

    nodes: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    waiting: dict[int, Node] = field(default_factory=dict)
    calls: dict[int, CallRequest] = field(default_factory=dict)


async def react_task(run: Run[Any], task: Task) -> str:
    """Answer a task by calling tools turn by turn.

    Raises:
        AnswerInvalid: After the last turn there was still no answer.
        ModelRefusal: The model declined.
        BackendError: The model could not be asked.
    """
    bench = Workbench(run, task.model)
    messages: list[Message] = [
        {"role": "system", "content": prompt("react")},
        {"role": "user", "content": task.question},
    ]
    rounds = task.rounds or ROUNDS
    for number in range(1, rounds + 1):
        bench.round("act", number)
        turn = _Turn()
        reply = await _ask(bench, task, messages, turn, last=number == rounds)
        if reply.refusal is not None:
            raise ModelRefusal(f"the model declined: {reply.refusal}")
        if not turn.calls:
            if reply.text.strip():
                return reply.text.strip()
            raise AnswerInvalid("the model gave an empty answer", problems="empty")
        messages.append(reply.as_message())
        await bench.settled(turn.nodes.values())
        messages += [_result(bench, turn, place, call) for place, call in turn.calls.items()]
    raise AnswerInvalid(
        f"no answer after {rounds} turns (Task(rounds=...) allows more)", problems="rounds"
    )


async def _ask(
    bench: Workbench, task: Task, messages: list[Message], turn: _Turn, *, last: bool
) -> Reply:
    """One turn of the model; its calls start while it speaks, as far as they may."""
    request = ChatRequest(
        messages=messages,
        tools=tool_definitions(bench.specs.values()),
        tool_choice="none" if last else None,
        max_tokens=task.max_tokens,
    )
    assembler = CallAssembler()
    async with bench.model.stream(request) as stream:
        async for piece in stream:
            if isinstance(piece, CallPiece):
                _note(bench, turn, assembler.feed(piece))
            else:
                bench.show(piece, "answer")
        _note(bench, turn, assembler.finish())
        reply = stream.reply
    for place, node in turn.waiting.items():
        turn.nodes[place] = bench.add(node)
    return reply


def _note(bench: Workbench, turn: _Turn, found: list[CallEvent]) -> None:
    for event in found:
        if not isinstance(event, CallClosed):
            continue
        place, call = event.position, event.call
        turn.calls[place] = call
        try:
            node = _node(bench, turn, call)
        except (PlanError, ArgumentError) as error:
            turn.refused[place] = str(error)
            continue
        if bench.specs[call.name].effect.starts_early:
            turn.nodes[place] = bench.add(node)
        else:
            turn.waiting[place] = node


def _node(bench: Workbench, turn: _Turn, call: CallRequest) -> Node:
    """The call as a node.

    Raises:
        PlanError: The tool is unknown, or the arguments do not fit.
    """
    if len(turn.calls) > bench.limits.turn:
        raise PlanError("too_many_calls", f"a turn makes at most {bench.limits.turn} calls")
    if call.name not in bench.specs:
        raise PlanError("unknown_tool", unknown_tool(call.name, list(bench.specs)))
    arguments: Mapping[str, Any] | BadArguments = read_arguments(call)
    if isinstance(arguments, BadArguments):
        raise PlanError("bad_args", str(arguments))
    node = Node(call.name, (), tuple(arguments.items()))
    verify_call(node, bench.specs, 0)
    return node


def _result(bench: Workbench, turn: _Turn, place: int, call: CallRequest) -> Message:
    """What the model is told of a call."""
    if place in turn.refused:
        content = f"not called: {turn.refused[place]}"
    else:
        content = bench.report(turn.nodes[place])
    return {"role": "tool", "tool_call_id": call.id, "content": content}
