"""Places at gates that calls take while they are under way.

In a resumed run, before its past is known, calls begin without: what ended before needs no place,
and a call that waits until all of that is known must not keep one from it. So they go through no
gate, and take their places when they are really made.

A call that has failed gives its place up for one of the tool that it falls back to. If it kept its
own meanwhile, two that fall back to each other's tools could wait for ever.
"""

from __future__ import annotations

import asyncio

from agentflow.executor.state.gates import Gate


class Place:
    """A place of one call, taken late.

    Args:
        gate: Where.
        rank: How urgent the call is.
        held: Whether the call has it already.
    """

    def __init__(self, gate: Gate, rank: float, *, held: bool = False) -> None:
        self._gate = gate
        self._rank = rank
        self._turn: asyncio.Future[None] | None = None
        self._held = held

    async def take(self) -> bool:
        """Wait for the place; whether that took any time."""
        if self._gate.room > 0 and not self._gate.queue:
            self.wake(0)
            return False
        self._turn = asyncio.get_running_loop().create_future()
        self._gate.park(self._rank, self, 0)
        await self._turn
        return True

    def leave(self) -> None:
        """Give the place back; it goes to the next in line."""
        if self._held:
            self._held = False
            self._gate.give_back()
            if (waiter := self._gate.next()) is not None:
                waiter[0].wake(waiter[1])

    async def move(self, gate: Gate) -> None:
        """Give the place back, and wait for one at another gate."""
        self.leave()
        self._gate, self._turn = gate, None
        await self.take()

    # As whoever waits at a gate

    def waits_at_gate(self, _slot: int) -> bool:
        """Whether the call still wants to start."""
        return self._turn is not None and not self._turn.done()

    def wake(self, _slot: int) -> None:
        """The gate lets the call through."""
        self._gate.free -= 1
        self._held = True
        if self._gate.free < 0:
            self._gate.make_room()
        if self._turn is not None:
            self._turn.set_result(None)
