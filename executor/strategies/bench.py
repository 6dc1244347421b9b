"""The workbench of a strategy: calls started one by one, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

from agentflow import events
from agentflow.clock import now
from agentflow.errors import AnswerInvalid, CallSkipped, ModelRefusal
from agentflow.executor.affinity.conversation import Conversation
from agentflow.executor.metering import MeteredModel
from agentflow.executor.models.base import (
    ChatRequest,
    Delta,
    ReasoningPiece,
    Reply,
    ReplyStream,
    TextPiece,
)
from agentflow.executor.models.persistent import Persistent
from agentflow.executor.partial.decoding import Decoding, Waits
from agentflow.executor.partial.part import Part, Why
from agentflow.executor.run import Run
from agentflow.executor.sessions.dialogue import Dialogue
from agentflow.executor.sessions.state import SessionState
from agentflow.executor.state.bind import bind
from agentflow.executor.state.commands import DONE
from agentflow.executor.state.run_state import RunState
from agentflow.executor.strategies.remaining import Remaining
from agentflow.planner.builder import Builder, effect_of
from agentflow.planner.plan import Each, Node, Ref
from agentflow.planner.prompting import kept, shown
from agentflow.tools.effects import Effect
from agentflow.tools.policy import DEFAULT
from agentflow.tools.spec import ToolSpec
from agentflow.tools.values import Outcome, as_text
from agentflow.wording import described

ERROR_LIMIT = 600
"""Characters of a failure that a model is shown."""


class Workbench:
    """Starts calls in a run, and knows how they ended.

    Args:
        run: The run of the task.
        model: Name of the model, or None for the default one.
        show_remaining: See `Task`.

    Attributes:
        specs: The tools by name.
        model: The model, paid by the run.
        builder: Grows the run's plan.
        limits: Ceilings on what a model may ask for.
    """

    def __init__(
        self, run: Run[Any], model: str | None, show_remaining: bool | None = None
    ) -> None:
        self._run = run
        self.specs: Mapping[str, ToolSpec] = {n: tool.spec for n, tool in run.tools.items()}
        self._metered = MeteredModel(run.host.model(model), run)
        self.model = Persistent(self._metered)
        self._remaining = Remaining(run.ledger, show_remaining)
        self.builder = Builder(self.specs.get)
        self.limits = run.host.services.limits
        self._expected: list[int] = []  # calls whose part waits for them to be started

    @property
    def partial(self) -> bool:
        """Whether calls begin while they are written, and a reply is stopped at a mistake."""
        return self._run.begins_early

    def add(self, node: Node, part: Part | None = None, *, writing: bool) -> int:
        """Start a call, which goes on from its part if it has one; the id of its node.

        `writing` says that the model is still writing the reply it is of.
        """
        index = self.builder.add(node)
        self.expect(index, part)
        self.flush(writing=writing)
        return index

    def expect(self, node: int, part: Part | None) -> None:
        """A call is about to start, and goes on from its part unless it was there before."""
        if part is None:
            return
        parts = self._run.driver.parts
        if node < len(self._run.driver.state.slots) or node in parts.waiting:
            part.retract(Why.KNOWN)
        else:
            parts.waiting[node] = part
            self._expected.append(node)

    def flush(self, *, held: bool = False, writing: bool) -> None:
        """Start what was added to the builder; nobody hears of `held` calls before `commit`."""
        plan = self.builder.cut()
        if plan.nodes:
            self._run.extend(plan, held=held, writing=writing)
        while self._expected:
            self._run.driver.parts.watch(self._run.driver, self._expected.pop())

    def commit(self, node: int) -> None:
        """A held call belongs to the plan."""
        self._run.commit(node)

    def retract(self, node: int) -> None:
        """A held call does not belong to the plan: it is cancelled, and was never there."""
        self.builder.forget(node)
        self._run.retract(node)

    async def settled(self, nodes: Iterable[int]) -> None:
        """Wait until these calls have ended; one without a value is made anew if asked again."""
        waiting = set(nodes)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(node: int, state: RunState, slot: int) -> None:
            waiting.discard(node)
            if state.status[slot] is not DONE:
                self.builder.forget(node)
            if not waiting and not over.done():
                over.set_result(None)

        for node in tuple(waiting):
            self._run.driver.watch(node, partial(ended, node))
        if waiting:
            await over

    def effect(self, tool: str) -> Effect:
        """What a call of a tool may do."""
        return effect_of(tool, self.specs.get(tool))

    def node(self, index: int) -> Node:
        """A call as it was made."""
        state = self._run.driver.state
        return state.nodes[state.slot(index)]

    def arguments(self, node: int) -> dict[str, Any]:
        """The arguments of a call, by name; those of a map by element. Empty if one is missing."""
        call, state = self.node(node), self._run.driver.state
        names = (parameter.name for parameter in self.specs[call.tool].parameters)
        try:
            return {
                name: bind(state, arg.source if type(arg) is Each else arg)
                for name, arg in (*zip(names, call.args, strict=False), *call.kwargs)
            }
        except (LookupError, CallSkipped):
            return {}

    def outcome(self, node: int) -> Outcome[Any]:
        """How a call ended."""
        state = self._run.driver.state
        return state.outcome(state.slot(node))

    def report(self, node: int) -> str:
        """How a call ended, as a model is told."""
        outcome = self.outcome(node)
        if outcome.ok:
            return self._shown(node, as_text(outcome.value))
        error = outcome.error
        assert error is not None, "a call without a value has an error"
        if outcome.status == "failed":
            return f"failed: {shown(described(error), ERROR_LIMIT)}"
        return f"{outcome.status}: {shown(str(error), ERROR_LIMIT)}"

    def _shown(self, node: int, text: str) -> str:
        """A result as a model is shown it; a long one is put by if the model can read on."""
        call = self.node(node)
        tool = self._run.tools.get(call.tool)  # none gathers values
        policy = call.options or (DEFAULT if tool is None else tool.policy)
        limit = policy.max_output or self.limits.output
        if len(text) <= limit or not self.reads_on:
            return shown(text, limit)
        return kept(text, self._run.driver.outputs.put(node, text), limit)

    @property
    def reads_on(self) -> bool:
        """Whether the model has the tool that reads on in what was too long to be shown."""
        if (tool := self._run.tools.get("read_output")) is None:
            return False
        from agentflow.tools.builtin.read_output import read_output

        return tool.origin is read_output

    # The model

    def decoding(self, waits: Waits, node: Callable[[Ref], Ref] | None = None) -> Decoding:
        """What follows the calls of one reply; see `Decoding`."""
        return Decoding(self._run, waits, node)

    def dialogue(self, name: str, session: SessionState, system: str) -> Dialogue:
        """A session as it is gone on with; the model is told last what is left, if it is to be.

        Args:
            name: What it is about.
            session: What was said.
            system: What the model is told first.
        """
        outlasting = (session.id, session.epoch) if session.lasts else None
        told = self._remaining.told
        conversation = Conversation(self._run, self._metered, name, told, outlasting)
        return Dialogue(self, session, conversation, system)

    def has_ended(self, node: int) -> bool:
        """Whether a call has a value, or is known to have none."""
        state = self._run.driver.state
        return state.status[state.slot(node)] >= DONE

    def turns_to(self, nodes: Iterable[int], conversation: Conversation) -> None:
        """Its model hears the results of these calls next."""
        tools = self._run.tools
        names = (self.node(node).tool for node in nodes if not self.has_ended(node))
        conversation.away(tools[name] for name in names if name in tools)

    def foresee(
        self, nodes: Iterable[int], conversation: Conversation, known: Callable[[], ChatRequest]
    ) -> None:
        """Have what is known of a conversation's next prompt computed while these calls run.

        Args:
            nodes: The calls whose results it waits for.
            conversation: Whose prompt it is.
            known: The beginning of the request, as far as the results are there.
        """
        running = {node for node in nodes if not self.has_ended(node)}
        if not running or not conversation.foresees:
            return

        def ended(node: int, *_: object) -> None:
            running.discard(node)
            if running:
                conversation.foresee(known())

        for node in tuple(running):
            self._run.driver.watch(node, partial(ended, node))
        if conversation.asked:
            conversation.foresee(known())

    def stopped(self, stream: ReplyStream, request: ChatRequest, why: str) -> None:
        """A reply is not read to its end, because a call in it cannot be made."""
        if self._run.watched:
            tokens = stream.usage.completion_tokens
            spared = max(0, request.max_tokens - tokens)
            self._run.emit(events.ReplyStopped(self._run.id, now(), why, tokens, spared))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task beside the strategy."""
        return self._run.host.services.spawn(work, f"run {self._run.id}")

    async def ask(
        self,
        request: ChatRequest,
        take: Callable[[Delta], object],
        restart: Callable[[], object],
    ) -> Reply:
        """Have the model reply; `take` sees each piece as it comes.

        Args:
            request: What is asked.
            take: Is given the pieces.
            restart: Forgets them: the reply broke off, and another one comes.

        Raises:
            ModelRefusal: It declined.
            BackendError: It could not be asked, or broke off.
            BudgetExceeded: There is no money left for it.
        """

        def start_over() -> None:
            self.take_back()
            restart()

        reply = await self.model.complete(request, take, start_over)
        refuse(reply)
        return reply

    # Telling the subscribers

    def say(self, text: str, role: str) -> None:
        """More text of a reply."""
        if text and self._run.watched:
            self._run.emit(events.TextDelta(self._run.id, now(), text, role))

    def show(self, delta: Delta, role: str) -> None:
        """A piece of a reply; reasoning counts as thought."""
        if isinstance(delta, TextPiece):
            self.say(delta.text, role)
        elif isinstance(delta, ReasoningPiece):
            self.say(delta.text, "thought")

    def compacted(
        self, session: str, epoch: int, outputs: int, summarised: int, before: float, after: float
    ) -> None:
        """A session was made to fit; see `events.ContextCompacted`."""
        if self._run.watched:
            what = (session, epoch, outputs, summarised, round(before), round(after))
            self._run.emit(events.ContextCompacted(self._run.id, now(), *what))

    def take_back(self) -> None:
        """What was told of the reply under way is void: another one comes in its place."""
        if self._run.watched:
            self._run.emit(events.TextRetracted(self._run.id, now()))

    def begin_round(self, kind: str, number: int, reason: str = "") -> None:
        """A round begins."""
        if self._run.watched:
            self._run.emit(events.RoundStarted(self._run.id, now(), kind, number, reason))


def refuse(reply: Reply) -> None:
    """Take a refusal for what it is.

    Raises:
        ModelRefusal: The reply is one.
    """
    if reply.refusal is not None:
        raise ModelRefusal(f"{reply.model or 'the model'} declined: {reply.refusal}")


def usable(text: str, reply: Reply) -> str:
    """An answer, if it is one.

    Raises:
        AnswerInvalid: It is empty, or it was cut off; then `answer` holds what there is of it.
    """
    if reply.finish_reason == "length":
        raise AnswerInvalid(
            f"the answer was cut off after {reply.usage.completion_tokens} tokens "
            "(Task(max_tokens=...) allows more)",
            problems="cut off",
            answer=text,
        )
    if not text:
        raise AnswerInvalid("the model gave an empty answer", problems="empty")
    return text
