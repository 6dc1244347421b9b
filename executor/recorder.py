"""Runs the calls a workflow makes between two awaits as a segment of its plan.

Between two awaits no task of the loop can run, so nothing is lost by waiting: the calls made
there form a segment that is compiled as a whole. The first call of a segment schedules its
flush with ``call_soon``; leaving the workflow flushes too.
"""

from __future__ import annotations

import asyncio
import contextvars
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from agentflow.errors import CallCancelled, CallSkipped, HistoryMismatch
from agentflow.executor.run import Run
from agentflow.executor.state.commands import DONE
from agentflow.executor.state.run_state import RunState
from agentflow.planner.plan import Plan, Ref
from agentflow.planner.trace import Trace
from agentflow.tools.paths import resolve
from agentflow.tools.values import IMMUTABLE, fresh

_Contexts = dict[int, contextvars.Context]


class WorkflowRecorder(Trace):
    """The calls of one running workflow.

    Args:
        run: Where segments are run.
        compile_segment: Rewrites a segment of several nodes before it starts.
    """

    def __init__(self, run: Run[Any], compile_segment: Callable[[Plan], Plan]) -> None:
        super().__init__(run.name, asyncio.get_running_loop())
        self._run = run
        self._driver = run.driver
        self._compile = compile_segment
        self._handles: dict[int, list[Any]] = {}  # of calls that are not settled, by plan id
        self._unused: list[Any] = []  # settled, and nobody had asked for them
        run.driver.state.spare = self._spared
        run.driver.listener = self._settled

    def collected(self, handle: Any) -> None:
        """A call was noted: it starts when the loop gets a turn."""
        if not self.pending:
            self.loop.call_soon(self.flush)
        self.pending.append(handle)

    def flush(self) -> None:
        """Start the calls collected so far."""
        if not self.pending:
            return
        handles, self.pending = self.pending, []
        contexts, self.contexts = self.contexts, {}
        try:
            plan = self.builder.cut()
            if len(plan.nodes) > 1:
                plan, contexts = self._compiled(plan, handles, contexts)
            self._run.extend(plan, contexts)
        except Exception as error:
            self._driver.fail(error)  # or whoever awaits one of the handles would wait for ever
            if isinstance(error, HistoryMismatch):
                return  # the run says so
            raise
        state = self._driver.state
        for handle in handles:
            node = handle.home.node
            if state.status[state.slots[node]] >= DONE:
                self._settle(handle, state, state.slots[node])
            elif (same := self._handles.get(node)) is None:
                self._handles[node] = [handle]
            else:
                same.append(handle)
            if handle.cancelled():
                self.cancel_handle(handle)

    def _compiled(
        self, plan: Plan, handles: list[Any], contexts: _Contexts
    ) -> tuple[Plan, _Contexts]:
        """The segment after its passes; every node of it is a root."""
        roots = [Ref(index) for index, _ in plan.items()]
        done = self._compile(Plan(plan.nodes, roots, plan.base))
        found: Any = done.result
        if found != roots:
            homes = {old.node: new for old, new in zip(roots, found, strict=True)}
            self.builder.moved(homes, plan.base + len(done.nodes))
            for handle in handles:
                handle.home = homes.get(handle.home.node, handle.home)
            contexts = {homes[index].node: context for index, context in contexts.items()}
        return Plan(done.nodes, base=plan.base), contexts

    def _settled(self, state: RunState, slot: int) -> None:
        """A call has ended; elements of maps have no handles."""
        node, element = state.where(slot)
        if element is None:
            for handle in self._handles.pop(node, ()):
                self._settle(handle, state, slot)

    def _settle(self, handle: Any, state: RunState, slot: int) -> None:
        """Give a settled call's value, or its error, to a handle."""
        if not handle.used:
            self._unused.append(handle)
        done = state.status[slot] is DONE
        if not done:
            self.builder.forget(handle.home.node)
        if handle.done():
            return
        if not done:
            self._refuse(handle, state.errors[slot])
            return
        value, path = state.values[slot], handle.home.path
        try:
            if path:
                value = resolve(value, path)
            handle.set_result(value if type(value) in IMMUTABLE else fresh(value))
        except Exception as error:  # noqa: BLE001  # the path leads nowhere, or a copy fails
            self._refuse(handle, error)

    def _refuse(self, handle: Any, error: BaseException) -> None:
        handle.set_exception(error)
        handle.exception()  # `finish` looks at it, not the garbage collector

    def cancel_handle(self, handle: Any) -> None:
        """A handle was cancelled: so is its call, unless another handle or call needs it."""
        self.flush()
        node, state = handle.home.node, self._driver.state
        if node >= len(state.slots):
            return  # it is joining the plan just now: `flush` sees to it
        if not state.used(state.slots[node]) and not self._waiting(node):
            self.builder.forget(node)
            self._driver.drop(node)

    def _waiting(self, node: int) -> list[Any]:
        """The handles of a call that have no value yet."""
        handles = self._handles.get(node, ())
        return [handle for handle in handles if not handle.done()]

    def _spared(self, losers: Counter[int]) -> set[int]:
        """Which slots that lost a race are needed still.

        Those that somebody awaits, and those the program asked for more often than in the race.
        """
        spared = set()
        for slot, times in losers.items():
            node = self._driver.state.where(slot)[0]
            handles = self._waiting(node)
            if len(handles) > times or any(handle._callbacks for handle in handles):
                spared.add(slot)
            else:  # it is about to be cancelled, which takes a while
                self.builder.forget(node)
        return spared

    async def finish(self) -> None:
        """The workflow returned: wait for every call it made.

        Raises:
            BaseException: What a call raised that nobody awaited; several as a group.
        """
        self.flush()
        self.ended = True
        self._driver.close()
        await self._driver.finished()
        lost = [e for e in map(self._unseen, self._unused) if e is not None]
        self._unused.clear()
        if len(lost) > 1:
            raise BaseExceptionGroup(f"calls of {self.name} that nobody awaited", lost)
        if lost:
            raise lost[0]

    def _unseen(self, handle: Any) -> BaseException | None:
        """What went wrong in a call whose handle was never used."""
        if handle.used or handle.cancelled():
            return None
        error: BaseException | None = handle.exception()
        if error is not None:
            return None if isinstance(error, CallSkipped | CallCancelled) else error
        warnings.warn_explicit(
            f"{handle.tool}(...) in workflow {self.name!r} was never awaited nor passed on; "
            "it was run all the same",
            RuntimeWarning,
            handle.code.co_filename,
            handle.line,
        )
        return None

    def abort(self) -> None:
        """The workflow raised: calls not started yet are discarded, and nobody awaits the rest."""
        self.ended = True
        self.builder.cut()
        for handle in self.pending:
            asyncio.Future.cancel(handle)
        self.pending = []
        self._unused.clear()
