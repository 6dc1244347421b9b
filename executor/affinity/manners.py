"""How one server wants to be spoken to, once it is known what it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from agentflow.caches.affinity.fleet import Fleet
from agentflow.caches.affinity.slots import SlotTable
from agentflow.executor.affinity.dialects import LLAMA_CPP, UNKNOWN, Dialect, Speaks, detect
from agentflow.executor.affinity.metrics import Reader, ServerState
from agentflow.executor.affinity.slots import Slots
from agentflow.executor.models.base import ChatRequest


class Manners:
    """A server's dialect, its slots and its pages.

    It is asked what it is beside the first request to it; until it has answered it is sent
    nothing that not every server accepts.

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
        self._asks = dialect is None
        self._where = (http, url, headers)
        self._fleet = fleet
        self._name = name
        self._slots: Slots | None = None
        self._learning: asyncio.Task[None] | None = None

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
        self._begin()
        slots = self._slots
        slot = None if slots is None else await slots.take(session)
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
        return await Reader(*self._where, self.server).state()

    async def learn(self) -> None:
        """Ask the server what it is, unless it was asked before."""
        self._begin()
        if self._learning is not None:
            await asyncio.shield(self._learning)

    async def aclose(self) -> None:
        """Ask nothing more."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        if self._slots is not None:
            await self._slots.aclose()

    def _begin(self) -> None:
        if self._learning is None and (self._asks or self.dialect is LLAMA_CPP):
            self._learning = asyncio.get_running_loop().create_task(self._learn())

    async def _learn(self) -> None:
        if self._asks:
            self.dialect = await detect(*self._where)
        if self.server == LLAMA_CPP.name:
            state = await self.state()
            if state is not None and state.slots:
                table = SlotTable(state.slots)
                self._slots = Slots(*self._where, table, self._fleet, self._name)

    def _dressed(self, request: ChatRequest, optional: bool, slot: int | None) -> ChatRequest:
        headers, body = self.dialect.fields(request.session, optional=optional, slot=slot)
        if not headers and not body:
            return request
        return replace(
            request,
            extra_headers={**headers, **(request.extra_headers or {})},
            extra_body={**body, **(request.extra_body or {})},
        )
