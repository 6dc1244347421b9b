"""Calls, composed once per tool: validate, hedge, invoke, check.

A step that is not needed is not there.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Protocol, TypeGuard

from agentflow.caches.flights import Spawn
from agentflow.caches.tool_cache import Reused
from agentflow.context import Context
from agentflow.errors import AgentflowError, BackendError, CallTimeout
from agentflow.executor.calls.hedging import Hedge, Latencies
from agentflow.executor.calls.threads import DaemonThreads
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.state.gates import Gate
from agentflow.tools.policy import UNSET, Policy
from agentflow.tools.roles import Roles
from agentflow.tools.signature import Validate
from agentflow.tools.streaming import Commit
from agentflow.tools.tool import Tool
from agentflow.tools.warmup import Warming, needed


class Site(Protocol):
    """Where a call is made: what a tool may ask of its run."""

    def context(self) -> Context:
        """The `Context` of this attempt."""
        ...

    def emit(self, data: Any) -> None:
        """Report something while the tool works."""
        ...

    def unheard(self) -> Site:
        """The same for a second attempt at the same time, which reports nothing."""
        ...

    def spend(self, usd: Decimal) -> bool:
        """Pay for a second attempt before it begins, if it may."""
        ...

    def hedged(self, after: float) -> None:
        """A second attempt began, `after` seconds into the first."""
        ...

    def finishing(self) -> None:
        """The call has its value; what follows is not its own time."""
        ...


class Watched:
    """A site that is to know from when on something may have been done."""

    __slots__ = ()

    def entered(self) -> None:
        """The function of a tool that may write is about to be called. From any thread."""
        raise NotImplementedError


Invoke = Callable[[Sequence[Any], dict[str, Any], "Site | None"], Coroutine[Any, Any, Any]]

Leave = Callable[[Sequence[Any], dict[str, Any]], Callable[[], None]]
"""Told of the arguments of a call that goes on although it was given up on, and may write.

Gives what to call when it has ended.
"""


@dataclass(slots=True)
class BoundCall:
    """A tool and a policy, ready to be called.

    Attributes:
        invoke: Makes one attempt.
        make: The same, with arguments that are valid.
        work: The same, when what its warm-up gave is among the arguments.
        tool: The tool.
        policy: The policy, per-call overrides included.
        timeout: Seconds an attempt may take, or None; samples of one have that long each.
        gate: Limits how many run at once.
        limiter: Limits how many start a second, or None.
        wants_site: Whether `invoke` needs to know where it is called.
        simple: One attempt, no fallback, no rate limit, no cache.
        reused: How its results are kept, or None.
        changes: Whether it may write.
        latencies: How long attempts took.
    """

    invoke: Invoke
    make: Invoke
    work: Invoke
    tool: Tool[..., Any]
    policy: Policy
    timeout: float | None
    gate: Gate
    limiter: RateLimiter | None
    wants_site: bool
    simple: bool
    reused: Reused | None
    changes: bool
    latencies: Latencies

    def may_retry(self, attempt: int, error: BaseException) -> bool:
        """Whether another attempt is worth making."""
        if attempt > self.policy.retries or not isinstance(error, self.policy.retry_on):
            return False
        if isinstance(error, BackendError):
            return error.retryable
        return isinstance(error, CallTimeout) or not isinstance(error, AgentflowError)

    def pause(self, attempt: int, error: BaseException, chance: random.Random) -> float:
        """Seconds before the next attempt: exponential backoff with full jitter.

        What the server asked for (``Retry-After``) is the least. The jitter is drawn from
        the run's own generator.
        """
        from tenacity import AsyncRetrying, RetryCallState, wait_exponential

        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        backoff = wait_exponential(self.policy.backoff, max=self.policy.backoff_limit)
        asked: float = getattr(error, "retry_after", None) or 0.0
        return max(asked, chance.uniform(0.0, backoff(state)))


def bind_call(
    tool: Tool[..., Any],
    policy: Policy,
    gate: Gate,
    limiter: RateLimiter | None,
    threads: DaemonThreads,
    spawn: Spawn,
    *,
    latencies: Latencies,
    reused: Reused | None = None,
    leave: Leave | None = None,
    shared: bool = False,
) -> BoundCall:
    """Compose the call of a tool; `shared` if other processes are told what it changes."""
    changes = may_write(tool)
    once = policy.retries == 0 and policy.fallback is UNSET and limiter is None
    once = once and not policy.usd
    work = _invoke(tool, threads, leave if changes else None, changes=changes)
    if tool.signature.check_result is not None:
        work = _with_result(work, tool.signature.check_result)
    roles = tool.signature.roles
    make = work if roles.warm is None else _with_warm_up(work, tool, roles.warm)
    if policy.hedge:
        make = Hedge(make, policy, gate, limiter, latencies, spawn)
    warms = tool.origin.warm_up is not None or roles.warm is not None
    wants_site = tool.kind == "stream" or roles.context is not None or warms
    return BoundCall(
        _checked(tool, make, quick=make is work and reused is None),
        make,
        work,
        tool,
        policy,
        None if tool.sampling is not None and tool.sampling.chooses else policy.timeout,
        gate,
        limiter,
        wants_site=wants_site or bool(policy.hedge) or tool.effect.kind == "writes",
        simple=once and reused is None and not (changes and shared),
        reused=reused,
        changes=changes,
        latencies=latencies,
    )


def may_write(tool: Tool[..., Any]) -> bool:
    """Whether a call may change what others read; what a workflow does, its own calls say."""
    if tool.effect.kind == "undeclared":
        return not tool.nests
    return tool.effect.kind == "writes"


def _invoke(
    tool: Tool[..., Any], threads: DaemonThreads, leave: Leave | None, *, changes: bool
) -> Invoke:
    fn, roles = tool.implementation, tool.signature.roles
    name = roles.context
    with_site = changes or name is not None
    if roles.rearranges:
        fn = partial(_rearranged, fn, roles, tool.signature.signature)
    if roles.commit is not None:
        fn = partial(fn, **{roles.commit: Commit()})
    if name is not None:
        fn = partial(_with_context, fn, name)
    if changes:
        fn = partial(_entering, fn, name is not None)
    if tool.kind == "thread":
        return partial(_in_thread, fn, threads, with_site, leave)
    if tool.kind == "stream":
        return partial(_collected, fn, with_site)
    if with_site:
        return lambda args, kwargs, site: fn(site, *args, **kwargs)
    return lambda args, kwargs, _site: fn(*args, **kwargs)


async def ended(warming: Warming, work: Coroutine[Any, Any, Any], site: Site) -> Any:
    """The value of a call that was warmed up for, when that has been cleaned up after."""
    try:
        value = await work
    except BaseException:
        await warming.end(done=False)
        raise
    site.finishing()
    await warming.end(done=True)
    return value


def _rearranged(
    fn: Callable[..., Any],
    roles: Roles,
    signature: inspect.Signature,
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    return roles.call(fn, signature, args, kwargs)


def _with_warm_up(work: Invoke, tool: Tool[..., Any], name: str) -> Invoke:
    """Warming up first, for a call that no model was seen to write."""

    async def warmed(args: Sequence[Any], kwargs: dict[str, Any], site: Site | None) -> Any:
        assert site is not None, "the warm-up may want its context"
        warm_up, context = needed(tool.origin.warm_up, tool.name, name), site.context()
        warming = warm_up.open_for(args, kwargs, context)
        ready = await warming.__aenter__()
        return await ended(warming, work(args, {**kwargs, name: ready}, site), site)

    return warmed


def _with_context(
    fn: Callable[..., Any], name: str, site: Site, /, *args: Any, **kwargs: Any
) -> Any:
    return fn(*args, **kwargs, **{name: site.context()})


def _is_watched(site: Site | None) -> TypeGuard[Watched]:
    return isinstance(site, Watched)


def _entering(
    fn: Callable[..., Any], with_site: bool, site: Site | None, /, *args: Any, **kwargs: Any
) -> Any:
    """A function that may write: it is told that it is called, in the thread that calls it."""
    if _is_watched(site):
        site.entered()
    return fn(site, *args, **kwargs) if with_site else fn(*args, **kwargs)


async def _in_thread(
    fn: Callable[..., Any],
    threads: DaemonThreads,
    with_site: bool,
    leave: Leave | None,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    site: Site | None,
) -> Any:
    tracked = Tracked(threads)
    work = partial(fn, *([site] if with_site else []), *args, **kwargs)
    loop = asyncio.get_running_loop()
    try:
        value = await loop.run_in_executor(tracked, copy_context().run, work)
        return await value if inspect.iscoroutine(value) else value  # of a wrapper, for one
    except asyncio.CancelledError:
        told = None if leave is None else partial(_tell, loop, leave(args, kwargs))
        if tracked.abandon(told) and _is_watched(site):
            site.entered()  # its thread may not have come to say so
        raise


def _tell(loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
    """Tell, from a thread, that a call has ended; its loop may be closed by now."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(ended)


