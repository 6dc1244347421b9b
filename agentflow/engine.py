"""The engine: what runs share, and the door through which they are started."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from agentflow.backends import Backends, RoutingLike
from agentflow.budgets.allocation.situation import Allocator
from agentflow.budgets.budget import Budget
from agentflow.budgets.estimates import Estimates
from agentflow.budgets.ledger import Ledger
from agentflow.budgets.prices import Prices
from agentflow.caches.caching import Caching
from agentflow.caches.speculation.foresight import Foresight
from agentflow.caches.speculation.policy import Speculation
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.audience import Subscriber
from agentflow.executor.models.base import Model
from agentflow.executor.services import Limits, Services
from agentflow.making import Maker
from agentflow.planner.check import read_plan
from agentflow.planner.lower import lower
from agentflow.planner.passes import optimise
from agentflow.planner.plan import Plan
from agentflow.settings import ROUTINGS, Settings
from agentflow.tenants import Tenant
from agentflow.tools.approval import Answerer
from agentflow.tools.tool import Tool
from agentflow.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from agentflow.executor.journal.journal import Journal

P = ParamSpec("P")
T = TypeVar("T")
AnyTool = Tool[..., Any]


class Engine(Maker):
    """Runs workflows, plans and agent tasks.

    An engine owns its threads, gates, model clients and budget; nothing is global, and two
    engines in one process do not know of each other. Use it as an async context manager, or
    call `aclose`.

    Args:
        tools: Tools that plans and tasks may call.
        model: A model client, or the name of a model at the configured endpoint.
        models: Further models by name.
        base_url: OpenAI-compatible endpoint, or several that serve the same models, each of
            which is then a `Pool`; otherwise see `Settings`.
        api_key: Its key; otherwise see `Settings`.
        prices: What models cost.
        limits: Ceilings on what runs at once.
        budget: What all runs together may spend; its deadline counts from the first of them.
        cache: How results of tools are kept: `Caching`, the directory of a disk tier, True for
            memory alone, False for not at all.
        speculation: What may be started before it is asked for: `Speculation`, True for its
            defaults, False for nothing.
        partial: Whether tools that can begin while a model still writes their arguments do, and
            a model is stopped when it writes an argument that is rejected.
        allocator: Makes, for each run, what decides which models try a call of an `llm` that has
            several, and how many samples they make: by default `MonteCarlo`.
        estimates: What is known of models' success, speed and length, and where it is kept:
            `Estimates`, or the path of a file. By default it is learnt anew and forgotten.
        routing: How one of several endpoints is chosen: ``earliest`` (where a reply will probably
            be complete first), ``sticky``, ``least-loaded``, or what makes a `Policy`.
        journal: Where runs are kept so that they can be gone on with: `Journal`, a path, True for
            the user's own, False for nowhere.
        approve: Asked before calls of tools with ``approve``, and about calls in doubt: called
            with a `Question`, in a thread unless it is an ``async def``; gives True, False, an
            `Answer`, or None to leave it open, for which a run has to be kept in a journal.
        subscribers: Called with every event of every run.
        seed: Makes the chance in runs (jitter) repeatable.
    """

    def __init__(
        self,
        *,
        tools: Iterable[AnyTool] = (),
        model: Model | str | None = None,
        models: Mapping[str, Model] | None = None,
        base_url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        prices: Prices | None = None,
        limits: Limits | None = None,
        budget: Budget | None = None,
        cache: Caching | str | Path | bool = True,
        speculation: Speculation | bool = False,
        partial: bool = True,
        allocator: Callable[[], Allocator] | None = None,
        estimates: Estimates | str | Path | None = None,
        routing: RoutingLike = ROUTINGS[0],
        journal: Journal | str | Path | bool = False,
        approve: Answerer | None = None,
        subscribers: Iterable[Subscriber] = (),
        seed: int | None = None,
    ) -> None:
        super().__init__(_journal(journal), approve, subscribers, seed)
        self.tools = Toolbox(tools)
        self.ledger = Ledger(budget, "the engine")
        self.services = Services(
            limits or Limits(),
            _caching(cache),
            _foresight(speculation, cache),
            random.Random(seed),
            partial=partial,
            allocator=_maker(allocator),
            estimates=estimates if isinstance(estimates, Estimates) else Estimates(estimates),
        )
        self._backends = Backends(
            model,
            models,
            base_url=base_url,
            api_key=api_key,
            prices=prices,
            limits=self.services.limits,
            routing=routing,
        )
        self._tenants: dict[str, Tenant] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if left := await self.aclose():
                _warn("did not end when it was cancelled, and was left behind", work=left)
        except JournalError as lost:  # its runs have said so
            _warn("not all that runs did could be written down", why=str(lost))

    async def aclose(self) -> list[str]:
        """Cancel what still runs and close every connection.

        Returns:
            Names of calls that would not end in the grace period and were abandoned.

        Raises:
            JournalError: Not all that runs did could be written down; everything is closed.
        """
        self._closed = True
        async with AsyncExitStack() as closing:  # whatever fails, the rest is closed
            closing.push_async_callback(self._backends.aclose)
            closing.push_async_callback(asyncio.to_thread, self.services.estimates.save)
            if self.journal is not None:
                closing.push_async_callback(self.journal.aclose)
            return await self.services.aclose()

    # Running

    def tenant(self, name: str, budget: Budget | None = None) -> Tenant:
        """Somebody whose runs together keep within a budget; the same one for the same name.

        The budget lies within the engine's. It is a ceiling and no share: no tenant spends more,
        and what is left of the engine's own goes to whoever comes first.

        Args:
            name: Such as the id of a customer.
            budget: What all runs of the tenant together may spend. Its deadline counts from the
                first of them. Without one the tenant's runs are only counted.

        Raises:
            DefinitionError: The tenant exists with another budget.
        """
        if name not in self._tenants:
            self._tenants[name] = Tenant(self, name, self.ledger.child(budget, f"tenant {name}"))
        known = self._tenants[name]
        if budget is not None and budget != known.ledger.budget:
            raise DefinitionError(
                f"tenant {name!r} has {known.ledger.budget}: leave the budget out, or give that one"
            )
        return known

    def plan(self, text: str, *, tools: Iterable[AnyTool] | None = None) -> Plan:
        """Read a plan in the notation and compile it, without running it.

        Args:
            text: Such as the content of a plan file.
            tools: What it may call; the engine's tools by default.

        Raises:
            PlanError: It cannot be read, or cannot be run; `kind` and `at` say why and where.
        """
        box = self.tools if tools is None else Toolbox(tools)
        specs = {name: tool.spec for name, tool in box.items()}
        return optimise(lower(read_plan(text, specs), specs), specs)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every event of runs started from now on.

        Returns:
            A function after which runs that start are not told of any more; those under way are.
        """
        self._subscribers.append(subscriber)

        def end() -> None:
            with suppress(ValueError):  # it was called before
                self._subscribers.remove(subscriber)

        return end

    async def changed(self, *resources: str) -> None:
        """Somebody else wrote to these resources: what was read of them before is stale.

        Args:
            *resources: Paths such as ``orders/17``; ``orders`` covers everything below it.
        """
        paths = tuple(tuple(filter(None, resource.split("/"))) for resource in resources)
        if self.services.cache is not None:
            await self.services.cache.epochs.raised(paths)

    # Models

    def model(self, name: str | None = None) -> Model:
        """A model by name; without a name the default one.

        Raises:
            DefinitionError: No endpoint is configured.
        """
        return self._backends.model(name)

    @property
    def limits(self) -> Limits:
        """Ceilings on what runs at once."""
        return self.services.limits

    @property
    def settings(self) -> Settings:
        """How models are reached."""
        return self._backends.settings


