"""`Tool` and the `tool` decorator: an ordinary function, with what the engine must know of it.

Outside a workflow a tool is still the function it decorates: calling it gives a coroutine.
Inside a workflow calling it gives a `Handle`, and the call becomes a node of the plan.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextvars import copy_context
from dataclasses import replace
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

from agentflow.context import Context, recorder
from agentflow.errors import ArgumentError, DefinitionError
from agentflow.tools.effects import Effect, declared
from agentflow.tools.handle import Handle, Reference, parts
from agentflow.tools.paths import ALL
from agentflow.tools.policy import DEFAULT, UNSET, Options, Policy
from agentflow.tools.roles import Check
from agentflow.tools.rules import check_policy, check_roles, checks_of
from agentflow.tools.sampling import Sampling
from agentflow.tools.signature import Signature
from agentflow.tools.spec import ToolSpec
from agentflow.tools.streaming import Commit
from agentflow.tools.warmup import WarmUp, needed

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_RESERVED = ("join", "return", "gather", "each", "if")


class Tool(Generic[P, R_co]):
    """A callable with a typed signature, a schema, a declared effect and a policy.

    Made by the `tool` decorator. `fn` is the undecorated function.

    Attributes:
        fn: The undecorated function.
        name: As planners and models write it.
        effect: What a call may do to the world.
        policy: How calls are made.
        kind: ``async``, ``thread`` (a plain function) or ``stream`` (an async generator).
        origin: The tool that `with_` was called on; itself otherwise.
        shared: What an engine keeps of the tool, by the engine's services.
        join: How `map` waits for its elements, as text; empty for ``all``.
        when: Reference that must be true for a call to be made, or None.
        batch: Tool that takes a list of this tool's argument and gives the list of results.
        warm_up: What is made ready when a model has named the tool, or None; the original's.
        sampling: How it may be tried, if models do its work; else None.
    """

    fn: Callable[P, Any]
    sampling: Sampling | None = None

    def __init__(
        self,
        fn: Callable[P, Any],
        *,
        name: str | None = None,
        effect: Effect,
        policy: Policy = DEFAULT,
        version: str = "",
        batch: Tool[..., Any] | None = None,
        checks: Mapping[str, Check] | None = None,
        local: Mapping[str, Any] | None = None,
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = name or str(getattr(fn, "__name__", ""))
        self.effect = replace(effect, asks=bool(policy.approve))
        self.policy = policy
        self.version = version
        self.batch = batch
        self.origin: Tool[..., Any] = self
        self.shared: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self.join = ""
        self.when: Any = None
        self.kind = _kind(fn)
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise DefinitionError(
                f"a tool cannot be called {self.name!r}: use letters, digits, '_', '.' and '-', "
                f"and none of {', '.join(_RESERVED)}; @tool(name=...) sets the name"
            )
        self.signature = Signature(fn, self.name, local, checks_of(self.name, checks))
        self.warm_up: WarmUp | None = None
        check_roles(self, self.signature.checks)
        for pattern, parameter in effect.holes:
            if not self.signature.open and parameter not in self.signature.signature.parameters:
                raise DefinitionError(
                    f"tool {self.name!r}: {pattern!r} names no parameter {parameter!r} of it"
                )
        _pose_as_coroutine_function(self, fn)

    @cached_property
    def spec(self) -> ToolSpec:
        """The tool as planners and models see it."""
        return ToolSpec(
            self.name,
            self.signature.parameters,
            open=self.signature.open,
            effect=self.effect,
            description=self.signature.doc,
            returns=self.signature.result_schema,
            version=self.version,
            definitions=self.signature.json_schema.get("$defs", {}),
            rest=self.signature.positional,
            batch="" if self.batch is None else self.batch.name,
            check=self.signature.validate,
        )

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Call it: a handle inside a workflow, a plain coroutine anywhere else."""
        workflow = recorder.get()
        if workflow is None:
            return self._plain(args, kwargs)  # type: ignore[return-value]  # typed as a handle
        handle: Handle[R_co] = workflow.record(self, args, kwargs)
        return handle

    @overload
    def map(
        self: Tool[Concatenate[A, Q], R], items: Iterable[A], /, *args: Q.args, **kwargs: Q.kwargs
    ) -> Handle[list[R]]: ...
    @overload
    def map(self, *args: P.args, **kwargs: P.kwargs) -> Handle[list[R_co]]: ...
    def map(self: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # mypy 2.4: no self type
        """Call it once for every element; the value is the list of results, in order.

        Arguments that are ``handle.each`` (or a path from it) are mapped, several of them in
        step; without any, the first argument is the list. Each call starts as soon as it can.
        """
        workflow = recorder.get()
        if workflow is None:
            return self._plain_map(args, kwargs)
        return workflow.record(self, args, kwargs, mapped=True)

    def with_(self, *, join: str = "", when: Any = None, **options: Unpack[Options]) -> Self:
        """The same tool, called differently: ``fetch.with_(timeout=1)(url)``.

        Args:
            join: How `map` waits for its elements: ``all``, ``settled``, ``first``, ``quorum(n)``.
            when: A reference; the call is skipped unless its value is true.
            **options: Fields of `Policy`, such as ``timeout``, ``retries``, ``fallback``.

        Raises:
            DefinitionError: There is no such option, or it would repeat a write.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        if options:
            twin.policy = self.policy.revised(**options)
            check_policy(self.name, self.effect, twin.policy)
            if (asks := bool(twin.policy.approve)) != self.effect.asks:
                twin.effect = replace(self.effect, asks=asks)
                twin.__dict__.pop("spec", None)  # it says what the effect is
        twin.join = join or self.join
        twin.when = self.when if when is None else when
        return twin

    @property
    def implementation(self) -> Callable[..., Any]:
        """What a node of a plan calls: the undecorated function."""
        return self.fn

    def warm(self, fn: F) -> F:
        """Decorate what is made ready when a model has named the tool; see `WarmUp`.

        Its value is handed to the parameter of the tool that is annotated `Warm`.

        Raises:
            DefinitionError: It is no function that can be one, or there is one already.
        """
        if self.origin.warm_up is not None:
            raise DefinitionError(f"tool {self.name!r} has a warm-up already")
        self.origin.warm_up = WarmUp(fn, self.signature, sys._getframe(1).f_locals)
        return fn

    @property
    def nests(self) -> bool:
        """Whether a call is a run of its own, whose calls are what it does; a model's is none."""
        return self.implementation is not self.fn and self.effect.kind != "samples"

    @property
    def stateful(self) -> bool:
        """Whether a run of it leaves more than a value, and is gone through again on a resume."""
        return False

    def invoke(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the undecorated function, with a detached `Context` and so on if it wants them."""
        roles = self.signature.roles
        given = dict(kwargs)
        if roles.context is not None:
            given.setdefault(roles.context, Context())
        if roles.commit is not None:
            given.setdefault(roles.commit, Commit())
        if roles.rearranges:
            return roles.call(self.fn, self.signature.signature, args, given)
        return self.fn(*args, **given)

    async def _plain(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        role = self.signature.roles.warm
        if role is None or role in kwargs:
            return await self._work(args, kwargs)
        async with needed(self.origin.warm_up, self.name, role).open_for(
            args, kwargs, Context()
        ) as value:
            return await self._work(args, {**kwargs, role: value})

    async def _work(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self.kind == "async":
            return await self.invoke(args, kwargs)
        if self.kind == "stream":
            return [item async for item in self.invoke(args, kwargs)]
        value = await asyncio.to_thread(self.invoke, args, kwargs)
        return await value if inspect.iscoroutine(value) else value

    async def _plain_map(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        if not args or not isinstance(args[0], Iterable):
            raise ArgumentError(f"{self.name}.map needs a list first", tool=self.name)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._plain((item, *args[1:]), kwargs), context=copy_context())
                for item in args[0]
            ]
        return [task.result() for task in tasks]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        raise DefinitionError(
            f"{self.name!r} is a method: decorate a function, or wrap the bound method "
            f"with tool(instance.{self.fn.__name__})"
        )

    def __repr__(self) -> str:
        return f"<tool {self.name}: {self.effect}>"


class Decorator(Protocol):
    """What `tool` with arguments gives: it turns a function into a `Tool`."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[R]], /) -> Tool[P, list[R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Tool[P, R]: ...
@overload
def tool(fn: Callable[P, AsyncIterator[R]], /) -> Tool[P, list[R]]: ...
@overload
def tool(fn: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    pure: bool = False,
    reads: str | Iterable[str] | None = None,
    writes: str | Iterable[str] | None = None,
    idempotent: bool = False,
    version: str = "",
    batch: Tool[..., Any] | None = None,
    check: Mapping[str, Check] | None = None,
    **options: Unpack[Options],
) -> Decorator: ...
def tool(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    pure: bool = False,
    reads: str | Iterable[str] | None = None,
    writes: str | Iterable[str] | None = None,
    idempotent: bool = False,
    version: str = "",
    batch: Tool[..., Any] | None = None,
    check: Mapping[str, Check] | None = None,
    **options: Unpack[Options],
) -> Any:
    """Make a function a tool.

    An ``async def`` runs in the loop, a plain ``def`` in a thread; of an async generator every
    item is reported and the value is their list.

    Args:
        fn: The function; its docstring is the description.
        name: Name for planners and models; the function's by default.
        pure: Same arguments, same value, and nothing else happens.
        reads: Resources it reads, such as ``"web"`` or ``"orders/{order_id}"``.
        writes: Resources it changes.
        idempotent: Writing twice is the same as writing once.
        version: Version of the implementation, for caches.
        batch: Tool that does many of these calls as one.
        check: By parameter what looks at a value: true or None accept it, a reason does not.
        **options: Fields of `Policy`, such as ``timeout``, ``retries``, ``ttl`` and ``usd``.

    Raises:
        DefinitionError: The declaration contradicts itself.
    """
    local = sys._getframe(1).f_locals

    def decorate(fn: Callable[..., Any]) -> Tool[..., Any]:
        if not callable(fn):
            raise DefinitionError(f"@tool decorates a function, not {fn!r}")
        label = name or str(getattr(fn, "__name__", fn))
        try:
            effect = declared(pure, reads, writes, idempotent)
        except ValueError as error:
            raise DefinitionError(f"tool {label!r}: {error}") from None
        policy = DEFAULT.revised(**options) if options else DEFAULT
        check_policy(label, effect, policy)
        rest: Any = {"version": version, "batch": batch, "checks": check, "local": local}
        return Tool(fn, name=name, effect=effect, policy=policy, **rest)

    return decorate if fn is None else decorate(fn)


def has_each(value: Any) -> bool:
    """Whether an argument is one element of a handle (``handle.each``)."""
    return type(value) is Reference and parts(value)[1][:1] == (ALL,)


def _kind(fn: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(fn):
        return "stream"
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__):
        return "async"
    if inspect.isgeneratorfunction(fn):
        raise DefinitionError(
            f"tool {fn.__name__!r} is a plain generator: make it 'async def', or return a list"
        )
    return "thread"


def _pose_as_coroutine_function(made: Any, fn: Any) -> None:
    """`inspect.iscoroutinefunction` says yes, as it does for the function."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(made)
    else:
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            if hasattr(fn, name):
                setattr(made, name, getattr(fn, name))
        made._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # private


__all__ = ["UNSET", "Decorator", "Tool", "has_each", "tool"]
