"""Several replicas of one model behind one name, each conversation where its prefix is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain, count
from typing import Any
from urllib.parse import urlsplit

from agentflow import _http
from agentflow.budgets.prices import Prices
from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Pause
from agentflow.caches.affinity.policies import Policy
from agentflow.caches.affinity.warming import in_time, pays
from agentflow.clock import now
from agentflow.errors import BackendError, DefinitionError
from agentflow.executor.affinity.care import PATIENCE, Care
from agentflow.executor.affinity.desk import Desk
from agentflow.executor.affinity.dialects import DIALECTS, UNKNOWN, Speaks
from agentflow.executor.affinity.intake import Intake
from agentflow.executor.affinity.manners import Manners
from agentflow.executor.affinity.metrics import Poller, ServerState
from agentflow.executor.affinity.placing import Placing
from agentflow.executor.affinity.plainly import PlainlyAgain
from agentflow.executor.affinity.replica import (
    Member,
    ReplicaReport,
    ReplicaSpec,
    as_spec,
    as_specs,
)
from agentflow.executor.affinity.stream import PooledStream
from agentflow.executor.models.base import ChatRequest, Delta, Reply, Usage, read_whole
from agentflow.executor.models.probe import Endpoint
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.models.stream import Timeouts
from agentflow.executor.models.turns import Turns
from agentflow.wording import nearest

_NO_RETRY = RetryPolicy(max_retries=0)


class Pool:
    """A model that is served by several replicas.

    Every request goes where its conversation is probably still cached, unless it would be
    answered sooner elsewhere. While nothing of a reply has been handed out, a request that
    fails at one replica is repeated at another.

    Args:
        replicas: Base URLs, or `ReplicaSpec`.
        model: Name of the model there.
        api_key: Empty for servers that ask for none.
        policy: Chooses the replica; `EarliestCompletion` by default.
        prices: What the model costs; see `Prices`.
        limiter: Limits on requests and tokens per minute of all replicas together.
        timeouts: Limits on waiting; `total` also limits how long the pool holds a request.
        http: A shared client from `agentflow._http.client`, closed by whoever made it; by
            default the pool makes and closes its own.
        headers: Sent with every request.
        dialect: What the servers accept beside the API: ``auto`` asks each, a name (such as
            ``vllm``) or a `Template` says it, and None stands for nothing.
        retry: How often a request is repeated that every replica has failed.
        max_concurrent: Requests in flight at one replica at once; further ones wait.
        patience: Seconds for which requests wait while there is no replica to take them.
        seed: Of what is left to chance: the moments at which replicas are tried again.

    Attributes:
        name: Name of the model.
        url: Base URL of the first replica.
        prices: As given.
        timeouts: As given.

    Raises:
        DefinitionError: There is no replica, or one is there twice, or what is said of one, of
            the policy or of the patience is wrong.
    """

    def __init__(
        self,
        replicas: Iterable[str | ReplicaSpec],
        model: str = "",
        *,
        api_key: str = "",
        policy: Policy | None = None,
        prices: Prices | None = None,
        limiter: RateLimiter | None = None,
        timeouts: Timeouts | None = None,
        http: Any = None,
        headers: Mapping[str, str] | None = None,
        dialect: Speaks | str | None = "auto",
        retry: RetryPolicy | None = None,
        max_concurrent: int = 256,
        patience: float = PATIENCE,
        seed: int = 0,
    ) -> None:
        specs = as_specs(replicas)
        self.name = model
        self.url = specs[0].url
        self.prices = prices or Prices()
        self.timeouts = timeouts or Timeouts()
        self._key = api_key
        self._headers = dict(headers or {})
        self._http, self._owns_http = http, http is None
        self._dialect = _dialect(dialect)
        self._max_concurrent = max_concurrent
        self._chance = random.Random(seed)
        self._turns = Turns(limiter, self.url)
        self._desk = Desk(Dispatcher(_policy(policy)))
        self._intake = Intake(self._desk.dispatcher)
        self._care = Care(self._desk, self.url, patience, self.timeouts.first_token)
        retry = retry or RetryPolicy()
        self._placing = Placing(self._desk, self._care, retry, self.timeouts, self._turns, self.url)
        self._poller = Poller(self._care.readers, self._told, self._care.is_busy)
        self._connecting = asyncio.Lock()
        self._closed = False
        for spec in specs:
            self._add(spec, 0.0)

    @property
    def replicas(self) -> list[ReplicaReport]:
        """How each replica fares, and what it has done."""
        fleet = self._desk.dispatcher.fleet
        return [m.report(fleet.replicas[m.name], now()) for m in self._care.members.values()]

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[PooledStream]:
        """Start a call; the block is entered when the first piece is there.

        Raises:
            NoReplica: There was none that could take it, for longer than its patience.
            BackendError: No attempt gave a piece; iterating raises what goes wrong later.
        """
        await self.connect()
        call, used = self._intake.call(request), Usage(0, 0)
        reserved = await self._turns.take(request)
        self._poller.wake()
        try:
            stream = await self._placing.begin(call)
            try:
                yield stream
            finally:
                used = stream.usage
                await stream.aclose()
                if stream.whole:
                    self._intake.learn(call, used)
                elif stream.broken is not None:
                    self._intake.broke(request, stream.replica)
        finally:
            self._turns.settle(reserved, used)
            if request.session is None:
                self.ended(call.job.session)

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        """Make a call and wait for the whole reply; `on_delta` sees each piece as it comes.

        Raises:
            BackendError: The call failed; the class says how.
        """
        async with self.stream(request) as stream:
            return await read_whole(stream, on_delta)

    async def connect(self) -> None:
        """Load the HTTP library and build the client now rather than in the first call.

        Raises:
            BackendError: The pool is closed.
        """
        if self._http is None and not self._closed:
            async with self._connecting:
                if self._http is None and not self._closed:
                    connect = self.timeouts.connect
                    self._http = await asyncio.to_thread(_http.client, connect=connect)
                    for member in self._care.members.values():
                        self._connect(member)
        if self._closed:
            raise self._was_closed()

    async def probe(self, *, measure: bool = False) -> dict[str, Endpoint | BackendError]:
        """Ask every replica what it is and offers, and with `measure` make one tiny call each.

        Returns:
            What each is, or why it could not be asked, by name.
        """
        await self.connect()
        members = list(self._care.members.values())

        async def ask(member: Member) -> Endpoint | BackendError:
            try:
                return await member.backend.probe(measure=measure)
            except BackendError as error:
                return error

        found = await asyncio.gather(*map(ask, members))
        return {member.name: endpoint for member, endpoint in zip(members, found, strict=True)}

    async def aclose(self) -> None:
        """End what waits and what runs, and close the HTTP client if it is the pool's own."""
        self._closed = True
        self._desk.close(self._was_closed)
        for member in self._care.members.values():
            for stream in list(member.streams):
                stream.give_up(self._was_closed())
        await self._poller.aclose()
        await self._care.aclose()
        async with self._connecting:
            if self._owns_http and self._http is not None:
                http, self._http = self._http, None
                await http.aclose()

    # Sessions

    def away(self, session: str, pause: Pause | None) -> None:
        """A session's program does something else now, and will be back after the pause."""
        self._desk.heed(self._desk.dispatcher.away(session, pause, now()))

    def ended(self, session: str) -> None:
        """A session asks nothing more."""
        self._intake.forget(session)
        for member in self._care.members.values():
            if member.connected:
                member.manners.ended(session)
        self._desk.heed(self._desk.dispatcher.ended(session, now()))

    async def warm(self, request: ChatRequest) -> Reply | None:
        """Make a request that only makes a later one faster, where nothing has to wait for it.

        Its prompt is computed, and one token of a reply.

        Returns:
            The reply; None if there is no such place now, or no turn at the rate limit, or if it
            does not pay by what is known of when the session will be back.

        Raises:
            BackendError: The call failed, or gave way to another.
        """
        await self.connect()
        request = replace(request, max_tokens=1)
        call, fleet = self._intake.call(request, optional=True), self._desk.dispatcher.fleet
        session = fleet.sessions.get(call.job.session)
        known = session is not None and (session.busy or session.pause is not None)
        if not (pays if known else in_time)(call.job, fleet, now()):
            return None
        try:
            async with self._placing.once(call) as stream:
                if stream is None:
                    return None
                async for _ in stream:
                    pass
                return stream.reply
        finally:
            if request.session is None:
                self.ended(call.job.session)

    # Replicas that come and go

    def join(self, replica: str | ReplicaSpec) -> str:
        """A replica joins, or one that was drained takes requests again.

        Returns:
            Its name.

        Raises:
            DefinitionError: The URL is none, or the name is taken by another replica.
        """
        spec = as_spec(replica)
        known = next((m for m in self._care.members.values() if m.spec.url == spec.url), None)
        if known is not None:
            known.draining = False
            self._care.review(known)
            return known.name
        member = self._add(spec, now())
        self._care.review(member)  # there may have been nobody before
        return member.name

    async def drain(self, name: str) -> None:
        """Send nothing new to a replica, and wait until what it answers is done.

        Raises:
            DefinitionError: There is no such replica.
        """
        member = self._member(name)
        member.draining = True
        self._care.review(member)
        await member.idle.wait()

    async def leave(self, name: str) -> None:
        """Let a replica go: what it has begun to answer is finished, the rest goes elsewhere.

        Raises:
            DefinitionError: There is no such replica.
        """
        member = self._member(name)
        member.draining = True
        self._care.review(member)
        if self._care.someone_else(member):
            self._care.recall(member, "leaves the pool")
        await member.idle.wait()
        if self._care.members.get(name) is member and member.draining:
            del self._care.members[name]
            self._desk.dispatcher.leave(name, now())
            if member.connected:
                await member.manners.aclose()

    def _add(self, spec: ReplicaSpec, at: float) -> Member:
        name = spec.name or self._free_name(spec)
        if name in self._care.members:
            raise DefinitionError(f"there are two replicas called {name!r}: give them other names")
        member = Member(name, spec, random.Random(self._chance.random()))
        if self._http is not None:
            self._connect(member)
        self._care.members[name] = member
        dispatcher = self._desk.dispatcher
        self._desk.heed(dispatcher.join(name, at, slots=spec.slots, capacity=spec.capacity))
        return member

    def _free_name(self, spec: ReplicaSpec) -> str:
        place = urlsplit(spec.url).netloc
        names = chain([place], (f"{place}#{number}" for number in count(2)))
        return next(name for name in names if name not in self._care.members)

    def _member(self, name: str) -> Member:
        if (member := self._care.members.get(name)) is None:
            raise DefinitionError(
                f"the pool has no replica {name!r}. {nearest(name, list(self._care.members))}"
            )
        return member

    def _connect(self, member: Member) -> None:
        """Make the clients of a member."""
        spec, fleet = member.spec, self._desk.dispatcher.fleet
        headers = {**self._headers, **spec.headers}
        key = self._key if spec.api_key is None else spec.api_key
        backend = PlainlyAgain(
            spec.url,
            self.name,
            api_key=key,
            http=self._http,
            timeouts=self.timeouts,
            max_concurrent=self._max_concurrent,
            prices=self.prices,
            headers=headers,
            retry=_NO_RETRY,
        )
        asking = {**headers, "authorization": f"Bearer {key}"} if key else headers
        dialect = self._dialect if spec.dialect is None else _dialect(spec.dialect)
        manners = Manners(self._http, spec.url, asking, fleet, member.name, dialect)
        member.connect(backend, manners)

    def _told(self, name: str, state: ServerState) -> None:
        """A server has told what it is like."""
        if (member := self._care.members.get(name)) is not None:
            if member.manners.told(state):
                self._care.recall(member, "has fewer slots than it had")
            told = self._desk.dispatcher.observed(
                name,
                now(),
                capacity=state.capacity,
                slots=state.slots,
                page=state.block,
                load=state.load,
            )
            self._desk.heed(told)

    def _was_closed(self) -> BackendError:
        return BackendError(f"{self.url}: the pool of replicas was closed", url=self.url)


def _policy(policy: Policy | None) -> Policy:
    if policy is None:
        return EarliestCompletion()
    if isinstance(policy, (str, type)):
        raise DefinitionError(f"policy={policy!r} is no policy: give an instance, such as Sticky()")
    return policy


def _dialect(dialect: Speaks | str | None) -> Speaks | None:
    """A dialect by its name; None if the server is to be asked."""
    if dialect == "auto":
        return None
    if dialect is None:
        return UNKNOWN
    if isinstance(dialect, str):
        if dialect not in DIALECTS:
            raise DefinitionError(
                f"dialect={dialect!r} is not known. {nearest(dialect, list(DIALECTS))}"
            )
        return DIALECTS[dialect]
    return dialect
