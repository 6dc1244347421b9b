"""A reply as one replica of a pool makes it, while it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from agentflow.caches.affinity.jobs import Job
from agentflow.clock import now
from agentflow.errors import BackendError, BadReply
from agentflow.executor.affinity.care import Care
from agentflow.executor.affinity.desk import Desk
from agentflow.executor.affinity.replica import Member
from agentflow.executor.models.base import ChatRequest, Delta, Reply, Usage
from agentflow.executor.models.stream import OpenAIStream
from agentflow.executor.models.watch import Expired, Watch


@dataclass(slots=True)
class Placed:
    """How a request came where it is.

    Attributes:
        moved: Why its session left the replica where it was; empty if it did not.
        held: Seconds that it waited in the pool.
        started: When its first attempt began, on the loop's clock.
        attempts: How many were made before.
        silent: Whether it was taken from a replica that was there, and said nothing.
    """

    moved: str = ""
    held: float = 0.0
    started: float = 0.0
    attempts: int = 0
    silent: bool = False


class PooledStream:
    """One attempt at a request: its reply while it arrives, and what the pool learns of it.

    Args:
        job: The request as a job; it was sent to the member.
        member: Where it was sent.
        desk: Is told how it goes.
        care: Is told how the member fares.
        placed: How it came there.

    Attributes:
        whole: Whether the reply has come to its end.
        broken: What went wrong after the first piece, or None.
    """

    def __init__(self, job: Job, member: Member, desk: Desk, care: Care, placed: Placed) -> None:
        self.whole = False
        self.broken: BackendError | None = None
        self._job = job
        self._member = member
        self._desk = desk
        self._care = care
        self._placed = placed
        self._sent = now()
        self._landed = False
        self._exit = AsyncExitStack()
        self._opening = Watch()
        self._given_up: BackendError | None = None
        self._inner: OpenAIStream | None = None

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._reply_stream

    @property
    def usage(self) -> Usage:
        """Tokens so far: estimated until the backend has said, also after an error."""
        return self._reply_stream.usage

    @property
    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            RuntimeError: The stream has not been read to its end.
        """
        return self._reply_stream.reply

    @property
    def replica(self) -> str:
        """Name of the replica that answers."""
        return self._member.name

    @property
    def began(self) -> bool:
        """Whether a piece has come."""
        return self._inner is not None

    @property
    def placed(self) -> Placed:
        """How the request came where it is."""
        return self._placed

    @property
    def asked(self) -> float | None:
        """Since when somebody waits for the replica to send more; None if nobody does."""
        return self._sent if self._inner is None else self._inner.asked

    @property
    def alive_at(self) -> float:
        """When the replica sent something last, on the loop's clock."""
        return self._sent if self._inner is None else self._inner.alive_at

    async def open(self, request: ChatRequest) -> None:
        """Send the request and wait for the first piece.

        Raises:
            BackendError: None came.
        """
        self._member.enter(self)
        try:
            self._inner = await self._first_piece(request)
        except BaseException as error:
            if not isinstance(error, BackendError):
                self._care.left(self._member, self._sent)
            await self.aclose()
            raise
        self._care.answered(self._member, self._sent)
        if self._placed.moved:
            self._member.tally.moved[self._placed.moved] += 1
        self._desk.heed(self._desk.dispatcher.began(self._job.number, now()))
        self._inner.on_end(self._ended)

    @property
    def optional(self) -> bool:
        """Whether it only makes a later reply faster."""
        return self._job.optional

    def give_up(self, error: BackendError) -> None:
        """Break it off, which is not the replica's fault; whoever reads it has the error."""
        self._given_up = error
        if self._inner is not None:
            self._inner.break_off(error)
        else:
            self._opening.expire()

    async def aclose(self) -> None:
        """End the call, on the server too if it is still answering."""
        try:
            await self._exit.aclose()
        finally:
            if not self._landed:
                self._landed = True
                self._desk.heed(self._desk.dispatcher.withdrawn(self._job.number, now()))
            self._member.leave(self)

    @property
    def _reply_stream(self) -> OpenAIStream:
        assert self._inner is not None, "open() comes first"
        return self._inner

    async def _first_piece(self, request: ChatRequest) -> OpenAIStream:
        try:
            return await self._opening.wait(self._send(request), None)
        except Expired:
            assert self._given_up is not None, "nothing else lets the time be over"
            error = self._given_up
        except BackendError as failed:
            error = failed
        self._failed(error)
        raise error

    async def _send(self, request: ChatRequest) -> OpenAIStream:
        member, job, placed = self._member, self._job, self._placed
        dressed = member.manners.request(request, job.session, optional=job.optional)
        request = await self._exit.enter_async_context(dressed)
        await member.backend.connect()
        self._desk.leaves(job, member.name)
        call = member.backend.stream(request, started=placed.started, attempts=placed.attempts)
        return await self._exit.enter_async_context(call)

    def _ended(self, error: BackendError | None) -> None:
        """The reply has ended; it is called by the stream itself."""
        if error is None:
            self._finished(self._reply_stream.reply)
            return
        self.broken = error
        if isinstance(error, BadReply):
            error.retryable = True  # another replica may speak better
        self._failed(error)

    def _failed(self, error: BackendError) -> None:
        self._landed = True
        self._desk.heed(self._desk.dispatcher.failed(self._job.number, now()))
        if error is not self._given_up:
            self._care.failed(self._member, error, self._sent)

    def _finished(self, reply: Reply) -> None:
        used, placed = reply.usage, self._placed
        reply.replica, reply.moved, reply.held = self._member.name, placed.moved, placed.held
        self._landed = self.whole = True
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
