"""The health of a pool's replicas: who is left alone, who hangs, who is back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from agentflow.caches.affinity.fleet import Replica
from agentflow.caches.affinity.health import SHORTEST_SILENCE, longest_silence
from agentflow.clock import now
from agentflow.errors import (
    BackendBusy,
    BackendError,
    BackendTimeout,
    BackendUnreachable,
    DefinitionError,
    NoReplica,
)
from agentflow.executor.affinity.alarm import Alarm
from agentflow.executor.affinity.desk import Desk
from agentflow.executor.affinity.metrics import Tells
from agentflow.executor.affinity.replica import (
    Member,
    is_its_fault,
    is_its_own_refusal,
    was_unreachable,
)
from agentflow.executor.affinity.witnesses import Witnesses
from agentflow.executor.models.retry import LONGEST_WAIT

if TYPE_CHECKING:
    from agentflow.executor.affinity.stream import PooledStream

PATIENCE = 30.0
"""Seconds for which requests wait for the first replica to come back, when none is there."""

REST = 1.0
"""Seconds for which a busy replica is left alone that does not say for how long."""

PROBE = 5.0
"""Seconds in which a replica answers when it is asked whether it is there."""


class Care:
    """Watches over the members of a pool while it has something to do.

    Args:
        desk: Is told who may be sent something.
        url: Of the pool, for messages.
        patience: Seconds for which requests wait while no member can take them.
        first_token: Seconds after which an attempt without a piece is over anyway; None: never.

    Raises:
        DefinitionError: The patience is less than none.

    Attributes:
        members: By name, in the order in which they joined.
        patience: As given.
        witnesses: Who hears which of them go down and come back.
    """

    def __init__(
        self,
        desk: Desk,
        url: str,
        patience: float = PATIENCE,
        first_token: float | None = None,
    ) -> None:
        if not patience >= 0:
            raise DefinitionError(f"patience={patience!r} must be 0 seconds or more")
        self.members: dict[str, Member] = {}
        self.witnesses = Witnesses()
        self._desk = desk
        self._url = url
        self.patience = patience
        self._first_token = math.inf if first_token is None else first_token
        self._alone_since = math.inf  # since when no member can take anything
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._alarm = Alarm(self._ring)

    def attend(self) -> None:
        """A request is under way: look after the members until none is."""
        self._alarm.set(now() + SHORTEST_SILENCE)
        if self._alone_since < math.inf or any(m.breaker.state == "open" for m in self._all()):
            self._alarm.set(self._look())

    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return any(member.streams for member in self._all()) or any(self._desk.waiting())

    def is_alone(self) -> bool:
        """Whether no member may be sent requests."""
        at = now()
        return not any(member.allows(at) for member in self._all())

    def has_answered(self, since: float) -> bool:
        """Whether any member has begun to answer a request since then."""
        return any(member.answered_at > since for member in self._all())

    def readers(self) -> list[tuple[str, Tells]]:
        """The members that can be asked how they are, by name."""
        return [(member.name, member.manners) for member in self._all() if member.connected]

    def make_way(self, members: Iterable[Member]) -> None:
        """A request needs the place of what is optional there."""
        for member in members:
            for stream in [stream for stream in member.streams if stream.optional]:
                url = member.spec.url
                stream.give_up(BackendError(f"{url}: a request needs the place", url=url))

    def recall(self, member: Member, why: str) -> None:
        """Requests that a member has given no piece of a reply to are placed anew."""
        url = member.spec.url
        for stream in [stream for stream in member.streams if not stream.began]:
            stream.give_up(BackendUnreachable(f"{url} {why}", url=url))

    def someone_else(self, member: Member) -> bool:
        """Whether another member may be sent requests."""
        at = now()
        return any(other is not member and other.allows(at) for other in self._all())

    def answered(self, member: Member, sent: float) -> None:
        """A request that was sent to a member then is being answered."""
        member.alive_at = member.answered_at = now()
        member.doubt.spoke()
        member.error = ""
        member.tally.answered += 1
        was = member.breaker.state
        member.breaker.succeeded(sent)
        if member.breaker.state != was:
            self.review(member)

    def failed(self, member: Member, error: BackendError, sent: float) -> None:
        """A request that was sent to a member then has failed."""
        at = now()
        if error.status is not None:
            member.alive_at = at  # it said so itself
        if isinstance(error, BackendBusy) and error.retryable:
            after = REST if error.retry_after is None else error.retry_after
            member.breaker.rest(at + min(after, LONGEST_WAIT), str(error))
        elif is_its_own_refusal(error) and not self.someone_else(member):
            member.error = str(error)
            return  # whoever asks hears of it; there is nobody to be preferred
        elif is_its_fault(error):
            gone = was_unreachable(error)
            member.breaker.failed(sent, at, str(error), gone=gone)
            if gone:
                self._replica(member).residency.forget()
        else:
            return
        member.error = str(error)
        member.tally.failures += 1
        self.review(member)

    def left(self, member: Member, sent: float) -> None:
        """Nobody waits any more for a request that was sent then, and gave no piece."""
        silent = now() - max(sent, _heard(member))
        if silent >= SHORTEST_SILENCE or not member.tally.answered:
            url = member.spec.url
            member.error = f"{url} had sent nothing for {silent:.3g} s when nobody waited any more"

    def review(self, member: Member) -> None:
        """Something happened to a member: tell the desk whether it may be sent anything now."""
        at = now()
        replica = self._replica(member)
        usable, trial = member.allows(at), member.breaker.state == "half-open"
        if (usable, trial) != (replica.usable, replica.trial):
            sends = self._desk.dispatcher.usable(member.name, usable, at, trial=trial)
            self._desk.heed(sends)
        self._alone_since = min(self._alone_since, at) if self.is_alone() else math.inf
        self._alarm.set(member.breaker.due(at))
        self.witnesses.see(member)

    async def aclose(self) -> None:
        """Look after nothing any more."""
        self._alarm.stop()
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for member in self._all():
            if member.connected:
                await member.manners.aclose()

    def _all(self) -> Iterable[Member]:
        return self.members.values()

    def _replica(self, member: Member) -> Replica:
        return self._desk.dispatcher.fleet.replicas[member.name]

    def _ring(self) -> float | None:
        """Look after the members, unless nothing is under way."""
        return self._look() if self.is_busy() else None

    def _look(self) -> float:
        """Do what time brings; say when to look again."""
        at = now()
        times = [at + SHORTEST_SILENCE]
        for member in list(self._all()):
            if member.allows(at) != self._replica(member).usable:
                self.review(member)  # its rest is over
            times += [self._try_again(member, at), self._silence_ends(member, at)]
        if self._alone_since < math.inf:
            waiting = list(self._desk.waiting())
            times += [self._refuse(number, since, at) for number, since in waiting]
        return min(times)

    # Members that are down

    def _try_again(self, member: Member, at: float) -> float:
        """Ask a member that is down whether it is there, if it is time; else say when it will be."""
        due = member.breaker.due(at)
        if due is None or member.name in self._probes:
            return math.inf
        if at >= due:
            self._ask(member, self._probe(member))
            return math.inf
        return due

    def _ask(self, member: Member, asking: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        self._probes[member.name] = loop.create_task(asking, context=Context())

    async def _probe(self, member: Member) -> None:
        """Ask a member whether it is there; if so, the next request finds out how it fares."""
        alive = await self._is_there(member)
        if member.name in self.members:
            if alive:
                member.manners.forget()
                self._desk.heed(self._desk.dispatcher.restarted(member.name, now()))
            member.breaker.probed(alive, now())
            self.review(member)

    async def _is_there(self, member: Member) -> bool:
        """Whether a member answers when it is asked."""
        try:
            async with asyncio.timeout(PROBE):
                return await member.backend.answers()
        except Exception:  # noqa: BLE001  # whatever it is, the replica did not answer
            return False
        finally:
            del self._probes[member.name]

    def _refuse(self, number: int, since: float, at: float) -> float:
        """Let a request wait no longer if that is too long; say until when it may."""
        until = max(since, self._alone_since) + self.patience
        rests = [m.breaker.rested for m in self._all() if m.condition(at) == "resting"]
        if rests:
            until = max(until, min(rests) + REST)
        if at < until:
            return until
        self._desk.refuse(number, self.no_replica())
        return math.inf

    def no_replica(self) -> NoReplica:
        """Why no member can take a request."""
        at = now()
        why = {member.name: member.complaint(at) for member in self._all()}
        said = "; ".join(f"{name}: {complaint}" for name, complaint in why.items())
        return NoReplica(
            f"no replica can take the request: {said or 'the pool has none'}",
            url=self._url,
            replicas=why,
        )

    # Members that are silent

    def _silence_ends(self, member: Member, at: float) -> float:
        """Do what a member's silence asks for; say when it will ask for more.

        A member that is all there is may be as slow as it likes, unless it is being tried.
        """
        since, answered = self._silent_since(member), self._answering(member)
        needed = member.breaker.state == "closed" and not self.someone_else(member)
        if since is None or needed:
            member.doubt.end()
            return math.inf
        rates = self._replica(answered or member).rates
        doubt, expected = member.doubt, longest_silence(self._replica(member), rates)
        if doubt.since is not None and _heard(member) > doubt.since:
            doubt.spoke()
        if doubt.since is not None and doubt.alive:
            longest = doubt.too_long(expected) if answered else math.inf  # it may have to load
            return self._move(member, since, longest, at)
        if member.name in self._probes:
            return math.inf  # it is being asked
        if at < since + doubt.long(expected):
            return since + doubt.long(expected)
        doubt.begin(at)
        self._ask(member, self._suspect(member))
        return math.inf

    def _silent_since(self, member: Member) -> float | None:
        """Since when nothing came from a member that somebody waits for; None if nobody does."""
        asked = [stream.asked for stream in member.streams if stream.asked is not None]
        if not asked:
            return None
        return max(min(asked), _heard(member))

    def _answering(self, member: Member) -> Member | None:
        """A member, or else another one, that has ever answered; they are about as fast."""
        known = (other for other in (member, *self._all()) if other.tally.answered)
        return next(known, None)

    async def _suspect(self, member: Member) -> None:
        """Ask a silent member whether it is there; if not, it hangs."""
        alive = await self._is_there(member)
        doubt, since, at = member.doubt, self._silent_since(member), now()
        if doubt.since is not None and _heard(member) > doubt.since:
            doubt.spoke()
        if doubt.since is None or since is None or since > doubt.since:
            doubt.end()
            return  # nobody waits for what was suspicious
        if alive:
            doubt.alive = True
        else:
            doubt.end()
            self._give_up(member, list(member.streams), at, at - since)
        self._alarm.set(at)

    def _move(self, member: Member, since: float, longest: float, at: float) -> float:
        """Take requests from a member that is there but says nothing, or say when.

        Each is moved once: what is silent at two replicas is slow itself.
        """
        longest = min(longest, self._first_token)
        slow = [s for s in member.streams if not (s.began or s.placed.silent)]
        due = {stream: max(since, stream.asked or since) + longest for stream in slow}
        over = [stream for stream, until in due.items() if at >= until]
        if not over:
            return min(due.values(), default=math.inf)
        for stream in over:
            stream.placed.silent = True
        self._give_up(member, over, at, longest)
        return math.inf

    def _give_up(
        self, member: Member, streams: list[PooledStream], at: float, silent: float
    ) -> None:
        url = member.spec.url
        error = BackendTimeout(
            f"{url} seems to hang: nothing came for {silent:.3g} s on any of its "
            f"{len(member.streams)} requests",
            url=url,
        )
        member.error = str(error)
        member.breaker.failed(at, at, member.error, gone=True)
        member.tally.failures += len(streams)
        self.review(member)
        for stream in streams:
            stream.give_up(error)


def _heard(member: Member) -> float:
    """When something came from a member last, on the loop's clock."""
    return max([member.alive_at, *(s.alive_at for s in member.streams if s.began)])
