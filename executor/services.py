"""What the runs of one engine share: threads, gates, composed calls, and who cleans up."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from agentflow.budgets.allocation.situation import Allocator
from agentflow.budgets.estimates import Estimates
from agentflow.caches.caching import Caching, Scope
from agentflow.caches.cancelling import cancel_once
from agentflow.caches.epochs import Epochs
from agentflow.caches.keys import Keys
from agentflow.caches.speculation.foresight import Foresight
from agentflow.caches.tool_cache import Reused, ToolCache, reusable
from agentflow.errors import DefinitionError
from agentflow.executor.calls.bound import BoundCall, bind_call
from agentflow.executor.calls.hedging import Latencies
from agentflow.executor.calls.reuse import Reuse, written
from agentflow.executor.calls.threads import DaemonThreads
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.state.gates import Gate
from agentflow.executor.watchdog import Watchdog, is_real
from agentflow.planner.prompting import RESULT_LIMIT
from agentflow.tools.policy import DEFAULT_LIMIT, Policy
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.executor.calls.answers import Answers


KEEP_EVERY = 30.0
"""Seconds between two times that estimates are written to disk, the last time apart."""

REMEMBERED = 100
"""Calls that would not end whose names are kept."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings, sized for calls that mostly wait.

    Attributes:
        run: Calls of one run at once.
        turn: Calls that one reply of a model may ask for.
        nodes: Calls that one plan of a model may hold.
        backend: Requests to one backend at once.
        threads: Threads for plain functions.
        depth: Workflows within workflows.
        requests_per_minute: Requests to one model, or None.
        tokens_per_minute: Tokens of one model, prompts included, or None.
        grace: Seconds that cancelled work has to end before it is abandoned.
        unread: Events of a stream that wait for its reader; of what comes beyond them it is
            told in brief.
        output: Characters of one result that a model is shown, unless its tool says otherwise.
        watchdog: Seconds for which code may hold the event loop before it is named, or None.
    """

    run: int = 1000
    turn: int = 64
    nodes: int = 256
    backend: int = 64
    threads: int = 64
    grace: float = 2.0
    depth: int = 500
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    unread: int = 100_000
    output: int = RESULT_LIMIT
    watchdog: float | None = 0.5

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could run."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            least = _LEAST.get(limit.name, 1.0)
            if value is not None and not value >= least:
                raise DefinitionError(f"Limits({limit.name}={value}): it must be {least:g} or more")


_LEAST = {"grace": 0.0, "watchdog": 0.001}
"""What limits may be at least, where that is not 1."""


@dataclass(slots=True)
class _Shared:
    """What all calls of one tool share in one engine; it is gone with either of the two.

    So it must not hold the services: the tool's `shared` would never let go of them.
    """

    call: BoundCall | None = None
    keys: Keys | None = None
    latencies: Latencies = field(default_factory=Latencies)
    gates: dict[int, Gate] = field(default_factory=dict)  # by limit
    limiters: dict[float, RateLimiter] = field(default_factory=dict)  # by calls a second

    def bind(self, tool: Tool[..., Any], policy: Policy, services: Services) -> BoundCall:
        # A thread cannot be stopped: where its tool has a limit, nothing optional runs in one.
        hosts = tool.kind != "thread" or policy.limit >= DEFAULT_LIMIT
        gate = self.gates.setdefault(policy.limit, Gate(policy.limit, hosts=hosts))
        limiter = None
        if policy.rate is not None:
            fresh = RateLimiter(policy.rate * 60.0, burst=1.0)
            limiter = self.limiters.setdefault(policy.rate, fresh)
        reused = None
        asks = policy.approve or tool.effect.asks  # each call is its own, and so is its value
        if services.cache is not None and not asks and reusable(tool, policy):
            self.keys = self.keys or Keys(tool)
            reused = Reused(tool, policy, self.keys)
        return bind_call(
            tool,
            policy,
            gate,
            limiter,
            services.threads,
            _Spawn(services),
            latencies=self.latencies,
            reused=reused,
            leave=None if services.cache is None else partial(_leave, services.cache.epochs, tool),
            shared=services.cache is not None and services.cache.disk is not None,
        )


class Services:
    """Shared by the runs of an engine, and by nothing else.

    Args:
        limits: Ceilings on what runs at once.
        caching: How results of tools are kept; None for not at all.
        foresight: What may be started before it is asked for; None for nothing.
        chance: Jitter of what is shared.
        partial: Whether calls begin while a model still writes them.
        allocator: Makes what decides how many samples models make; None for the default.
        estimates: What to expect of models; by default nothing is known.

    Attributes:
        partial: As given.
        estimates: As given.
        limits: Ceilings on what runs at once.
        threads: For plain functions.
        cache: Results of tools, or None.
        foresight: What its runs have learnt of what comes next; None without speculation.
        streaming: Names of models that were seen to stream.
        deciding: Held by the run whose allocator decides: taking turns, each is done earlier.
        abandoned: Names of calls that would not end, the last ones.
    """

    def __init__(
        self,
        limits: Limits,
        caching: Caching | None = None,
        foresight: Foresight | None = None,
        chance: random.Random | None = None,
        *,
        partial: bool = True,
        allocator: Callable[[], Allocator] | None = None,
        estimates: Estimates | None = None,
    ) -> None:
        self.limits = limits
        self.partial = partial
        self._allocator = allocator
        self.estimates = estimates or Estimates()
        self.streaming: set[str] = set()
        self.deciding = asyncio.Lock()
        self._keep_again = 0.0  # when estimates may be written again, on the loop's clock
        self.cache: ToolCache | None = None
        self.foresight = foresight
        self._scope: Scope = ""
        self._attending: WeakSet[Answers] = WeakSet()
        if caching is not None:
            self.cache = caching.build(self.spawn, chance or random.Random())
            self.cache.heard = self._listen
            self._scope = caching.scope
        self.threads = DaemonThreads(limits.threads)
        self._watchdog: Watchdog | None = None
        self._tasks: dict[asyncio.Task[Any], Callable[[], object] | None] = {}  # how to end them
        self._given_up: set[asyncio.Task[Any]] = set()
        self.abandoned: list[str] = []

    def call(self, tool: Tool[..., Any], policy: Policy | None) -> BoundCall:
        """The composed call of a tool; calls share its limits unless they have their own."""
        policy = tool.policy if policy is None else policy
        tool = tool.origin
        shared: _Shared | None = tool.shared.get(self)
        if shared is None:
            shared = tool.shared[self] = _Shared()
        if policy is not tool.policy:
            return shared.bind(tool, policy, self)
        if shared.call is None:
            shared.call = shared.bind(tool, tool.policy, self)
        return shared.call

    def allocator(self) -> Allocator:
        """What decides for one run how many samples models make."""
        if self._allocator is not None:
            return self._allocator()
        from agentflow.budgets.allocation.montecarlo import MonteCarlo

        return MonteCarlo()

    def keep_estimates(self) -> None:
        """Write what was learnt to disk, if it is kept there and none was written lately."""
        loop = asyncio.get_running_loop()
        if self.estimates.unsaved and loop.time() >= self._keep_again:
            self._keep_again = loop.time() + KEEP_EVERY
            self.spawn(asyncio.to_thread(self.estimates.save), "keeping estimates")

    def latencies(self, tool: Tool[..., Any]) -> Sequence[float]:
        """Seconds that the last calls of a tool took, as far as they were noted."""
        shared: _Shared | None = tool.origin.shared.get(self)
        return () if shared is None else shared.latencies.known

    def reuse(self, run: str) -> Reuse | None:
        """The tool cache as the runs within one outermost run use it, or None."""
        return None if self.cache is None else Reuse(self.cache, run, self._scope)

    def watchdog(self) -> Watchdog | None:
        """Looks after the running loop while runs attend; None if it is not to be looked after."""
        loop = asyncio.get_running_loop()
        if self.limits.watchdog is None or not is_real(loop):
            return None
        if self._watchdog is None or self._watchdog.loop is not loop:
            self._watchdog = Watchdog(self.limits.watchdog)
        return self._watchdog

    def attend(self, answers: Answers) -> None:
        """Tell a run's answers when something in the cache can become stale from then on."""
        self._attending.add(answers)

    def _listen(self) -> None:
        for answers in self._attending:
            answers.listen()

    def spawn(
        self,
        work: Coroutine[Any, Any, Any],
        name: str,
        stop: Callable[[], object] | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Start a task that the engine owns.

        Args:
            work: What it does.
            name: Its name.
            stop: Called when the engine closes; the task is sure to end after it. Without it
                the task is cancelled.
            context: What it runs in; a copy of the caller's by default.
        """
        # Not by the loop's method: an eager task would begin before it is known here.
        loop = asyncio.get_running_loop()
        task = asyncio.Task(work, loop=loop, name=name, context=context)
        self._tasks[task] = stop
        task.add_done_callback(self._forget)
        return task

    def abandon(self, task: asyncio.Task[Any], name: str) -> None:
        """A task does not end although it was cancelled: name it, and wait no longer."""
        self.abandoned.append(name)
        del self.abandoned[:-REMEMBERED]
        task.set_name(name)
        self._tasks[task] = None
        self._given_up.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else will look at it

    async def aclose(self) -> list[str]:
        """Cancel what is left; the names of tasks and threads that would not end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.limits.grace
        for task, stop in list(self._tasks.items()):
            if stop is not None:
                stop()
            else:
                cancel_once(task)
        this = asyncio.current_task()
        while sure := [t for t, stop in self._tasks.items() if stop is not None and t is not this]:
            await asyncio.wait(sure)
        if rest := self._tasks.keys() - self._given_up - {this}:  # those have had their time
            await asyncio.wait(rest, timeout=max(0.0, until - loop.time()))
        if self.cache is not None:
            await self.cache.aclose()
        if self.foresight is not None:
            await self.foresight.aclose()
        self.threads.shutdown()
        if self._watchdog is not None:
            self._watchdog.close()
        left = [task for task in self._tasks if task is not this and not task.done()]
        for task in left:
            _let_go(task)
        return [task.get_name() for task in left] + self.threads.abandoned


class _Spawn:
    """Starts tasks of services that it does not keep alive: whoever calls it does."""

    def __init__(self, services: Services) -> None:
        self._services = ref(services)

    def __call__(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        services = self._services()
        assert services is not None, "a run holds them"
        return services.spawn(work, name)


def _leave(
    epochs: Epochs, tool: Tool[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Callable[[], None]:
    """Nobody waits any more for a call that may write; gives what to call when it has ended."""
    return epochs.left(written(tool, args, kwargs))


def _let_go(task: asyncio.Task[Any]) -> None:
    """Nobody waits for the task any more, nor does `asyncio.run` when it closes the loop."""
    asyncio.tasks._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # not in typeshed
