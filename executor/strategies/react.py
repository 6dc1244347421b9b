"""The strategy ``react``: a model calls tools turn by turn, several at once, until it answers.

After ReAct (Yao et al., 2023), over the chat API's own tool calls. A call that only reads
starts as soon as its arguments are complete; the others when the turn is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from agentflow.errors import AnswerInvalid, ArgumentError, BackendError, PlanError
from agentflow.executor.models.base import (
    CallPiece,
    CallRequest,
    ChatRequest,
    Delta,
    Message,
    Reply,
    TextPiece,
)
from agentflow.executor.models.calls import CallAssembler
from agentflow.executor.models.persistent import PersistentStream, ReplyDiverged
from agentflow.executor.partial.part import Why
from agentflow.executor.run import Run
from agentflow.executor.sessions.dialogue import Dialogue
from agentflow.executor.sessions.state import Passing
from agentflow.executor.strategies.bench import Workbench, refuse, usable
from agentflow.executor.strategies.deferral import Deferral
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Node
from agentflow.planner.prompting import prompt, tool_definitions
from agentflow.planner.verify import verify_call
from agentflow.tools.arguments import (
    ArgumentClosed,
    ArgumentEvent,
    CallBroken,
    CallClosed,
    CallOpened,
    Key,
)
from agentflow.tools.spec import unknown_tool

ROUNDS = 12
"""Turns at most, unless the task says otherwise."""

NOT_ACCEPTED = (
    "the turn ended at another call that was rejected; make this call again if it is still wanted"
)
"""What a model is told of a call that was to wait for the end of a turn that had none."""


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
    session = task.session or Passing()
    bench = Workbench(run, task.model or session.model, task.show_remaining)
    system = session.system or prompt("react")
    with (
        session.turn(run, task.question),
        bench.dialogue("act", session, system) as dialogue,
    ):
        return await _converse(run, task, bench, dialogue)


async def _converse(run: Run[Any], task: Task, bench: Workbench, dialogue: Dialogue) -> str:
    """Take turns until one is the answer."""
    tools = tool_definitions(bench.specs.values())
    rounds = task.rounds or ROUNDS
    for number in range(1, rounds + 1):
        bench.begin_round("act", number)
        last = number == rounds
        turn, reply = await dialogue.exchange(
            partial(_take_turn, bench),
            tools=tools,
            tool_choice="none" if last and tools else None,
            max_tokens=task.max_tokens,
        )
        dialogue.heard(reply)
        text = reply.text.strip()
        if text:
            run.said(text, by="model")
        if not reply.calls or (last and text):
            if text:
                dialogue.session.history.say(replace(reply, calls=()).as_message())
            return usable(text, reply)
        if last:
            break
        await _have_results(bench, dialogue, turn, reply)
    raise AnswerInvalid(
        f"no answer after {rounds} turns (Task(rounds=...) allows more)", problems="rounds"
    )


async def _have_results(bench: Workbench, dialogue: Dialogue, turn: _Turn, reply: Reply) -> None:
    """Wait for what a turn called; the session has what came of it, even if the run ends now."""
    history = dialogue.session.history
    history.say(reply.as_message())
    bench.turns_to(turn.nodes, dialogue.conversation)

    def so_far() -> ChatRequest:
        return dialogue.so_far(further=turn.known())

    bench.foresee(turn.nodes, dialogue.conversation, so_far)
    try:
        await turn.settled()
    finally:
        history.say(*turn.ended())


async def _take_turn(bench: Workbench, request: ChatRequest) -> tuple[_Turn, Reply]:
    """Have the model speak; its calls start meanwhile, as far as they may.

    A turn that breaks off, and comes differently when it is asked for again, is forgotten. What
    it called only reads; an equal call of the new turn finds the value in the cache.
    """
    turn = _Turn(bench, request)
    try:
        async with bench.model.stream(request) as stream:
            while (reply := await turn.read(stream)) is None:
                turn.close()
                bench.take_back()
                turn = _Turn(bench, request)
        return turn, turn.end(reply)  # nothing is awaited before the session has these calls
    finally:
        turn.close()


class _Turn:
    """One turn of the model: its calls, and a node for each or why there is none.

    An argument that is rejected ends the turn: what had been called stays, and what is written
    after it is no part of the turn, whether it is still read or not.
    """

    def __init__(self, bench: Workbench, request: ChatRequest) -> None:
        self._bench = bench
        self._request = request
        self._deferral = Deferral(bench.specs)
        self._decoding = bench.decoding(lambda tool, given: self._deferral.waits(tool, (), given))
        self._assembler = CallAssembler()
        self._texts: list[str] = []
        self._given: dict[int, dict[Key, Any]] = {}  # complete arguments, however far was read
        self._calls: dict[int, CallRequest] = {}
        self._nodes: dict[int, int] = {}
        self._deferred: dict[int, Node] = {}
        self._refused: dict[int, str] = {}
        self._finish: str | None = None  # why the model ended its reply, once it has
        self._over = False  # a call was rejected before it was complete

    async def read(self, stream: PersistentStream) -> Reply | None:
        """Read the reply, to its end or to where the turn ends; None if another one comes."""
        try:
            return await self._read_on(stream)
        except ReplyDiverged:
            return None
        except BackendError:
            if not self._over:
                raise
        return Reply(text="", finish_reason="tool_calls")  # what broke off is no part of the turn

    def end(self, reply: Reply) -> Reply:
        """The reply has been read: the turn's last calls start; what was said in it."""
        if not self._over:
            refuse(reply)
            self._finish = reply.finish_reason
            self._note(self._assembler.finish())
        self._make_deferred()
        if self._request.tool_choice == "none":
            return reply
        calls = tuple(call for _, call in sorted(self._calls.items()))
        return replace(reply, text="".join(self._texts), calls=calls, refusal=None)

    def close(self) -> None:
        """No more is read: what was not called by now is not going to be."""
        self._decoding.close()

    @property
    def nodes(self) -> Collection[int]:
        """The calls that were made."""
        return self._nodes.values()

    async def settled(self) -> None:
        """Wait for the calls."""
        await self._bench.settled(self._nodes.values())

    def ended(self) -> list[Message]:
        """What the model is told of the calls that have ended, in the order it made them."""
        return [self._told(*call) for call in filter(self._has_ended, self._in_order())]

    def known(self) -> list[Message]:
        """The same up to the first call that has not ended."""
        return [self._told(*call) for call in takewhile(self._has_ended, self._in_order())]

    def _in_order(self) -> list[tuple[int, CallRequest]]:
        return sorted(self._calls.items())

    def _told(self, place: int, call: CallRequest) -> Message:
        return {"role": "tool", "tool_call_id": call.id, "content": self._result(place)}

    def _has_ended(self, numbered: tuple[int, CallRequest]) -> bool:
        place, _ = numbered
        return place in self._refused or self._bench.has_ended(self._nodes[place])

    def _result(self, place: int) -> str:
        if place in self._refused:
            return f"not called: {self._refused[place]}"
        return self._bench.report(self._nodes[place])

    # What the model writes

    async def _read_on(self, stream: PersistentStream) -> Reply:
        async for piece in stream:
            if self._goes_on(piece):
                continue
            stream.enough()
            if self._bench.partial:
                why = list(self._refused.values())[-1]
                self._bench.stopped(stream, self._request, why)
                return Reply(text="", finish_reason="tool_calls", usage=stream.usage)
        return stream.reply

    def _goes_on(self, piece: Delta) -> bool:
        """Take a piece in; whether the turn goes on."""
        if self._over:
            return False
        if not isinstance(piece, CallPiece):
            if isinstance(piece, TextPiece):
                self._texts.append(piece.text)
            self._bench.show(piece, "answer")
        elif self._request.tool_choice != "none":
            self._note(self._assembler.feed(piece))
        return not self._over

    def _note(self, found: Iterable[ArgumentEvent]) -> None:
        """Deal with what was read."""
        for event in found:
            try:
                self._take(event)
            except (ArgumentError, PlanError) as error:
                self._reject(event.id, str(error))
            if self._over:
                return
        self._decoding.advance()

    def _take(self, event: ArgumentEvent) -> None:
        if isinstance(event, CallOpened):
            if event.id < self._bench.limits.turn:
                self._decoding.opened(event.id, event.tool)
        elif self._finish == "length" and isinstance(event, CallClosed | CallBroken):
            self._decoding.retract(event.id, Why.NOT_COMPLETED)
            self._reject(event.id, "the reply was too long and ended in this call")
        elif isinstance(event, CallClosed):
            self._close(event.id)
        elif isinstance(event, CallBroken):
            self._reject(event.id, str(event.error))
        else:
            if isinstance(event, ArgumentClosed):
                self._given.setdefault(event.id, {})[event.key] = event.value
            self._decoding.take(event)

    def _close(self, place: int) -> None:
        """A call is complete.

        Raises:
            PlanError: It cannot be made.
        """
        self._calls[place] = self._assembler.call(place)
        node = self._node(place)
        kwargs = dict(node.kwargs)
        if self._deferral.waits(node.tool, (), kwargs):
            self._deferral.note(node.tool, (), kwargs)
            self._deferred[place] = node
        else:
            writing = self._finish is None
            self._nodes[place] = self._bench.add(node, self._decoding.part(place), writing=writing)

    def _node(self, place: int) -> Node:
        """A call as a node.

        Raises:
            PlanError: It cannot be made.
        """
        specs, most, call = self._bench.specs, self._bench.limits.turn, self._calls[place]
        if len(self._calls) > most:
            raise PlanError(
                "too_many_calls", f"a turn makes at most {most} calls; make it in the next"
            )
        if call.name not in specs:
            raise PlanError("unknown_tool", unknown_tool(call.name, list(specs)))
        node = Node(call.name, (), tuple(self._assembler.arguments(place).items()))
        verify_call(node, specs, None)
        return node

    def _reject(self, place: int, why: str) -> None:
        """A call cannot be made; if the model still writes it, the turn ends with it.

        Of its arguments those that were complete go into the conversation: backends cannot
        read what is no JSON.
        """
        call = self._assembler.call(place)
        if place not in self._calls:
            self._over = self._finish is None
            self._calls[place] = replace(call, arguments_text=_as_json(self._given.get(place, {})))
        self._refused[place] = why
        self._decoding.retract(place, Why.REJECTED)

    def _make_deferred(self) -> None:
        """Make the calls that waited for the end of the turn, if it was accepted."""
        for place, node in self._deferred.items():
            if self._over:
                self._refused[place] = NOT_ACCEPTED
                self._decoding.retract(place, Why.NOT_MADE)
            else:
                part = self._decoding.part(place)
                self._nodes[place] = self._bench.add(node, part, writing=False)


def _as_json(arguments: Mapping[Key, Any]) -> str:
    """Arguments as a model would write them; half a surrogate pair has no other form."""
    text = json.dumps(arguments, ensure_ascii=False)
    return text if _encodable(text) else json.dumps(arguments)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
