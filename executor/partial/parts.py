"""The parts of one run whose calls are complete, until those calls are made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from agentflow.caches.tool_cache import Ask
from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.calls.site import CallSite
from agentflow.executor.partial.part import Part, Why
from agentflow.executor.partial.records import PartialStats, Records
from agentflow.executor.state.run_state import RunState
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.executor.calls.running import Running
    from agentflow.executor.driver import Driver
    from agentflow.executor.run import Run


class Parts:
    """Hands parts to the calls they are the beginning of.

    Args:
        calls: The calls that are under way.

    Attributes:
        waiting: Parts whose call has not started, by plan id.
        claimed: Parts whose call has started, by slot, until it adopts them.
        held: Parts whose call has adopted them and may still be taken back, by plan id, and the
            seconds they hid.
        stats: What became of all parts.
    """

    def __init__(self, calls: Running) -> None:
        self._calls = calls
        self._numbers = count(1)
        self.stats = PartialStats()
        self.waiting: dict[int, Part] = {}
        self.claimed: dict[int, Part] = {}
        self.held: dict[int, tuple[Part, float]] = {}
        self._open: set[Part] = set()

    def make_part(self, run: Run[Any], tool: Tool[..., Any]) -> Part:
        """A part for a call that a model begins to write."""
        call = run.host.services.call(tool, None)
        part = Part(next(self._numbers), call, run, Records(run, self.stats))
        self._open.add(part)
        return part

    def close(self) -> None:
        """The run ends: nobody will make the calls that are left."""
        for part in tuple(self._open):
            part.retract(Why.ENDED)
        for node in tuple(self.held):
            self.taken_back(node)

    def watch(self, driver: Driver, node: int) -> None:
        """Retract a part in the end if its call ends without it."""

        def ended(_state: RunState, slot: int) -> None:
            if (part := self.waiting.pop(node, None)) is not None:
                part.retract(Why.NOT_MADE)
            self.forgo(slot, Why.NOT_MADE)

        driver.watch(node, ended)

    def claim(self, slot: int, call: BoundCall) -> None:
        """A call starts: a part of it is its own from now on, if its arguments are the same."""
        part = self.waiting.pop(self._calls.state.where(slot)[0], None)
        if part is None:
            return
        try:
            if part.claim(call.tool.spec.bind(*self._calls.arguments(slot))):
                self.claimed[slot] = part
        except Exception:  # noqa: BLE001  # the call itself will raise it
            part.retract(Why.NOT_MADE)

    def known(self, slot: int) -> None:
        """A call needs not be made: its value is there."""
        part = self.waiting.pop(self._calls.state.where(slot)[0], None)
        if part is not None:
            part.retract(Why.KNOWN)

    def begun(self, slot: int) -> bool:
        """Whether a call was begun by its part, which has taken its turn."""
        part = self.claimed.get(slot)
        return part is not None and part.called

    async def make(
        self,
        slot: int,
        call: BoundCall,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        site: CallSite | None,
        ask: Ask | None = None,
    ) -> Any:
        """Make a call with arguments that are valid, or go on with its part.

        Args:
            slot: Of the call.
            call: The tool.
            args: By position.
            kwargs: By name.
            site: Where it is made.
            ask: The call, as the cache knows it, which is to know what it took; None without.
        """
        if (part := self.claimed.pop(slot, None)) is None:
            return await call.make(args, kwargs, site)
        if (trouble := await part.trouble(args, kwargs)) is None:
            state = self._calls.state
            if ask is not None:
                ask.ahead = part.hidden
            return await part.adopt(state.where(slot)[0], state.place(slot), args, kwargs, site)
        part.retract(trouble)
        await self._calls.untimed(slot, call, part.ended(), "guest")
        make = partial(call.make, args, kwargs, site)
        if part.called and call.limiter is not None:  # its turn went to what was of no use
            return await self._calls.in_turn(slot, call, call.limiter, make)
        return await make()

    def forgo(self, slot: int, why: Why) -> None:
        """An attempt has ended; if it had no use for its part, nothing else will."""
        if (part := self.claimed.pop(slot, None)) is not None:
            part.retract(why)

    # What became of them

    def adopted(self, part: Part, node: int, hidden: float) -> None:
        """A call goes on from its part, though it may still be taken back."""
        self._open.discard(part)
        self.held[node] = part, hidden
        if self._calls.belongs(node):
            self.committed(node)

    def committed(self, node: int) -> None:
        """A call belongs to the plan."""
        if (found := self.held.pop(node, None)) is not None:
            part, hidden = found
            part.records.committed(part, node, hidden)

    def taken_back(self, node: int) -> None:
        """A call does not belong to the plan after all."""
        if (found := self.held.pop(node, None)) is not None:
            found[0].records.retracted(found[0], Why.NOT_MADE)

    def retracted(self, part: Part) -> None:
        """A part is of no use."""
        self._open.discard(part)
