"""Conversations: what a run asks of a model, one request after another, as the model sees it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentflow import events
from agentflow.caches.affinity.jobs import Pause
from agentflow.executor.affinity.critical import work_after
from agentflow.executor.affinity.pauses import expected, slowest
from agentflow.executor.affinity.prefix import Break, Prefix
from agentflow.executor.affinity.prewarm import Prewarmer
from agentflow.executor.models.base import ChatRequest, KeepsSessions, Message, SessionTag

if TYPE_CHECKING:
    from agentflow.executor.metering import MeteredModel
    from agentflow.executor.run import Run
    from agentflow.tools.tool import Tool


class Conversations:
    """What the conversations of one run share: their numbers, and one warning for all of them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._warned = False

    def number(self) -> int:
        """The next one's number."""
        return next(self._numbers)

    def warn(self, session: str, found: Break) -> None:
        """Log where a prompt is no extension of the one before, the first time it happens."""
        if self._warned:
            return
        self._warned = True
        import structlog

        structlog.get_logger("agentflow.affinity").warning(
            "a prompt does not begin as the one before did: what was cached of it is lost",
            session=session,
            byte=found.at,
            before=found.before,
            after=found.after,
        )


THINKING = Pause(15.0, 300.0)
"""How long a user takes to go on with a session, in seconds: a guess."""


class Conversation:
    """One session: requests to one model that each go on from the one before.

    Use it as a context manager: the model is told when the conversation is over, or rests.

    Args:
        run: Who asks.
        model: The model, as the run pays for it.
        name: What it is about, such as the name of a tool.
        told: What of the limits is told with each request, in messages that are not kept.
        session: Id of the session that it goes on with, and that outlasts it, with the number
            of its epoch; None for none.

    Attributes:
        id: Unique among all conversations.
        asked: Whether it has asked anything yet.
        foresees: Whether the model can make use of `foresee`.
    """

    def __init__(
        self,
        run: Run[Any],
        model: MeteredModel,
        name: str,
        told: Callable[[Sequence[Message]], Sequence[Message]] = tuple,
        session: tuple[str, int] | None = None,
    ) -> None:
        self._run = run
        self._node = model.node
        self._keeper: KeepsSessions | None = model.keeper
        self._told = told
        self._prefix = Prefix()
        self.asked = False
        self.foresees = model.warms
        self._prewarmer = Prewarmer(model.warm, self._spawn)
        self._name = name
        self._session = session[0] if session is not None else run.id
        self._outlives = session is not None
        self._place = f"{name}/{run.conversations.number()}"
        epoch = f"{name}/{session[1]}" if session is not None else self._place
        self.id = f"{self._session}/{epoch}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._prewarmer.close()
        if self._keeper is None:
            return
        if self._outlives:
            self._keeper.away(self.id, THINKING)
        else:
            self._keeper.ended(self.id)

    def next(self, request: ChatRequest, closing: str = "") -> ChatRequest:
        """A request as it is sent: part of this conversation, with what is volatile at its end.

        Args:
            request: Everything that was said so far.
            closing: Ends the last message this time, and is not part of what was said.
        """
        self._prewarmer.stop()
        self.asked = True
        if (found := self._prefix.extend(request)) is not None:
            self._broken(found)
        messages = list(request.messages)
        if closing:
            last = messages[-1]
            messages[-1] = {**last, "content": f"{last['content']}\n\n{closing}"}
        return replace(request, messages=self._told(messages), session=self._tag())

    def aside(self, request: ChatRequest) -> ChatRequest:
        """A request about what was said so far, from which nothing goes on."""
        self._prewarmer.stop()
        return replace(request, session=self._tag())

    def begin_epoch(self, epoch: int) -> None:
        """What was said is shown otherwise from now on: nothing of its old prompts is needed."""
        if self._keeper is not None:
            self._keeper.ended(self.id)
        last = f"{self._name}/{epoch}" if self._outlives else f"{self._place}.{epoch}"
        self.id = f"{self._session}/{last}"
        self.begin_anew()

    def begin_anew(self) -> None:
        """The next request begins differently, and is meant to."""
        self._prefix = Prefix()

    def away(self, tools: Iterable[Tool[..., Any]]) -> None:
        """Calls of these tools run side by side, and the next request waits for all of them."""
        if self._keeper is not None:
            self._keeper.away(self.id, self._pause(tools))

    def foresee(self, request: ChatRequest) -> None:
        """The next request will begin like this one, which is all that is known of it by now.

        Its prompt is computed ahead where nobody has to wait for that, until `next`; no more where
        the run has its outcome, or the conversation is over.
        """
        if self._run.done:
            return
        ahead = replace(
            request,
            messages=tuple(request.messages),
            tool_choice=None,
            session=self._tag(),
        )
        self._prewarmer.know(ahead, lives=self.asked)

    def _tag(self) -> SessionTag:
        run = self._run
        follows = 0.0 if self._keeper is None else work_after(run, self._node)
        return SessionTag(
            self.id, run.tenant, run.began, run.deadline, follows, self._place, self._name
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._run.host.services.spawn(work, f"warming {self.id}")

    def _pause(self, tools: Iterable[Tool[..., Any]]) -> Pause | None:
        latencies = self._run.host.services.latencies
        return slowest(expected(tool, latencies(tool)) for tool in tools)

    def _broken(self, found: Break) -> None:
        run = self._run
        run.conversations.warn(self.id, found)
        if run.watched:
            where = (found.at, found.before, found.after)
            run.emit(events.PrefixBroken(run.id, run.now(), self.id, *where))
