"""The slots of a llama.cpp server: chosen, saved and restored by the pool."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from agentflow.caches.affinity.fleet import Fleet
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.slots import SlotTable
from agentflow.clock import now
from agentflow.executor.models import failures

PATIENCE = 10.0
"""Seconds that saving or restoring a slot may take."""


_CANNOT = (404, 405, 501)
"""What a server answers that cannot save: it was started without ``--slot-save-path``."""


class Slots:
    """The slots of one server.

    Args:
        http: A client from `agentflow._http.client`.
        url: The base URL of the server's API.
        headers: Sent along, such as ``Authorization``.
        table: Says which slot.
        fleet: Knows when sessions will be back.
        name: Of the replica in the fleet.
    """

    def __init__(
        self,
        http: Any,
        url: str,
        headers: Mapping[str, str],
        table: SlotTable,
        fleet: Fleet,
        name: str,
    ) -> None:
        self._http = http
        self._address = urlunsplit((*urlsplit(url)[:2], "/slots/", "", ""))
        self._url = url
        self._headers = headers
        self._table = table
        self._fleet = fleet
        self._name = name
        self._free = asyncio.Semaphore(len(table.slots))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._table.slots)

    async def take(self, session: str, prompt: Prompt) -> int:
        """A slot for a request of a session, as soon as one is free; it is to be given back.

        What the slot held is saved before, and what the session had is restored, where that pays.

        Args:
            session: Empty for a request that belongs to none.
            prompt: Of the request.
        """
        await self._free.acquire()
        replica = self._fleet.replicas[self._name]
        seat = self._table.take(session, prompt, self._next_use, replica.rates.prefill)
        try:
            if seat.save and not await self._act(seat.slot, "save", seat.save):
                self._table.lost(seat.saved)
            if seat.restore and not await self._act(seat.slot, "restore", seat.restore):
                self._table.lost(session)
        except BaseException:
            self.give_back(seat.slot)
            raise
        return seat.slot

    def give_back(self, slot: int, tokens: int = 0) -> None:
        """A request has left a slot.

        Args:
            slot: Its number.
            tokens: Of its prompt and of the reply, as far as that is known.
        """
        self._table.give_back(slot, tokens, now())
        self._free.release()

    def ended(self, session: str) -> None:
        """A session asks nothing more: whoever begins alike may have its slot."""
        self._table.end(session)

    def _next_use(self, session: str) -> float:
        """Seconds until a session will probably ask again."""
        known = self._fleet.sessions.get(session)
        if known is None:
            return math.inf
        if known.busy:
            return 0.0
        elapsed = now() - known.since
        return elapsed if known.pause is None else known.pause.remaining(elapsed)

    async def _act(self, slot: int, action: str, file: str) -> bool:
        """Save a slot in a file, or restore it from there; whether that was done."""
        began = now()
        address = f"{self._address}{slot}?action={action}"
        try:
            async with asyncio.timeout(PATIENCE):
                response = await self._post(address, file)
        except TimeoutError:
            return False
        if response is None:
            return False
        if response.status_code in _CANNOT and action == "save":
            self._table.saves = False
        if response.status_code != 200:
            return False
        self._table.swapped(_moved(response), now() - began)
        return True

    async def _post(self, address: str, file: str) -> Any:
        """The server's answer, or None.

        A connection that was kept and that the server has closed meanwhile says nothing, so it is
        tried twice: both actions do the same again.
        """
        for _ in range(2):
            try:
                return await self._http.post(
                    address, headers=self._headers, json={"filename": file}
                )
            except Exception as error:
                if failures.from_exception(error, self._url) is None:
                    raise
        return None


def _moved(response: Any) -> int:
    """How many tokens a server says that it has saved or restored."""
    try:
        said = response.json()
        return int(said.get("n_saved", said.get("n_restored", 0)))
    except (ValueError, TypeError, AttributeError):
        return 0