def _warn(what: str, **more: Any) -> None:
    import structlog

    structlog.get_logger("agentflow.engine").warning(what, **more)


def _caching(given: Caching | str | Path | bool) -> Caching | None:
    if isinstance(given, Caching):
        return given
    if isinstance(given, bool):
        return Caching() if given else None
    return Caching(directory=given)


def _journal(given: Journal | str | Path | bool) -> Journal | None:
    if given is False:
        return None
    from agentflow.executor.journal.journal import Journal

    if isinstance(given, Journal):
        return given
    return Journal(None if given is True else given)


def _maker(given: Callable[[], Allocator] | None) -> Callable[[], Allocator] | None:
    if given is not None and not callable(given):
        raise DefinitionError(
            f"allocator={given!r}: each run has one of its own, so give what makes it: "
            "Engine(allocator=MonteCarlo), and not MonteCarlo()"
        )
    return given


def _foresight(given: Speculation | bool, cache: Caching | str | Path | bool) -> Foresight | None:
    if not given:
        return None
    if not isinstance(given, Speculation | bool):
        raise DefinitionError(f"speculation={given!r}: write True, False or Speculation(...)")
    if cache is False:
        raise DefinitionError("speculation keeps its guesses in the cache: leave cache=False out")
    policy = Speculation() if given is True else given
    return Foresight(policy, Ledger(policy.budget))  # no call finds its money taken by a guess
