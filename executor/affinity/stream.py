"""A reply as one replica of a pool makes it, while it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

from agentflow.caches.affinity.jobs import Job
from agentflow.clock import now
from agentflow.errors import BackendError, BadReply
from agentflow.executor.affinity.care import Care
from agentflow.executor.affinity.desk import Desk
from agentflow.executor.affinity.replica import Member
from agentflow.executor.models.base import ChatRequest, Delta, Reply, Usage
from agentflow.executor.models.stream import OpenAIStream
from agentflow.executor.models.watch import Expired, Watch

R = TypeVar("R")

TOLD_EVERY = 32
"""Pieces after which the dispatcher is told how far a reply is."""


@dataclass(slots=True)
class Placed:
    """How a request came where it is.

    Attributes:
        moved: Why its session left the replica where it was; empty if it did not.
        held: Seconds that it waited in the pool.
        started: When its first attempt began, on the loop's clock.
        attempts: How many were made before.
    """

    moved: str = ""
    held: float = 0.0
    started: float = 0.0
    attempts: int = 0


class PooledStream:
    """One attempt at a request: its reply, and what the pool learns of it.

    Args:
        job: The request as a job; it was sent to the member.
        member: Where it was sent.
        desk: Is told how it goes.
        care: Is told how the member fares.
        placed: How it came there.

    Attributes:
        began: Whether a piece has come.
        asked: Since when somebody waits for the next piece, on the loop's clock; None if
            nobody does.
    """

    def __init__(self, job: Job, member: Member, desk: Desk, care: Care, placed: Placed) -> None:
        self.began = False
        self.asked: float | None = None
        self._job = job
        self._member = member
        self._desk = desk
        self._care = care
        self._placed = placed
        self._sent = now()
        self._watch = Watch()
        self._exit = AsyncExitStack()
        self._inner: OpenAIStream | None = None
        self._made = 0
        self._landed = False
        self._whole = False
        self._broken: BackendError | None = None

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        assert self._inner is not None, "open() comes first"
        if self._broken is not None:
            raise self._failed(self._broken)
        piece = await self._await(anext(self._inner, None))
        if piece is None:
            raise StopAsyncIteration
        self._member.alive_at = now()
        self._made += 1
        if isinstance(piece, Usage):
            self._finished(self._inner.reply)
        elif self._made % TOLD_EVERY == 0:
            self._desk.dispatcher.progressed(self._job.number, self._made)
        return piece

    @property
    def usage(self) -> Usage:
        """Tokens so far: estimated until the backend has said, also after an error."""
        assert self._inner is not None, "open() comes first"
        return self._inner.usage

    @property
    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            RuntimeError: The stream has not been read to its end.
        """
        assert self._inner is not None, "open() comes first"
        return self._inner.reply

    @property
    def whole(self) -> bool:
        """Whether the reply has been read to its end."""
        return self._whole

    async def open(self, request: ChatRequest) -> None:
        """Send the request and wait for the first piece.

        Raises:
            BackendError: None came.
        """
        member, placed = self._member, self._placed
        member.enter(self)
        call = member.backend.stream(request, started=placed.started, attempts=placed.attempts)
        try:
            self._inner = await self._await(self._exit.enter_async_context(call))
        except BaseException:
            await self.aclose()
            raise
        self.began = True
        if placed.moved:
            member.tally.moved[placed.moved] += 1
        self._care.answered(member, self._sent)
        self._desk.heed(self._desk.dispatcher.began(self._job.number, now()))

    def end(self, error: BackendError) -> None:
        """Break it off; whoever reads it has the error."""
        if self._broken is None and not self._landed:
            self._broken = error
            self._watch.expire()

    async def aclose(self) -> None:
        """End the call, on the server too if it is still answering."""
        try:
            await self._exit.aclose()
        finally:
            self._watch.stop()
            if not self._landed:
                self._landed = True
                self._desk.heed(self._desk.dispatcher.withdrawn(self._job.number, now()))
            self._member.leave(self)

    async def _await(self, step: Awaitable[R]) -> R:
        """Await a step of the call, unless the pool gives the replica up meanwhile."""
        self.asked = now()
        try:
            return await self._watch.wait(step, None)
        except Expired:
            assert self._broken is not None, "only end() lets the time be over"
            error = self._broken
        except BackendError as failed:
            error = failed
        finally:
            self.asked = None
        raise self._failed(error)

    def _failed(self, error: BackendError) -> BackendError:
        """The attempt has failed; what is said of it."""
        if not self._landed:
            self._landed = True
            self._desk.heed(self._desk.dispatcher.failed(self._job.number, now()))
            self._care.failed(self._member, error, self._sent)
            if self.began and isinstance(error, BadReply):
                error.retryable = True  # another replica may speak better
        return error

    def _finished(self, reply: Reply) -> None:
        used = reply.usage
        placed = self._placed
        reply.replica, reply.moved, reply.held = self._member.name, placed.moved, placed.held
        self._landed = self._whole = True
        self._member.tally.count(used)
        self._desk.heed(
            self._desk.dispatcher.finished(
                self._job.number,
                now(),
                prompt=None if used.estimated else used.prompt_tokens,
                cached=used.cached_tokens,
                made=used.completion_tokens,
            )
        )
