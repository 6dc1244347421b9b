"""`workflow`: an async function whose tool calls become a plan, segment by segment."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar, overload
from weakref import WeakKeyDictionary

from agentflow.budgets.budget import Budget
from agentflow.context import logged_node, recorder, run_scope
from agentflow.errors import DefinitionError
from agentflow.planner.plan import GATHER, Join, Plan
from agentflow.planner.trace import Trace
from agentflow.tools.effects import UNDECLARED
from agentflow.tools.handle import Handle
from agentflow.tools.policy import Policy
from agentflow.tools.tool import Tool
from agentflow.tools.values import Outcome

if TYPE_CHECKING:
    from agentflow.executor.run import Body

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_NO_LIMIT = Policy(timeout=None, limit=sys.maxsize)  # it waits for its own calls
_PREVIEW_TURNS = 50  # of the loop; what branches nested less deep call is seen


class Workflow(Tool[P, R]):
    """A workflow: called like the function it decorates, run by an engine.

    Inside another workflow a call is a `Handle`, and a run of its own, whose deadline and
    budget lie within its caller's. Elsewhere it is a coroutine; without an engine around it,
    it makes one for the call.

    Attributes:
        budget: What one run may spend, and how long it may take; None for no limit of its own.
    """

    def __init__(self, fn: Callable[P, Any], *, budget: Budget | None, local: Any) -> None:
        if not inspect.iscoroutinefunction(fn):
            raise DefinitionError(f"@workflow needs 'async def {fn.__name__}'")
        super().__init__(fn, effect=UNDECLARED, policy=_NO_LIMIT, local=local)
        self.budget = budget

    @property
    def implementation(self) -> Callable[..., Any]:
        """What a node of a plan calls: it starts a run."""
        return self._launch

    async def _launch(self, *args: Any, **kwargs: Any) -> Any:
        """Run it within the run that is going on, or with an engine of its own."""
        around = run_scope.get()
        if around is not None:
            return await around.host.start_child(self, args, kwargs, around, logged_node.get(0))
        from agentflow.engine import Engine

        async with Engine() as engine:
            return await engine.run(self, *args, **kwargs)

    async def _plain(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        return await self._launch(*args, **kwargs)

    def body(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Body[R]:
        """What a run of it does; its arguments are checked at once."""
        from agentflow.executor.bodies import workflow_body

        args, kwargs = self.signature.validate(args, dict(kwargs))
        return workflow_body(self.fn, args, kwargs, self.signature.check_result)

    def toolbox(self, default: Mapping[str, Tool[..., Any]]) -> Mapping[str, Tool[..., Any]]:
        """The tools that its runs begin with: its own calls bring theirs.

        Args:
            default: The tools of the engine.
        """
        return {}

    def within(self, budget: Budget) -> Self:
        """The same workflow with another budget: ``engine.run(brief.within(Budget(usd=1)), 3)``."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, budget=budget, shared=WeakKeyDictionary())
        twin.origin = twin
        return twin

    def plan(self, *args: P.args, **kwargs: P.kwargs) -> Plan:
        """The plan as far as it is known without running anything.

        The function runs in a loop of its own, for as long as no value is needed.
        """
        context = contextvars.copy_context()
        if asyncio._get_running_loop() is None:
            return context.run(self._preview, args, kwargs)
        with ThreadPoolExecutor(1) as apart:  # a thread runs one loop at a time
            return apart.submit(context.run, self._preview, args, kwargs).result()

    def _preview(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Plan:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda _loop, _fault: None)  # what is cut off may complain
            trace = Trace(self.name, loop)
            recorder.set(trace)
            task = loop.create_task(self.fn(*args, **kwargs))
            for _ in range(_PREVIEW_TURNS):
                loop.call_soon(loop.stop)
                loop.run_forever()
            trace.ended = True
            if task.done():
                task.result()
        return trace.builder.cut()


class _Decorator(Protocol):
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...


@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(*, budget: Budget | None = None) -> _Decorator: ...
def workflow(fn: Callable[..., Any] | None = None, /, *, budget: Budget | None = None) -> Any:
    """Make an async function a workflow.

    Args:
        fn: The function. Tools it calls give handles.
        budget: What one run may spend, and how long it may take.

    Raises:
        DefinitionError: It is not an ``async def``.
    """
    local = sys._getframe(1).f_locals

    def decorate(fn: Callable[..., Any]) -> Workflow[..., Any]:
        made: Workflow[..., Any] = Workflow(fn, budget=budget, local=local)
        return made

    return decorate if fn is None else decorate(fn)


def gather(*handles: Handle[T]) -> Handle[list[T]]:
    """Wait for all handles; the value is the list of their values."""
    return _gather(Join("all"), handles)


def settled(*handles: Handle[T]) -> Handle[list[Outcome[T]]]:
    """Wait until all have ended, however; the value says how each did."""
    return _gather(Join("settled"), handles)


def first(*handles: Handle[T]) -> Handle[T]:
    """The first value; the other calls are cancelled unless something else needs them."""
    return _gather(Join("first"), handles)


def quorum(count: int, *handles: Handle[T]) -> Handle[list[T]]:
    """The first `count` values, in the order of the handles; the rest is cancelled."""
    if not 0 < count <= len(handles):
        raise DefinitionError(f"quorum({count}) of {len(handles)} calls cannot be met")
    return _gather(Join("quorum", count), handles)


def _gather(join: Join, handles: tuple[Any, ...]) -> Handle[Any]:
    workflow = recorder.get()
    if not isinstance(workflow, Trace):
        name = GATHER if join.kind == "all" else join.kind
        raise DefinitionError(f"{name}(...) joins handles: call it inside a workflow")
    made: Handle[Any] = workflow.gather(join, handles)
    return made


def said(text: str, by: str = "user") -> None:
    """Tell the current run what the user (or ``by="model"`` a model) said.

    Speculation derives calls and arguments from it. A workflow's arguments, and what is said
    in a `Task`, are known without it. Outside a run nothing happens.
    """
    run = run_scope.get()
    if run is not None:
        run.said(text, by)
