"""The strategy ``react``: a model calls tools turn by turn, several at once, until it answers.

After ReAct (Yao et al., 2023), over the chat API's own tool calls. A call that only reads
starts as soon as its arguments are complete; the others when the turn is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentflow.errors import AnswerInvalid, PlanError
from agentflow.executor.models.base import CallPiece, CallRequest, ChatRequest, Message, Reply
from agentflow.executor.models.calls import (
    BadArguments,
    CallAssembler,
    CallClosed,
    CallEvent,
    read_arguments,
)
from agentflow.executor.run import Run
from agentflow.executor.strategies.bench import Workbench, refuse, usable
from agentflow.executor.strategies.deferral import Deferral
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Node
from agentflow.planner.prompting import prompt, tool_definitions
from agentflow.planner.verify import verify_call
from agentflow.tools.spec import unknown_tool

ROUNDS = 12
"""Turns at most, unless the task says otherwise."""


async def react_task(run: Run[Any], task: Task) -> str:
    """Answer a task by calling tools turn by turn.

    Text of a turn that goes on to call tools is told as part of an answer, too: until the
    calls come nobody can know.

    Raises:
        AnswerInvalid: After the last turn there was still no answer.
        ModelRefusal: The model declined.
        BackendError: The model could not be asked.
        BudgetExceeded: There is no money left to ask it.
    """
    bench = Workbench(run, task.model)
    tools = tool_definitions(bench.specs.values())
    messages: list[Message] = [
        {"role": "system", "content": prompt("react")},
        {"role": "user", "content": task.question},
    ]
    rounds = task.rounds or ROUNDS
    for number in range(1, rounds + 1):
        bench.begin_round("act", number)
        last = number == rounds
        request = ChatRequest(
            messages=tuple(messages),
            tools=tools,
            tool_choice="none" if last and tools else None,
            max_tokens=task.max_tokens,
        )
        turn = _Turn(bench)
        reply = await turn.take(request)
        text = reply.text.strip()
        if text:
            run.said(text, by="model")
        if not reply.calls or (last and text):
            return usable(text, reply)
        if last:
            break
        messages.append(reply.as_message())
        messages += await turn.results()
    raise AnswerInvalid(
        f"no answer after {rounds} turns (Task(rounds=...) allows more)", problems="rounds"
    )


class _Turn:
    """One turn of the model: its calls, and a node for each or why there is none."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._deferral = Deferral(bench.specs)
        self._calls: dict[int, CallRequest] = {}
        self._nodes: dict[int, int] = {}
        self._deferred: dict[int, Node] = {}
        self._refused: dict[int, str] = {}

    async def take(self, request: ChatRequest) -> Reply:
        """Have the model speak; its calls start meanwhile, as far as they may."""
        assembler = CallAssembler()
        async with self._bench.model.stream(request) as stream:
            async for piece in stream:
                if not isinstance(piece, CallPiece):
                    self._bench.show(piece, "answer")
                elif request.tool_choice != "none":
                    self._note(assembler.feed(piece))
            reply = stream.reply
        refuse(reply)
        self._note(assembler.finish(), cut_off=reply.finish_reason == "length")
        for place, node in self._deferred.items():
            self._nodes[place] = self._bench.add(node)
        return reply

    async def results(self) -> list[Message]:
        """Wait for the calls; what the model is told of them, in the order it made them."""
        await self._bench.settled(self._nodes.values())
        return [
            {"role": "tool", "tool_call_id": call.id, "content": self._result(place)}
            for place, call in sorted(self._calls.items())
        ]

    def _result(self, place: int) -> str:
        if place in self._refused:
            return f"not called: {self._refused[place]}"
        return self._bench.report(self._nodes[place])

    def _note(self, found: Iterable[CallEvent], *, cut_off: bool = False) -> None:
        for event in found:
            if not isinstance(event, CallClosed):
                continue
            self._calls[event.position] = event.call
            try:
                if cut_off:
                    raise PlanError("cut_off", "the reply was too long and ended in this call")
                node = self._node(event.call)
            except PlanError as error:
                self._refused[event.position] = str(error)
            else:
                self._start_or_defer(event.position, node)

    def _start_or_defer(self, place: int, node: Node) -> None:
        kwargs = dict(node.kwargs)
        if self._deferral.waits(node.tool, (), kwargs):
            self._deferral.note(node.tool, (), kwargs)
            self._deferred[place] = node
        else:
            self._nodes[place] = self._bench.add(node)

    def _node(self, call: CallRequest) -> Node:
        """The call as a node.

        Raises:
            PlanError: It cannot be made.
        """
        specs, most = self._bench.specs, self._bench.limits.turn
        if len(self._calls) > most:
            raise PlanError(
                "too_many_calls", f"a turn makes at most {most} calls; make it in the next"
            )
        if call.name not in specs:
            raise PlanError("unknown_tool", unknown_tool(call.name, list(specs)))
        arguments = read_arguments(call)
        if isinstance(arguments, BadArguments):
            raise PlanError("bad_args", str(arguments))
        node = Node(call.name, (), tuple(arguments.items()))
        verify_call(node, specs, None)
        return node
