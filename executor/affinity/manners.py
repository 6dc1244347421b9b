"""How one server wants to be spoken to, once it is known what it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Any

from agentflow.caches.affinity.fleet import Fleet
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.slots import NOTHING, SlotTable
from agentflow.clock import now
from agentflow.errors import BackendError, BackendUnreachable
from agentflow.executor.affinity.dialects import (
    LLAMA_CPP,
    UNKNOWN,
    Dialect,
    Speaks,
    asked,
    dialect_of,
)
from agentflow.executor.affinity.metrics import Reader, ServerState
from agentflow.executor.affinity.plainly import Dressed
from agentflow.executor.affinity.slots import Slots
from agentflow.executor.models import probe
from agentflow.executor.models.base import ChatRequest

MOMENT = 0.5
"""Seconds that requests wait at most until it is known what the server is."""


class Manners:
    """A server's dialect, its slots and its pages.

    It is asked what it is when the first request comes, which waits for the answer a moment:
    tenants are to be kept apart from the beginning. Until it has answered it is sent nothing that
    not every server accepts.

    Args:
        http: A client from `agentflow._http.client`.
        url: The base URL of the server's API.
        headers: Sent along, such as ``Authorization``.
        fleet: Knows when sessions will be back.
        name: Of the replica in the fleet.
        dialect: What it speaks, if that is known.

    Attributes:
        dialect: What it speaks, as far as is known.
    """

    def __init__(
        self,
        http: Any,
        url: str,
        headers: Mapping[str, str],
        fleet: Fleet,
        name: str,
        dialect: Speaks | None = None,
    ) -> None:
        self.dialect: Speaks = dialect or UNKNOWN
        self._given = self.dialect
        self._asks = dialect is None
        self._where = (http, url, headers)
        keys = (text for name, text in headers.items() if name.lower() == "authorization")
        self._secret = next(keys, "")
        self._fleet = fleet
        self._name = name
        self._slots: Slots | None = None
        self._learning: asyncio.Task[None] | None = None
        self._until = 0.0
        self._doubted = False
        self._known = asyncio.Event()
        if not self._asks and self.server != LLAMA_CPP.name:
            self._known.set()

    @property
    def server(self) -> str:
        """What the server is, as far as is known; see `probe.Endpoint`."""
        return self.dialect.name if isinstance(self.dialect, Dialect) else UNKNOWN.name

    @asynccontextmanager
    async def request(
        self, request: ChatRequest, session: str, *, optional: bool = False
    ) -> AsyncIterator[ChatRequest]:
        """A request as the server is sent it; what it says itself goes before what is added.

        Leave the block when it has ended.

        Args:
            request: As it was made.
            session: Name of its session in the fleet.
            optional: It only makes a later one faster.
        """
        if not self._known.is_set():
            await self._learn_a_moment()
        slots = self._slots
        slot = None
        if slots is not None:
            owner = "" if request.session is None else session
            slot = await slots.take(owner, self._prompt(session))
        try:
            yield self._dressed(request, optional, slot)
        finally:
            if slots is not None and slot is not None:
                known = self._fleet.sessions.get(session)
                slots.give_back(slot, 0 if known is None else known.tokens)

    def ended(self, session: str) -> None:
        """A session asks nothing more."""
        if self._slots is not None:
            self._slots.ended(session)

    async def state(self) -> ServerState | None:
        """What the server tells of itself; None if nothing is known of servers of its make."""
        if not self._known.is_set():
            await self._learn_a_moment()
        self._fleet.asks(self._name)
        return await self._reader.state()

    def told(self, state: ServerState) -> bool:
        """The server has told of itself; whether requests may wait there for slots that are gone.

        llama.cpp keeps a request for a slot that it does not have, and never answers it.
        """
        if self._slots is None or not state.slots or state.slots == self._slots.count:
            return False
        fewer = state.slots < self._slots.count
        self.forget()
        return fewer

    def forget(self) -> None:
        """It may be another server by now: it is asked again when the next request comes."""
        self._doubted = False
        self._ask_again()

    async def aclose(self) -> None:
        """Ask nothing more."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)

    def _prompt(self, session: str) -> Prompt:
        """What the session's latest request here asks to be computed."""
        flights = self._fleet.replicas[self._name].flights.values()
        jobs = (flight.job for flight in reversed(flights))
        return next((job.prompt for job in jobs if job.session == session), NOTHING)

    async def _learn_a_moment(self) -> None:
        if self._learning is None:
            # in a context of its own: it may outlive the run that asked first
            loop = asyncio.get_running_loop()
            self._learning = loop.create_task(self._learn(), context=Context())
            self._until = now() + MOMENT
        try:
            async with asyncio.timeout_at(self._until):
                await self._known.wait()
        except TimeoutError:
            pass

    async def _learn(self) -> None:
        endpoint = None
        if self._asks:
            try:
                endpoint = await probe.look(*self._where)
            except BackendError as error:
                self._ignorant(again=isinstance(error, BackendUnreachable))
                return
            self.dialect = dialect_of(endpoint)
        if self.server == LLAMA_CPP.name:
            self._slots = await self._look_at_slots()
        self._known.set()
        if endpoint is not None:
            http, _, headers = self._where
            self.dialect = await asked(endpoint, http, headers)

    def _ask_again(self) -> None:
        if self._learning is not None and self._learning.done():
            self.dialect, self._slots = self._given, None
            self._learning, self._known = None, asyncio.Event()

    def _refused(self, learnt: asyncio.Task[None] | None) -> None:
        """It refused what was added by what was learnt then: it is asked again, but only once.

        If it refuses that too, nothing is added to requests until it has been away.
        """
        if learnt is not self._learning:
            return  # it has been asked since
        if self._doubted:
            self.dialect, self._slots = UNKNOWN, None
        else:
            self._doubted = True
            self._ask_again()

    def _ignorant(self, *, again: bool) -> None:
        """Whoever waits goes on without knowing; the next one may ask again."""
        self._known.set()
        if again:
            self._learning, self._known = None, asyncio.Event()

    @property
    def _reader(self) -> Reader:
        return Reader(*self._where, self.server)

    async def _look_at_slots(self) -> Slots | None:
        state = await self._reader.state()
        if state is None or not state.slots:
            return None
        _, url, _ = self._where
        label = blake2b(url.encode(), digest_size=4).hexdigest()
        return Slots(*self._where, SlotTable(state.slots, label), self._fleet, self._name)

    def _dressed(self, request: ChatRequest, optional: bool, slot: int | None) -> ChatRequest:
        headers, body = self.dialect.fields(
            request.session, optional=optional, slot=slot, secret=self._secret
        )
        if not headers and not body:
            return request
        headers = {**headers, **(request.extra_headers or {})}
        body = {**body, **(request.extra_body or {})}
        if self._learning is None:  # whoever uses the pool has said what is added
            return replace(request, extra_headers=headers, extra_body=body)
        refused = partial(self._refused, self._learning)
        return Dressed.of(request, refused, extra_headers=headers, extra_body=body)