class Tracked(Executor):
    """Remembers the job it was given, so that it can be abandoned."""

    def __init__(self, threads: DaemonThreads) -> None:
        self._threads = threads
        self._job: Future[Any] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread."""
        self._job = self._threads.submit(fn, *args, **kwargs)
        return self._job

    def abandon(self, ended: Callable[[], object] | None) -> bool:
        """Nobody waits for the job any more; `ended` is called when it has ended all the same.

        Returns:
            Whether it had begun.
        """
        if self._job is None:
            return False
        self._threads.abandon(self._job)
        if ended is not None:
            self._job.add_done_callback(lambda _: ended())
        return not self._job.cancelled()


async def _collected(
    fn: Callable[..., Any],
    with_site: bool,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    site: Site | None,
) -> list[Any]:
    assert site is not None, "a generator reports its items"
    items = []
    generator = fn(*([site] if with_site else []), *args, **kwargs)
    try:
        async for item in generator:
            site.emit(item)
            items.append(item)
    finally:
        await generator.aclose()
    return items


def _checked(tool: Tool[..., Any], make: Invoke, *, quick: bool) -> Invoke:
    """Validation of the arguments before, as far as types say."""
    if not tool.signature.typed:
        return make
    validate = tool.signature.validate
    roles = tool.signature.roles
    plain = not (roles.filled or roles.rearranges)
    if quick and tool.kind == "async" and plain:
        return _checked_coroutine(tool.implementation, validate, tool.signature.check_result)

    async def checked(args: Sequence[Any], kwargs: dict[str, Any], site: Site | None) -> Any:
        valid, named = validate(tuple(args), kwargs)
        return await make(valid, named, site)

    return checked


def _checked_coroutine(
    fn: Callable[..., Awaitable[Any]], validate: Validate, check: Callable[[Any], Any] | None
) -> Invoke:
    """The usual case, without a step in between."""

    async def checked(args: Sequence[Any], kwargs: dict[str, Any], site: Site | None) -> Any:
        valid, named = validate(tuple(args), kwargs)
        if site is not None and _is_watched(site):  # the function may write
            site.entered()
        value = await fn(*valid, **named)
        return value if check is None else check(value)

    return checked


def _with_result(invoke: Invoke, check: Callable[[Any], Any]) -> Invoke:
    async def checked(args: Sequence[Any], kwargs: dict[str, Any], site: Site | None) -> Any:
        return check(await invoke(args, kwargs, site))

    return checked
