"""A request on its way to a replica that answers: placed, tried, and tried elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from agentflow.caches.affinity.jobs import Send
from agentflow.clock import now
from agentflow.errors import BackendBusy, BackendError, BackendTimeout, BadReply, NoReplica
from agentflow.executor.affinity.care import Care
from agentflow.executor.affinity.desk import Desk
from agentflow.executor.affinity.intake import Call
from agentflow.executor.affinity.replica import is_its_own_refusal
from agentflow.executor.affinity.stream import PooledStream
from agentflow.executor.models.attempts import again, holding
from agentflow.executor.models.base import Usage
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.models.stream import Timeouts
from agentflow.executor.models.turns import Turns

_STAYED = ("new", "home")


class Placing:
    """Takes requests to replicas, until one gives a piece of a reply.

    Args:
        desk: Says which replica.
        care: Knows how they fare.
        retry: How often a request is repeated that every replica has failed.
        timeouts: Limits on waiting.
        turns: Every further attempt takes one.
        url: Of the pool, for messages.
    """

    def __init__(
        self,
        desk: Desk,
        care: Care,
        retry: RetryPolicy,
        timeouts: Timeouts,
        turns: Turns,
        url: str,
    ) -> None:
        self._desk = desk
        self._care = care
        self._retry = retry
        self._timeouts = timeouts
        self._turns = turns
        self._url = url

    async def begin(self, call: Call) -> PooledStream:
        """A reply that has its first piece, after as many attempts as it takes.

        Raises:
            BackendError: No attempt gave one.
        """
        holding()
        self._care.witnesses.join()
        while True:
            send = await self._place(call)
            stream = self._stream(call, send)
            try:
                await stream.open(call.request)
            except BackendError as failed:
                error = failed  # the next attempt begins outside: errors look at their context
            else:
                return stream
            call.placed.attempts += 1
            call.placed.silent = stream.placed.silent
            call.error = error
            await self._try_again(call, send.replica, error)
            await self._turns.again()

    @asynccontextmanager
    async def once(self, call: Call) -> AsyncIterator[PooledStream | None]:
        """The same in one attempt, if there is a turn and a replica at once; else None.

        Raises:
            BackendError: It failed.
        """
        holding()
        if (reserved := self._turns.take_now(call.request)) is None:
            yield None
        elif (send := self._desk.arrive(call.job)) is None:
            self._desk.withdraw(call.job)
            self._turns.leave(reserved)
            yield None
        else:
            self._care.attend()
            call.placed.started = now()
            stream = self._stream(call, send)
            try:
                await stream.open(call.request)
                yield stream
            finally:
                used = stream.usage if stream.began else Usage(0, 0)
                await stream.aclose()
                self._turns.settle(reserved, used)

    def _stream(self, call: Call, send: Send) -> PooledStream:
        member = self._care.members[send.replica]
        return PooledStream(call.job, member, self._desk, self._care, replace(call.placed))

    async def _place(self, call: Call) -> Send:
        """Wait until a request may be sent.

        Raises:
            NoReplica: There is none that could take it.
            BackendTimeout: None had room before its time was over.
        """
        asked, placed = now(), call.placed
        while (send := self._desk.arrive(call.job)) is None:
            self._care.attend()
            self._care.make_way(self._care.members.values())
            send = await self._wait(call, asked)
            if send is None:
                continue
            if self._desk.is_sent(send) and not self._care.members[send.replica].draining:
                break
            self._desk.withdraw(call.job)  # the replica left before this task woke up
        self._care.attend()
        self._care.make_way([self._care.members[send.replica]])
        at = now()
        placed.held += at - asked
        placed.started = placed.started or at
        if send.why not in _STAYED:
            placed.moved = send.why
        return send

    async def _wait(self, call: Call, since: float) -> Send | None:
        """Wait for a place; None if a replica is back in time that has none yet."""
        total = math.inf if self._timeouts.total is None else self._timeouts.total
        until = limit = min(call.until, since + total)
        if self._care.is_alone():
            until = min(until, call.broken_since + self._care.patience)
        try:
            return await self._desk.wait(call.job, None if until == math.inf else until)
        except NoReplica as none:
            raise none from call.error
        except BackendError:
            raise  # of a pool that closes
        except TimeoutError:
            if until < limit and not self._care.is_alone():
                return None
            raise self._too_late(call, until - since) from call.error

    def _too_late(self, call: Call, waited: float) -> BackendError:
        """Why a request was not sent in time."""
        if self._care.is_alone():
            none = self._care.no_replica()
            none.retryable = now() < call.until
            return none
        return BackendTimeout(
            f"{self._url}: no replica of the pool had room for the request within {waited:.4g} s",
            url=self._url,
            retryable=False,
        )

    async def _try_again(self, call: Call, name: str, error: BackendError) -> None:
        """Wait for the next attempt, or raise the error if there is none."""
        job, broken = call.job, self._are_broken(call, error)
        most = math.inf if broken else len(self._care.members) + self._retry.max_retries
        elsewhere = error.retryable or isinstance(error, BadReply) or is_its_own_refusal(error)
        if not elsewhere or call.placed.attempts >= most:
            raise error
        if broken:
            call.broken_since = min(call.broken_since, now())
        again(error)
        job.avoid |= {name}
        able = [r for r in self._desk.dispatcher.fleet.replicas.values() if r.usable]
        if any(replica.name not in job.avoid for replica in able):
            return
        job.avoid = frozenset()
        call.rounds += 1
        delay = self._delay(call, error, broken=broken)
        if delay is None or self._is_too_late(call, now() + (delay if able else 0.0)):
            raise error
        if able:
            await asyncio.sleep(delay)

    def _are_broken(self, call: Call, error: BackendError) -> bool:
        """Whether the servers seem to be broken, rather than to break at this request."""
        return _is_broken(error) and not self._care.has_answered(call.broken_since)

    def _delay(self, call: Call, error: BackendError, *, broken: bool) -> float | None:
        """Seconds until a request that every replica has failed is tried again; None: it is not."""
        if not broken:
            return self._retry.delay(call.rounds, error)
        if now() >= call.broken_since + self._care.patience:
            return None
        return self._retry.delay(max(1, min(call.rounds, self._retry.max_retries)), error)

    def _is_too_late(self, call: Call, at: float) -> bool:
        total = self._timeouts.total
        return at >= call.until or (total is not None and at >= call.placed.started + total)


def _is_broken(error: BackendError) -> bool:
    """Whether a server says that it is broken, which may be over when it has been restarted."""
    broken = error.status is not None and error.status >= 500
    return broken and error.retryable and not isinstance(error, BackendBusy)
