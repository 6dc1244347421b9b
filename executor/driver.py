"""The driver: carries out the run state's commands and reports back what happened.

One task per call. The task that ends runs the pump itself, so that a dependent starts in the
same step of the loop; whoever awaits the run sleeps on a single future.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Iterator
from typing import Any

from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.calls.places import Place
from agentflow.executor.calls.running import Running
from agentflow.executor.outputs import Outputs, PutBy
from agentflow.executor.services import Services
from agentflow.executor.state.commands import (
    DONE,
    Admitted,
    Command,
    Dropped,
    Extended,
    Failed,
    Finished,
    Halted,
    Happening,
    MakeRoom,
    Parked,
    Queued,
    Settle,
    Start,
    Stop,
    Wake,
)
from agentflow.executor.state.gates import OPEN, Gate
from agentflow.executor.state.losses import spares
from agentflow.executor.state.run_state import RunState
from agentflow.planner.plan import GATHER, Node, Plan, Ref
from agentflow.tools.effects import Resource
from agentflow.tools.tool import Tool

MANY = 500
"""Calls that are ended in a few milliseconds."""

TURNS = 8
"""Of the loop, until whoever awaits a run has its outcome, through a few tasks even."""

Watcher = Callable[["RunState", int], None]
"""Called when a slot is settled."""


class Driver(Running):
    """Runs the calls of one run.

    Args:
        services: What the engine's runs share.
        tools: The tool of a node.
        run: Id of the run.
        context: Context variables that calls see.
        fail_fast: The first failure that no join policy tolerates halts the run.
        chance: Seeded generator of the run.
        key: Idempotency key of a plan id.
    """

    def __init__(
        self,
        services: Services,
        tools: Callable[[str], Tool[..., Any]],
        *,
        run: str,
        context: contextvars.Context,
        fail_fast: bool,
        chance: random.Random,
        key: Callable[[int], str],
    ) -> None:
        super().__init__(services, run=run, context=context, chance=chance)
        self._tools = tools
        self.key = key
        self._calls: dict[Any, BoundCall] = {}
        self._watchers: dict[int, list[Watcher]] = {}
        self.listener: Watcher | None = None  # told of every slot
        self._closed = False
        self._pausing = False  # it takes in nothing until it is halted
        self._finishes = False  # when it is halted
        self._sparing = False  # calls that run go on, although the state stops them
        self.over: asyncio.Future[None] = self.loop.create_future()
        self.outputs: PutBy = Outputs(self.over, services.limits.output)
        self.broken: Callable[[BaseException], None] | None = None
        self.state = RunState(
            self._gate,
            window=services.limits.run,
            fail_fast=fail_fast,
            takes_none=self._takes_none,
            writes=self._writes,
        )
        self.state.wake = self._wake
        self.afterwards.over = self.check_over

    # From outside

    def extend(self, plan: Plan, contexts: dict[int, contextvars.Context] | None = None) -> None:
        """Nodes join the plan; those that can start do."""
        if contexts:
            self._contexts.update(contexts)
        self._halt_in(0)
        self._tell(Extended(plan))

    @property
    def complete(self) -> bool:
        """Whether no further nodes will come."""
        return self._closed

    def close(self) -> None:
        """No further nodes will come; the run is over when all are settled."""
        self._closed = True
        self.check_over()

    async def finished(self) -> None:
        """Wait until all calls are settled; whoever is cancelled here cancels none of them."""
        await asyncio.shield(self.over)

    def halt(self, *, finish: bool = False) -> None:
        """Nothing new starts; what runs is stopped, or finished.

        To end many calls takes a while: whoever waits for the run has its outcome before.
        """
        self.parts.close()
        self._closed = True
        if self._pausing:
            return
        self._finishes = finish
        if self._pumping or self.state.open <= MANY:
            self._tell(Halted())
        else:
            self._pausing = self._pumping = True
            self._halt_in(TURNS)

    def _halt_in(self, turns: int) -> None:
        """Halt in so many turns of the loop; what happens until then is taken in afterwards."""
        if turns:
            self.loop.call_soon(self._halt_in, turns - 1)
        elif self._pausing:
            self._pausing = False
            self._inbox.appendleft(Halted())
            self._pump()

    def drop_all(self) -> None:
        """Cancel every call there is; further ones may be made."""
        for slot, status in enumerate(self.state.status):
            if status < DONE:
                self._tell(Dropped(slot))

    def drop(self, node: int) -> None:
        """Cancel the call of a plan id."""
        self._tell(Dropped(self.state.slot(node)))

    def commit(self, node: int) -> None:
        """A call belongs to the plan, which was not certain before."""
        self.parts.committed(node)
        if self.answers is not None:
            self.answers.committed(node)

    def take_back(self, node: int) -> None:
        """A call does not belong to the plan: cancel it."""
        self.parts.taken_back(node)
        self.drop(node)

    def watch(self, node: int, watcher: Watcher) -> None:
        """Call `watcher` when a plan id is settled; at once if it is."""
        self.watch_slot(self.state.slot(node), watcher)

    def watch_slot(self, slot: int, watcher: Watcher) -> None:
        """Call `watcher` when a slot is settled; at once if it is."""
        if self.state.status[slot] >= DONE:
            watcher(self.state, slot)
        else:
            self._watchers.setdefault(slot, []).append(watcher)

    # The pump

    def _tell(self, happening: Happening) -> None:
        self._inbox.append(happening)
        if not self._pumping:
            self._pump()

    def _pump(self) -> None:
        self._pumping = True
        inbox, react, perform = self._inbox, self.state.react, self._perform
        try:
            while inbox:
                happening = inbox.popleft()
                self._sparing = type(happening) is not Finished and self._spares(happening)
                if self.teller is not None and type(happening) is Finished:
                    self.teller.finished(happening.slot, happening.value)
                crowded: list[Gate] | None = None
                for command in react(happening):
                    if type(command) is Start:
                        self._start(command.slot)
                    elif type(command) is MakeRoom:
                        crowded = [*(crowded or ()), command.gate]
                    else:
                        perform(command)
                if crowded is not None:  # by now calls have taken over what began for them
                    for gate in crowded:
                        gate.make_room()
                if type(happening) is Finished and (self.listener or self._watchers):
                    self._notify(happening.slot)
        except BaseException as error:
            self.fail(error)  # and pump no more
            raise
        self._pumping = False
        if not self.state.open:
            self.check_over()

    def fail(self, error: BaseException) -> None:
        """The state cannot be trusted any more: end the run rather than let it hang."""
        self.timers.close()
        if not self.over.done():
            self.over.set_result(None)
        for task in self._tasks.values():
            task.cancel()
        if self.broken is not None:
            self.broken(error)

    def check_over(self) -> None:
        """See whether the run is over: nothing runs, and nothing further comes."""
        if self._closed and not (self.state.open or self.afterwards or self.over.done()):
            self.timers.close()
            self.over.set_result(None)

    def _spares(self, happening: Happening) -> bool:
        """Whether calls are finished although what happened is a reason to stop them."""
        if type(happening) is Failed:
            return spares(happening.error)
        return type(happening) is Halted and self._finishes

    def _perform(self, command: Command) -> None:
        match command:
            case Settle(slot):
                self._waiting.pop(slot, None)
                if self.teller is not None:
                    self.teller.settled(slot)
                self._notify(slot)
            case Queued(slot):
                self._waits(slot, "run")
            case Parked(slot):
                self._waits(slot, "tool")
                self._look_up(slot)
            case Stop(slot):
                if not self._sparing:
                    self._stop(slot)
            case Wake(state, slot):
                state.wake(slot)

    def _wake(self, slot: int) -> None:
        self._tell(Admitted(slot))

    def _notify(self, slot: int) -> None:
        if self.listener is not None:
            self.listener(self.state, slot)
        for watcher in self._watchers.pop(slot, ()):
            watcher(self.state, slot)

    # Calls

    def _call(self, node: Node) -> BoundCall:
        key = node.tool if node.options is None else (node.tool, node.options)
        if (call := self._calls.get(key)) is None:
            call = self._services.call(self._tools(node.tool), node.options)
            self._calls[key] = call
        return call

    def _gate(self, node: Node) -> Gate:
        """The gate of the next slot; its composed call is kept for when it starts."""
        call = None if node.tool == GATHER else self._call(node)
        self._bound.append(call)
        if call is None:
            return OPEN
        if self.notes is not None and self.notes.recalling:
            self._places[len(self._bound) - 1] = Place(call.gate, node.rank)
            return OPEN
        return call.gate

    def _takes_none(self, node: Node, used: int) -> bool:
        """Whether `used` stands only where its value, and so None, is the whole argument."""
        spec = self._tools(node.tool).spec
        nullable = {p.name for p in spec.parameters if p.accepts_none}
        bound = spec.bind(node.args, dict(node.kwargs))
        users = {name: arg for name, arg in bound.items() if used in Node("", (arg,)).uses()}
        guarded = node.guard is not None and node.guard.node == used
        return not guarded and all(
            name in nullable and arg == Ref(used) for name, arg in users.items()
        )

    def being_written(self) -> Iterator[Resource]:
        """What calls write to that have not ended."""
        for node, status in zip(self.state.nodes, self.state.status, strict=True):
            if status < DONE and node.tool != GATHER:
                yield from self._writes(node)

    def _writes(self, node: Node) -> tuple[Resource, ...]:
        """The resources that a call writes to."""
        tool = self._tools(node.tool)
        if tool.effect.kind != "writes":
            return ()
        return tool.effect.touched(tool.spec.bind(node.args, dict(node.kwargs)))
