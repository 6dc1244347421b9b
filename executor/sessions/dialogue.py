"""A session's history as one strategy goes on with it, and a conversation that asks its model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from agentflow.errors import AnswerInvalid, ContextOverflow
from agentflow.executor.models.base import ChatRequest, Reply
from agentflow.executor.sessions.fitting import (
    by_reference,
    by_summary,
    to_be_summarised,
    wholly_by_reference,
)
from agentflow.executor.sessions.history import Compaction, Message
from agentflow.planner.prompting import prompt

if TYPE_CHECKING:
    from types import TracebackType

    from agentflow.executor.affinity.conversation import Conversation
    from agentflow.executor.sessions.state import SessionState
    from agentflow.executor.strategies.bench import Workbench

T = TypeVar("T")

SUMMARY_TOKENS = 1024
"""Tokens that a summary may have, unless a reply may have fewer."""

SUMMARY_ATTEMPTS = 5
"""How often it is asked for, of less each time, while it is refused as too long."""


class Dialogue:
    """Asks a model in the course of a session; what is too long for it is made to fit, once.

    Args:
        bench: Of the strategy.
        session: What was said.
        conversation: Asks the model.
        system: What the model is told first.

    Attributes:
        session: As given.
        conversation: As given.
        request: The last one, as it was made, before what is volatile was added.
    """

    def __init__(
        self, bench: Workbench, session: SessionState, conversation: Conversation, system: str
    ) -> None:
        self._bench = bench
        self._system: Message = {"role": "system", "content": system}
        self._instead: Sequence[Message] = ()
        self._further: Sequence[Message] = ()
        self._epoch = session.epoch
        self.session = session
        self.conversation = conversation
        self.request = ChatRequest(messages=(self._system,))

    def __enter__(self) -> Self:
        self.conversation.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._follow_epoch()  # the strategy's other dialogue may have begun one
        self.conversation.__exit__(kind, error, traceback)

    async def exchange(
        self,
        take: Callable[[ChatRequest], Awaitable[T]],
        *,
        instead: Sequence[Message] = (),
        further: Sequence[Message] = (),
        closing: str = "",
        **fields: Any,
    ) -> T:
        """Ask, and have the reply taken in.

        Args:
            take: Makes the request.
            instead: Messages in place of the last one that was said.
            further: Messages that follow what was said.
            closing: See `Conversation.next`.
            **fields: Of the request.

        Raises:
            ContextOverflow: It is too long, and nothing more can be left out.
        """
        self._instead, self._further = instead, further
        self.request = ChatRequest(messages=self._messages(), **fields)
        if fitted := self._is_too_long():
            await self._make_room()
        try:
            return await self._attempt(take, closing)
        except ContextOverflow:
            if fitted:
                raise
        await self._make_room()  # outside: errors look at their context
        return await self._attempt(take, closing)

    def heard(self, reply: Reply) -> None:
        """A reply to the last request came."""
        self.session.gauge.learn(self.request, reply.usage)

    def so_far(
        self, *, instead: Sequence[Message] = (), further: Sequence[Message] = ()
    ) -> ChatRequest:
        """How the next request begins, with what is known by now; see `exchange`."""
        self._instead, self._further = instead, further
        return replace(self.request, messages=self._messages())

    def _messages(self) -> list[Message]:
        shown = self.session.history.shown()
        if self._instead:
            del shown[-1]
        return [self._system, *shown, *self._instead, *self._further]

    def _anew(self) -> None:
        self.request = replace(self.request, messages=self._messages())

    async def _attempt(self, take: Callable[[ChatRequest], Awaitable[T]], closing: str) -> T:
        try:
            return await take(self._next(closing))
        except ContextOverflow as overflow:
            self.session.gauge.refused(self.request, overflow.window)
            raise

    def _next(self, closing: str) -> ChatRequest:
        self._follow_epoch()
        return self.conversation.next(self.request, closing)

    def _follow_epoch(self) -> None:
        if self._epoch != self.session.epoch:
            self._epoch = self.session.epoch
            self.conversation.begin_epoch(self._epoch)

    # Making it fit

    def _is_too_long(self) -> bool:
        gauge = self.session.gauge
        room = gauge.room(self.request)
        return room is not None and gauge.tokens(self.request) > room

    async def _make_room(self) -> None:
        """Have less of the session shown, so that the request fits.

        Raises:
            ContextOverflow: It cannot be made to.
        """
        session, history = self.session, self.session.history
        before, epoch = session.gauge.tokens(self.request), session.epoch
        room = session.gauge.room(self.request) or 0.0
        if (least := self._least()) > room:
            raise self._overflow(least)
        way = by_reference(history, room, self._size, readable=self._bench.reads_on)
        if way is None and (way := self._beside_summary(room)) is not None:
            way = replace(way, summary=await self._summary(way.since))
        if way is not None:
            history.compact(way)
        self._anew()
        if self._is_too_long():
            history.compact(wholly_by_reference(history))
            self._anew()
        self._tell(epoch, before)
        if self._is_too_long():
            raise self._overflow(session.gauge.tokens(self.request))

    def _beside_summary(self, room: float) -> Compaction | None:
        history = self.session.history
        return by_summary(history, room, self._size, readable=self._bench.reads_on)

    def _least(self) -> float:
        """Tokens of a prompt of the question alone, with all that goes with it."""
        history = self.session.history
        question = history.messages[history.question(len(history))]
        return self._size([] if self._instead else [question])

    def _size(self, messages: Sequence[Message]) -> float:
        """Tokens of a prompt of these messages, with all that goes with them."""
        known = [self._system, *messages, *self._instead, *self._further]
        whole = replace(self.request, messages=known)
        return self.session.gauge.tokens(whole)

    async def _summary(self, until: int) -> str:
        """Have the model write down what is not going to be shown any more.

        Raises:
            AnswerInvalid: It wrote nothing.
            ContextOverflow: Even that is too long, whatever is left out.
        """
        for attempt in range(1, SUMMARY_ATTEMPTS + 1):
            request = self._for_summary(until)
            try:
                reply = await self._bench.model.complete(self.conversation.aside(request))
                break
            except ContextOverflow as overflow:
                self.session.gauge.refused(request, overflow.window)
                if attempt == SUMMARY_ATTEMPTS:
                    raise
        if not reply.text.strip():
            raise AnswerInvalid("the model gave an empty summary", problems="empty")
        return reply.text.strip()

    def _for_summary(self, until: int) -> ChatRequest:
        """Asks for a summary of what was said before a place."""
        request = replace(
            self.request,
            max_tokens=min(SUMMARY_TOKENS, self.request.max_tokens),
            tool_choice="none" if self.request.tools else None,
        )
        room = self.session.gauge.room(request) or 0.0
        asked: Message = {"role": "user", "content": prompt("summarise").strip()}
        known = to_be_summarised(
            self.session.history, until, room, lambda said: self._size([*said, asked])
        )
        if known[-1]["role"] == "user":
            text = f"{known[-1]['content']}\n\n{asked['content']}"
            known, asked = known[:-1], {"role": "user", "content": text}
        return replace(request, messages=[self._system, *known, asked])

    def _overflow(self, tokens: float) -> ContextOverflow:
        gauge, request = self.session.gauge, self.request
        return ContextOverflow(
            f"what cannot be left out of session {self.session.id} is about "
            f"{tokens:.0f} tokens, and with {request.max_tokens} for the reply "
            f"the model takes {gauge.window}: ask for less at once, lower max_tokens, or have "
            "fewer tools",
            url="",
            window=gauge.window,
        )

    def _tell(self, epoch: int, before: float) -> None:
        session, latest = self.session, self.session.history.latest
        if latest is None or session.epoch == epoch:
            return
        after = session.gauge.tokens(self.request)
        outputs = len(session.history.outputs())
        self._bench.compacted(session.id, session.epoch, outputs, latest.since, before, after)
