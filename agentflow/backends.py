"""The models an engine reaches, and the connections to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from agentflow.budgets.prices import Prices
from agentflow.errors import DefinitionError
from agentflow.executor.models.base import Model
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.services import Limits
from agentflow.redaction import conceal
from agentflow.settings import ROUTINGS, Settings
from agentflow.wording import nearest

if TYPE_CHECKING:
    from agentflow.caches.affinity.policies import Policy
    from agentflow.executor.affinity.pool import Pool

RoutingLike: TypeAlias = "str | Callable[[], Policy]"
"""One of `ROUTINGS`, or what makes a policy."""


class Backends:
    """Model clients by name, made when they are first asked for.

    Args:
        default: A model client, or the name of a model at the configured endpoint.
        models: Further models by name.
        base_url: OpenAI-compatible endpoint, or several that serve the same models; otherwise
            see `Settings`.
        api_key: Its key; otherwise see `Settings`.
        prices: What models cost.
        limits: Ceilings on what runs at once.
        routing: How one of several endpoints is chosen.

    Raises:
        DefinitionError: There is no such routing.
    """

    def __init__(
        self,
        default: Model | str | None,
        models: Mapping[str, Model] | None,
        *,
        base_url: str | Sequence[str] | None,
        api_key: str | None,
        prices: Prices | None,
        limits: Limits,
        routing: RoutingLike = ROUTINGS[0],
    ) -> None:
        self._default = default
        self._models: dict[str, Model] = dict(models or {})
        self._base_url, self._api_key = base_url, api_key
        conceal(api_key or "")
        self._prices = prices or Prices()
        self._limits = limits
        self._routing = _checked(routing)
        self._pools: list[Pool] = []
        self._http: Any = None

    @cached_property
    def settings(self) -> Settings:
        """How models are reached."""
        return Settings.load(base_url=self._base_url, api_key=self._api_key)

    def model(self, name: str | None = None) -> Model:
        """A model by name; without a name the default one.

        Raises:
            DefinitionError: No endpoint is configured.
        """
        if name is None:
            if self._default is not None and not isinstance(self._default, str):
                return self._default
            name = self._default or self.settings.model
        if (known := self._models.get(name)) is None:
            known = self._models[name] = self._backend(name)
        return known

    async def aclose(self) -> None:
        """Close every connection."""
        async with AsyncExitStack() as closing:  # whatever fails, the rest is closed
            if self._http is not None:
                http, self._http = self._http, None
                closing.push_async_callback(http.aclose)
            while self._pools:
                closing.push_async_callback(self._pools.pop().aclose)

    def _backend(self, name: str) -> Model:
        from agentflow import _http
        from agentflow.executor.models.client import OpenAIBackend

        settings, limits = self.settings, self._limits
        limiter = RateLimiter(limits.requests_per_minute, limits.tokens_per_minute)
        if not settings.base_url:
            raise DefinitionError(
                "no model endpoint is configured: set OPENAI_BASE_URL (and OPENAI_API_KEY), "
                "or pass Engine(base_url=..., model=...)"
            )
        if not name:
            raise DefinitionError(
                f"no model is named for {settings.base_url}: pass Engine(model=...) "
                "or --model, or set AGENTFLOW_MODEL; 'agentflow doctor' lists what it offers"
            )
        if self._http is None:
            self._http = _http.client()
        if len(settings.base_urls) > 1:
            return self._pool(name, limiter)
        return OpenAIBackend(
            settings.base_url,
            name,
            api_key=settings.api_key,
            http=self._http,
            max_concurrent=limits.backend,
            limiter=limiter,
            prices=self._prices,
        )

    def _pool(self, name: str, limiter: RateLimiter) -> Pool:
        from agentflow.executor.affinity.pool import Pool

        pool = Pool(
            self.settings.base_urls,
            name,
            api_key=self.settings.api_key,
            policy=_policy(self._routing),
            http=self._http,
            max_concurrent=self._limits.backend,
            limiter=limiter,
            prices=self._prices,
        )
        self._pools.append(pool)
        return pool


def _checked(routing: RoutingLike) -> RoutingLike:
    if not callable(routing) and routing not in ROUTINGS:
        known = nearest(str(routing), list(ROUTINGS))
        raise DefinitionError(f"there is no routing {routing!r}. {known}")
    return routing


def _policy(routing: RoutingLike) -> Policy:
    """The policy of one pool."""
    from agentflow.caches.affinity.completion import EarliestCompletion
    from agentflow.caches.affinity.policies import LeastLoaded, Sticky

    if callable(routing):
        return routing()
    makers: tuple[Callable[[], Policy], ...] = (EarliestCompletion, Sticky, LeastLoaded)
    return makers[ROUTINGS.index(routing)]()
